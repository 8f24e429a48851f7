"""The schema of an experiment's file: variants of a recipe, seeds, and the findings to decide. Strict, as a recipe's is."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from spoutnik.errors import UserError
from spoutnik.evals.protocol import EvaluationSettings
from spoutnik.experiment.measures import check_metric
from spoutnik.recipe.problems import describe_problems
from spoutnik.recipe.schema import LARGEST_SEED, refuse_other_names, text_of
from spoutnik.recipe.yaml_file import read_yaml
from spoutnik.train.settings import Settings
from spoutnik.validation import refuse_names

Claim = Literal["higher", "lower", "equal"]


def checked_seeds(seeds: list[int]) -> list[int]:
    """Raises ValueError where they are none."""
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"seed {seed}: must be from 0 to {LARGEST_SEED}")
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands twice, and would count as two that agree")
    return seeds


class Side(Settings):
    """One of the two things that a finding compares: a stage's model, in every seed."""

    variant: str
    """A name under `variants`."""
    stage: str
    """Of the variant's recipe."""
    metric: str | None = None
    """Where it is another than the finding's (cons@8 against accuracy)."""
    layout: Literal["forum", "textbook", "best"] = "forum"
    """Of a base, which knows no conversations: how it is asked. best: the layout in which it is right more often."""

    @field_validator("metric")
    @classmethod
    def _is_a_metric(cls, value: str | None) -> str | None:
        return value if value is None else check_metric(value)


class FindingSettings(Settings):
    """A question to the grid, and the rule by which it is answered."""

    question: str
    """One sentence."""
    paper: str
    """What the paper says, with its place."""
    paper_number: float | None = None
    """Its difference, in the unit of ours (points for shares); none where it gives none."""
    metric: str
    """What is compared; docs/experiment.md lists them."""
    a: Side
    """What is compared with."""
    b: Side
    """What should be higher, lower, or equal."""
    claim: Claim
    """What b is, compared with a, if the finding holds."""
    margin: float = Field(gt=0)
    """In the unit of the difference (points for shares): of `equal` the difference that would not matter (TOST); of `higher`
    and `lower` the smallest that would."""
    note: str = ""
    """What a reader has to know beside the numbers."""
    evaluation: EvaluationSettings | None = None
    """Another than the experiment's, as far as given (more samples for pass@k)."""

    @field_validator("metric")
    @classmethod
    def _is_a_metric(cls, value: str) -> str:
        return check_metric(value)

    @property
    def sides(self) -> dict[str, tuple[Side, str]]:
        """"a" and "b" with the metric of each."""
        return {name: (side, side.metric or self.metric) for name, side in (("a", self.a), ("b", self.b))}


class Variant(Settings):
    """A recipe that differs from the experiment's."""

    varied: str = ""
    """What is varied, in words; without them the page lists the settings."""
    changes: dict = {}
    """Settings of the recipe that are others: `stages.NAME.settings.KEY: value`, or nested. Mappings are merged; with `KEY=`
    one is replaced. null takes a key away."""


class Experiment(Settings):
    """A whole experiment."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Of the experiment, and of its folder under ./runs."""
    description: str = ""
    """A line for people."""
    recipe: str
    """The recipe that is varied: a file, relative to this one, or the name of one that comes with the package."""
    seeds: list[int] = Field(min_length=1)
    """The recipe's seed, one after the other. Stages with a seed of their own, as bases have, are the same in all."""
    evaluation: EvaluationSettings = EvaluationSettings(problems_per_family=225, samples=4)
    """How models are asked: the same held-out problems for all. With eight families 1,800 problems, four samples each."""
    changes: dict = {}
    """Settings of the recipe that are others in all variants."""
    variants: dict[str, Variant] = Field(min_length=1)
    """Name -> what is varied."""
    findings: dict[str, FindingSettings] = Field(min_length=1)
    """Name -> question and rule. All are corrected together (Holm)."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_are_numbers(cls, seeds: object) -> object:
        if isinstance(seeds, list) and any(isinstance(seed, bool) for seed in seeds):
            raise ValueError("true and false are no seeds")
        return seeds

    @field_validator("seeds")
    @classmethod
    def _are_seeds(cls, seeds: list[int]) -> list[int]:
        return checked_seeds(seeds)

    @model_validator(mode="after")
    def _names_exist(self) -> "Experiment":
        refuse_other_names("experiment", {("variants", name): name for name in self.variants})
        refuse_other_names("experiment", {("findings", name): name for name in self.findings})  # of figures on the disk
        refuse_names("experiment", [(("findings", name), name, "so the figure of all findings is called; choose another name",
                                     ()) for name in self.findings if name.casefold() == "overview"])
        wrong = [(("findings", name, side, "variant"), each.variant, f"there is no variant '{each.variant}'", self.variants)
                 for name, finding in self.findings.items() for side, (each, _) in finding.sides.items()
                 if each.variant not in self.variants]
        refuse_names("experiment", wrong)
        return self

    def evaluation_of(self, finding: FindingSettings) -> EvaluationSettings:
        given = {} if finding.evaluation is None else finding.evaluation.model_dump(exclude_unset=True)
        return self.evaluation.model_copy(update=given)


def seeds_of(text: str) -> list[int]:
    """Seeds as the command line gives them: 3,4.

    Raises:
        UserError: they are none.
    """
    try:
        return checked_seeds([int(part) for part in text.split(",")])
    except ValueError as error:
        why = "must be numbers with commas between them" if "invalid literal" in str(error) else str(error)
        raise UserError(f"--seeds {text}: {why}, as in --seeds 3,4.") from error


def read_experiment(path: Path) -> tuple[str, Experiment]:
    """The file's text and what it says.

    Raises:
        UserError: with file, line, key, value and remedy.
    """
    text = text_of(path)
    values = read_yaml(text, str(path))
    if not isinstance(values, dict) or "variants" not in values:
        hint = " This is a recipe: spoutnik run takes it." if isinstance(values, dict) and "stages" in values else ""
        raise UserError(f"{path}: is no experiment, which is a mapping with recipe, seeds, variants and findings.{hint}")
    if (problems := describe_problems(path, text, values, Experiment)) is not None:
        raise UserError(problems)
    return text, Experiment.model_validate(values)

