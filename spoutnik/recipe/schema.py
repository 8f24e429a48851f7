"""The schema of a recipe file. Unknown keys, wrong types and impossible values are refused before anything runs."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from spoutnik.errors import UserError
from spoutnik.evals.protocol import EvaluationSettings
from spoutnik.model.config import ModelConfig, first_error
from spoutnik.recipe.shipped import shipped_recipes
from spoutnik.recipe.yaml_file import Lines, read_yaml
from spoutnik.tasks import FAMILIES
from spoutnik.train.grpo import GRPOSettings
from spoutnik.train.pretrain import TOKENIZER_DOCUMENTS, PretrainSettings
from spoutnik.train.reject import RejectSettings
from spoutnik.train.reward_model import RewardModelSettings
from spoutnik.train.settings import Settings, StrictModel, refuse_truth
from spoutnik.train.sft import ColdStartSettings, SFTSettings

LARGEST_SEED = 2 ** 32 - 1  # with a step's number still an integer that every generator takes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DEVICE = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


def check_names(key: str, names: Iterable[str]) -> None:
    """Raises ValueError for a name that is not that of one folder on every system: they become folders of a run."""
    seen: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name) or _DEVICE.fullmatch(name):
            raise ValueError(f"{key}: {name[:80]!r} cannot be the name of a folder. Use up to 64 letters, digits, _ and -, the "
                             "first a letter or digit, and no name that Windows reserves for a device (con, nul, com1)")
        twin = seen.setdefault(name.casefold(), name)
        if twin != name:
            raise ValueError(f"{key}: '{twin}' and '{name}' differ by case alone, and are one folder on some systems. Rename "
                             "one of them")


class _Stage(StrictModel):
    model_config = ConfigDict(populate_by_name=True)

    @field_validator("seed", "general", "dialogue_share", mode="before", check_fields=False)
    @classmethod
    def _numbers_are_numbers(cls, value: object, info: ValidationInfo) -> object:  # not of "*": `kind` decides the class
        return refuse_truth(cls, value, info)

    @property
    def inputs(self) -> dict[str, str]:
        """Role -> name of the stage it comes from."""
        return {role: name for role in ("start", "reward_model", "traces") if (name := getattr(self, role, None)) is not None}


class PretrainStage(_Stage):
    """A base model of the recipe's `models` entry, from random weights. With a `seed` of its own it stays the same under
    every seed of the recipe: bases are dear, and what varies after them is what one wants to compare. families: what it
    reads, where that is not all of the recipe's."""

    kind: Literal["pretrain"]
    model: str
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    families: list[str] | None = Field(default=None, min_length=1)
    settings: PretrainSettings


class MidtrainStage(_Stage):
    """More reading for `from`, with other and longer documents, before it learns to converse. context: the keys of the model's
    configuration that widen its context (DeepSeek-V3, section 4.3), as far as they change."""

    kind: Literal["midtrain"]
    start: str = Field(alias="from")
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    context: dict = {}
    settings: PretrainSettings

    @model_validator(mode="after")
    def _only_the_context(self) -> "MidtrainStage":
        foreign = sorted(set(self.context) - {"max_position_embeddings", "rope_scaling", "rope_theta"})
        if foreign:
            raise ValueError(f"context.{foreign[0]}: would make another model. The context has max_position_embeddings, "
                             "rope_scaling and rope_theta")
        return self


class _ConversingStage(_Stage):
    """A model that converses. examples: of the recipe's families, those whose questions its card shows (all of them where it
    says nothing)."""

    examples: list[str] | None = None


class SFTStage(_ConversingStage):
    """Supervised fine-tuning of `from` on traces: written by the solvers (`cold_start`), kept by a reject stage
    (`traces`: its name), read from a file (`file`), with `general` conversations mixed in. dialogue_share: of the solvers'
    traces and of the general ones, with earlier turns."""

    kind: Literal["sft", "distill"]
    start: str = Field(alias="from")
    cold_start: ColdStartSettings | None = None
    traces: str | None = None
    file: Path | None = None
    general: int = Field(default=0, ge=0)
    dialogue_share: float = Field(default=0.0, ge=0, le=1)
    settings: SFTSettings

    @model_validator(mode="after")
    def _has_data(self) -> "SFTStage":
        if self.cold_start is None and self.traces is None and self.file is None and not self.general:
            raise ValueError("a stage of kind sft or distill needs data: cold_start, traces, file or general")
        if self.dialogue_share and self.cold_start is None and not self.general:
            raise ValueError("dialogue_share is of the traces of cold_start and of general, and the stage has neither: traces "
                             "that are read have the earlier turns that they have")
        return self


class GRPOStage(_ConversingStage):
    kind: Literal["grpo"]
    start: str = Field(alias="from")
    reward_model: str | None = None
    settings: GRPOSettings

    @model_validator(mode="after")
    def _general_needs_a_reward_model(self) -> "GRPOStage":
        if self.settings.general_share and self.reward_model is None:
            raise ValueError("settings.general_share needs a reward_model to judge general prompts")
        return self


class RejectStage(_Stage):
    kind: Literal["reject"]
    start: str = Field(alias="from")
    settings: RejectSettings


class RewardModelStage(_Stage):
    kind: Literal["reward_model"]
    start: str = Field(alias="from")
    settings: RewardModelSettings


BaseStage = PretrainStage | MidtrainStage  # makes a model that continues texts, and may have a seed of its own
Stage = Annotated[PretrainStage | MidtrainStage | SFTStage | GRPOStage | RejectStage | RewardModelStage,
                  Field(discriminator="kind")]


