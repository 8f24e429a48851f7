"""The grid of an experiment: which stages are to be made and which models evaluated, each once, however many variants share it.

Before its inputs are made, the key of an artifact is not known. A job's symbol is the key that it would have if its inputs had
their symbols as contents: equal symbols mean equal artifacts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.evals.protocol import EvaluationSettings
from spoutnik.experiment.measures import least_samples, needs_evaluation
from spoutnik.experiment.schema import Experiment, FindingSettings, Side, read_experiment
from spoutnik.experiment.stage_numbers import missing_number
from spoutnik.experiment.variants import variant_recipes
from spoutnik.files import sha256_json
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.audit import audit_rewards
from spoutnik.recipe.checks import Drawn, check_recipe
from spoutnik.recipe.keys import evaluation_protocol, key_of, style_of_stage
from spoutnik.recipe.run import with_seed
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.shipped import experiment_name
from spoutnik.recipe.stage_kinds import RejectStage, RewardModelStage
from spoutnik.recipe.starts import published_starts
from spoutnik.validation import did_you_mean

Place = tuple[str, int, str]  # variant, seed, stage


@dataclass(frozen=True)
class Job:
    """A stage to make, or the model of one to evaluate. needs: role -> symbol of the job whose artifact it reads; of an
    evaluation the role is "model"."""

    symbol: str
    stage: str
    variant: str  # the first that needs it
    seed: int
    recipe: Recipe = field(repr=False)
    values: dict = field(repr=False)
    source: str
    needs: dict[str, str]
    evaluates: bool = False

    @property
    def title(self) -> str:
        return f"{self.variant}/{self.stage}, seed {self.seed}" + (", evaluation" if self.evaluates else "")


@dataclass(frozen=True)
class GridExperiment:
    """An experiment's part of the grid. file: what names it on the command line. about: a line on it. prefix: what stands
    before its variants' names where the grid is of several experiments. varied: variant -> words."""

    settings: Experiment
    file: str
    about: str
    prefix: str
    varied: dict[str, str]

    @property
    def seeds(self) -> list[int]:
        return self.settings.seeds

    def evaluation_of(self, finding: FindingSettings) -> EvaluationSettings:
        return self.settings.evaluation_of(finding)


@dataclass(frozen=True)
class _Symbol:
    """Stands for an artifact that is not made yet."""

    content: str