class Recipe(Settings):
    """A whole recipe. `stages` run in file order; each names earlier ones as its inputs."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str = ""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    checkpoint_seconds: float = Field(default=20.0, gt=0)
    vocab_size: int = Field(ge=300)
    tokenizer_documents: int = Field(default=TOKENIZER_DOCUMENTS, gt=0)  # of the corpus, that the tokenizer is trained on
    families: list[str] = Field(min_length=1)
    models: dict[str, dict]
    evaluation: EvaluationSettings = EvaluationSettings()
    stages: dict[str, Stage]

    @model_validator(mode="after")
    def _names_are_folders(self) -> "Recipe":
        check_names("name", [self.name])
        check_names("stages", self.stages)
        return self

    @model_validator(mode="after")
    def _connected(self) -> "Recipe":
        read = [name for stage in self.stages.values() for name in self.families_of(stage)]
        unknown = [name for name in [*self.families, *read] if name not in FAMILIES]
        if unknown:
            raise ValueError(f"families: there is no family '{unknown[0]}'; the families are {', '.join(FAMILIES)}")
        for name, stage in self.stages.items():
            untaught = [family for family in getattr(stage, "examples", None) or () if family not in self.families]
            if untaught:
                raise ValueError(f"stages.{name}.examples: there is no family '{untaught[0]}' among the recipe's families: "
                                 f"{', '.join(self.families)}")
        makes_model = {"pretrain", "midtrain", "sft", "distill", "grpo"}
        needed = {"start": makes_model, "traces": {"reject"}, "reward_model": {"reward_model"}}
        earlier: dict[str, Stage] = {}
        for name, stage in self.stages.items():
            if isinstance(stage, PretrainStage) and stage.model not in self.models:
                raise ValueError(f"stages.{name}.model: there is no '{stage.model}' under models")
            for role, source in stage.inputs.items():
                key = "from" if role == "start" else role
                if source not in earlier:
                    raise ValueError(f"stages.{name}.{key}: '{source}' is not an earlier stage")
                if earlier[source].kind not in needed[role]:
                    raise ValueError(f"stages.{name}.{key}: '{source}' is a {earlier[source].kind} stage and cannot "
                                     f"serve as {key}")
            earlier[name] = stage
        return self

    def families_of(self, stage: Stage) -> list[str]:
        """What a stage is trained on: the recipe's families, unless it names its own."""
        return getattr(stage, "families", None) or self.families

    def model_config_of(self, name: str, source: str) -> ModelConfig:
        values = self.models[name]
        if "vocab_size" in values:
            raise UserError(f"{source}: models.{name}.vocab_size is set by the recipe's own vocab_size. Remove it here.")
        return ModelConfig.parse(values | {"vocab_size": self.vocab_size}, f"{source}: models.{name}")

    def config_of_stage(self, name: str, source: str) -> ModelConfig:
        """The configuration of the model that a stage makes or reads, as its ancestors made it."""
        stage = self.stages[name]
        if isinstance(stage, PretrainStage):
            return self.model_config_of(stage.model, source)
        config = self.config_of_stage(stage.start, source)
        return widened(config, stage.context, f"{source}: stages.{name}") if isinstance(stage, MidtrainStage) else config


def widened(config: ModelConfig, context: dict, source: str) -> ModelConfig:
    """The configuration with another context."""
    return ModelConfig.parse(config.model_dump(mode="json", exclude_unset=True) | context, source)


def load_recipe(path: Path) -> Recipe:
    """Raises UserError with file, line, key, value and remedy."""
    return read_recipe(path)[1]


def read_recipe(path: Path) -> tuple[str, Recipe]:
    """The recipe's text and what it says, from one reading of the file. Paths in it are relative to its folder.

    Raises:
        UserError: with file, line, key, value and remedy.
    """
    path = Path(path)
    text = _text_of(path)
    values, lines = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys (name, families, models, stages ...).")
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}{_line_of(error, lines)}: {first_error(error)}") from error
    for name in recipe.models:
        recipe.model_config_of(name, str(path))
    for name in recipe.stages:
        recipe.config_of_stage(name, str(path))
    stages = {name: _with_located_file(stage, name, path, lines) for name, stage in recipe.stages.items()}
    return text, recipe.model_copy(update={"stages": stages})


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors write a mark before the text
    except FileNotFoundError as error:
        names = ", ".join(shipped_recipes())
        raise UserError(f"{path}: no such recipe. Name a file, or one of the package's: {names}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Name a recipe file.") from error


def _line_of(error: ValidationError, lines: Lines) -> str:
    """", line 12" of the first error; of the stage that its message names where pydantic only knows the recipe."""
    first = error.errors()[0]
    path = list(first["loc"])
    named = re.match(r"(?:Value error, )?((?:stages|families|name)[\w.-]*):", first["msg"])
    return lines.find(named[1].split(".") if named and not path else path)


def _with_located_file(stage: Stage, name: str, recipe: Path, lines: Lines) -> Stage:
    if not isinstance(stage, SFTStage) or stage.file is None:
        return stage
    try:
        file = recipe.parent / stage.file.expanduser()
    except RuntimeError as error:  # ~somebody
        raise UserError(f"{recipe}{lines.find(('stages', name, 'file'))}: stages.{name}.file = {str(stage.file)!r}: has a home "
                        "folder that is not known here. Write the whole path.") from error
    return stage.model_copy(update={"file": file})