@dataclass
class Grid:
    """experiments: by name. jobs: symbol -> job, each after those that it needs. findings: name -> settings. definitions:
    finding -> hash of all that decides its numbers but the seeds. measured: (finding, side, seed) -> (symbol of the stage,
    symbol of its evaluation or None). starts: symbol -> published checkpoint."""

    experiments: dict[str, GridExperiment] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    findings: dict[str, FindingSettings] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    measured: dict[tuple[str, str, int], tuple[str, str | None]] = field(default_factory=dict)
    starts: dict[str, Artifact] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the experiments."""
        return list(self.experiments)

    def experiment_of(self, finding: str) -> GridExperiment:
        return next(one for one in self.experiments.values() if finding in one.settings.findings)

    def below(self, symbol: str) -> set[str]:
        """The symbols of a job and of all that it needs."""
        return {symbol}.union(*(self.below(need) for need in self.jobs[symbol].needs.values()))


def build_grid(paths: Sequence[Path], seeds: Sequence[int] | None = None) -> Grid:
    """The grid of one experiment or of several, whose findings are corrected together.

    Args:
        seeds: others than the files'.

    Raises:
        UserError: a file is wrong, variants differ in nothing, a finding asks for what its stages do not have.
    """
    grid = Grid()
    for path in paths:
        _, experiment = read_experiment(path)
        if seeds is not None:
            experiment = experiment.model_copy(update={"seeds": list(seeds)})
        _add(grid, experiment, path, len(paths) > 1)
    return grid


def _add(grid: Grid, experiment: Experiment, path: Path, several: bool) -> None:
    file, recipes, varied = variant_recipes(experiment, path)
    prefix = f"{experiment.name}." if several else ""
    if experiment.name in grid.experiments:
        raise UserError(f"{path}: name = {experiment.name}: another of the experiments has this name. Rename one of the two.")
    about = f"`{experiment.name}` varies the recipe `{file.stem}`" + (f": {experiment.description}" if experiment.description
                                                                     else "")
    grid.experiments[experiment.name] = GridExperiment(experiment, experiment_name(path), about, prefix, varied)
    builder, apart = _Builder(grid, str(file), prefix, recipes), _Builder(Grid(), str(file), prefix, recipes)
    taken = {name.casefold() for name in grid.findings}  # on some systems figures that differ by case alone are one file
    for name, finding in experiment.findings.items():
        if name.casefold() in taken:
            raise UserError(f"{path}: findings.{name}: another experiment has a finding of this name. Rename one of the two.")
        where = f"{path}: findings.{name}"
        _check_finding(finding, experiment, recipes, where)
        grid.findings[name] = finding
        grid.definitions[name] = _definition(finding, experiment, apart)
        for side, (asked, metric) in finding.sides.items():
            for seed in experiment.seeds:
                evaluation = experiment.evaluation_of(finding) if needs_evaluation(metric) else None
                grid.measured[name, side, seed] = builder.measured(asked, seed, evaluation)
        _refuse_nothing(grid, name, finding, experiment, where)
    unused = [name for name in recipes if name not in builder.used]
    if unused:
        raise UserError(f"{path}: variants.{unused[0]}: no finding compares it. Name it in one, or leave it out.")
    _refuse_twins(builder, path)


@dataclass
class _Builder:
    """The jobs of one experiment's variants."""

    grid: Grid
    source: str
    prefix: str
    recipes: Mapping[str, tuple[dict, Recipe]]
    used: dict[str, set[str]] = field(default_factory=dict)  # variant -> stages that findings compare
    symbols: dict[Place, str] = field(default_factory=dict)

    def measured(self, side: Side, seed: int, evaluation: object) -> tuple[str, str | None]:
        self.used.setdefault(side.variant, set()).add(side.stage)
        made = self.make(side.variant, seed, side.stage)
        return made, None if evaluation is None else self.evaluate(side.variant, seed, side.stage, made, evaluation)

    def make(self, variant: str, seed: int, name: str) -> str:
        """The symbol of a stage, with the jobs that it takes."""
        if (variant, seed, name) in self.symbols:
            return self.symbols[variant, seed, name]
        values, recipe = self.recipes[variant]
        recipe = with_seed(recipe, seed)
        stage = recipe.stages[name]
        needs, inputs = {}, {}
        for role, origin in stage.inputs.items():
            if origin in recipe.checkpoints:
                inputs[role] = self._published(recipe, origin)
            else:
                needs[role] = self.make(variant, seed, origin)
                inputs[role] = _Symbol(needs[role])
        symbol = f"{name}-{key_of(recipe, stage, name, self.source, inputs)}"
        self.symbols[variant, seed, name] = symbol
        self.grid.jobs.setdefault(symbol, Job(symbol, name, self.prefix + variant, seed, recipe, values, self.source, needs))
        return symbol

    def evaluate(self, variant: str, seed: int, name: str, made: str, evaluation: object) -> str:
        values, recipe = self.recipes[variant]
        recipe = with_seed(recipe, seed).model_copy(update={"evaluation": evaluation})
        values = values | {"evaluation": evaluation.model_dump(mode="json")}
        _, protocol = evaluation_protocol(recipe, recipe.stages[name])
        symbol = f"{made}-{protocol}"
        self.grid.jobs.setdefault(symbol, Job(symbol, name, self.prefix + variant, seed, recipe, values, self.source,
                                              {"model": made}, True))
        return symbol

    def _published(self, recipe: Recipe, origin: str) -> Artifact:
        key = sha256_json([origin, recipe.checkpoints[origin]])
        if key not in self.grid.starts:
            self.grid.starts[key] = published_starts({origin: recipe.checkpoints[origin]}, self.source,
                                                     forms=recipe.start_forms)[origin]
        return self.grid.starts[key]


def _definition(finding: FindingSettings, experiment: Experiment, builder: _Builder) -> str:
    """Hash of all that decides a finding's numbers but the seeds: the symbols that its sides would have with one and the same
    seed, and how they are compared."""
    evaluation = experiment.evaluation_of(finding)
    sides = [[*builder.measured(side, 0, evaluation if needs_evaluation(metric) else None), side.layout, metric]
             for side, metric in finding.sides.values()]
    return sha256_json([sides, finding.claim, finding.margin])


def _check_finding(finding: FindingSettings, experiment: Experiment, recipes: Mapping[str, tuple[dict, Recipe]],
                   where: str) -> None:
    for name, (side, metric) in finding.sides.items():
        stages = recipes[side.variant][1].stages
        if side.stage not in stages:
            raise UserError(f"{where}.{name}.stage = {side.stage}: variant '{side.variant}' has no such stage."
                            f"{did_you_mean(side.stage, stages)} Its stages are {', '.join(stages)}.")
        stage = stages[side.stage]
        if needs_evaluation(metric) and isinstance(stage, RejectStage | RewardModelStage):
            raise UserError(f"{where}.{name}: {metric} is of models that answer, and '{side.stage}' is a {stage.kind} stage. "
                            "Compare another stage, or made.KEY of its manifest.")
        converses = style_of_stage(stage) == "chat"
        if metric in ("helpfulness", "dialogues") and not converses:
            raise UserError(f"{where}.{name}: {metric} is of models that converse, and '{side.stage}' is asked in plain "
                            "text. Compare another stage or metric.")
        if side.layout == "textbook" and converses:
            raise UserError(f"{where}.{name}.layout = textbook: '{side.stage}' converses; bases alone are asked in layouts. "
                            "Leave it out.")
        if (problem := missing_number(metric, stage, recipes[side.variant][1])) is not None:
            raise UserError(f"{where}.{name}: {problem}")
        samples = experiment.evaluation_of(finding).samples
        if samples < least_samples(metric):
            raise UserError(f"{where}: {metric} needs {least_samples(metric)} samples of a problem, and evaluation.samples is "
                            f"{samples}. Give the finding an evaluation of its own: {{samples: {least_samples(metric)}}}.")


def _refuse_nothing(grid: Grid, name: str, finding: FindingSettings, experiment: Experiment, where: str) -> None:
    same = all(grid.measured[name, "a", seed] == grid.measured[name, "b", seed] for seed in experiment.seeds)
    (a, metric_a), (b, metric_b) = finding.sides["a"], finding.sides["b"]
    if same and metric_a == metric_b and a.layout == b.layout:
        raise UserError(f"{where}: a ({a.variant}/{a.stage}) and b ({b.variant}/{b.stage}) are the same model: nothing that "
                        "makes them differs. Compare others, or change a setting that counts.")


def _refuse_twins(builder: _Builder, path: Path) -> None:
    """Two variants all of whose compared stages are the same are one variant with two names."""
    makes: dict[tuple, str] = {}
    for variant, stages in builder.used.items():
        every = tuple(sorted(symbol for (name, _, stage), symbol in builder.symbols.items() if name == variant))
        alike = makes.setdefault(every, variant)
        if alike != variant:
            raise UserError(f"{path}: variants.{variant} and variants.{alike} differ in nothing that makes "
                            f"{', '.join(sorted(stages))}. Change a setting that counts in one of them, or leave it out.")


def check_grid(grid: Grid, found: Mapping[str, Artifact], say: Callable[[str], None]) -> None:
    """What a run of each variant would refuse before its first stage. found: symbol -> what is there already; its tokenizers
    count prompts.

    Raises:
        UserError: as `spoutnik run`.
    """
    heard: dict[str, None] = {}
    drawn: Drawn = {}
    for variant, jobs in _by_variant(grid).items():
        recipe, source = jobs[0].recipe, jobs[0].source
        below = set().union(*(grid.below(job.symbol) for job in jobs))
        known = {grid.jobs[symbol].stage: found[symbol] for symbol in below
                 if symbol in found and not grid.jobs[symbol].evaluates}
        stages = list(dict.fromkeys(job.stage for job in jobs))
        try:
            check_recipe(recipe, source, stages, known, drawn)
            audit_rewards(recipe, source, stages, heard.setdefault)
        except UserError as error:
            raise UserError(f"variant {variant}: {error}") from error
    for text in heard:
        say(text)


def _by_variant(grid: Grid) -> dict[str, list[Job]]:
    """Variant -> the jobs that it is the first to need."""
    jobs: dict[str, list[Job]] = {}
    for job in grid.jobs.values():
        jobs.setdefault(job.variant, []).append(job)
    return jobs
