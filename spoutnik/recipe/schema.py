"""The schema of a recipe file. Unknown keys, wrong types and impossible values are refused before anything runs."""

import re
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator

from spoutnik.errors import UserError
from spoutnik.evals.protocol import EvaluationSettings
from spoutnik.hardware import compute_device, compute_dtype
from spoutnik.hub_data import is_hub_name
from spoutnik.model.config import ModelConfig
from spoutnik.recipe.bill import BillSettings
from spoutnik.recipe.hygiene import HygieneSettings
from spoutnik.recipe.problems import describe_problems
from spoutnik.recipe.scale_settings import ScaleSettings
from spoutnik.recipe.shipped import shipped_recipes
from spoutnik.recipe.stage_base import LARGEST_SEED
from spoutnik.recipe.stage_kinds import BaseStage, GRPOStage, MidtrainStage, PretrainStage, RejectStage, SFTStage, Stage
from spoutnik.recipe.start_forms import FORM_KEYS, StartForm
from spoutnik.recipe.starts import CHECKPOINT, config_of, located
from spoutnik.recipe.yaml_file import read_yaml
from spoutnik.tasks import FAMILIES, Task
from spoutnik.tasks.abstention import Abstention
from spoutnik.tasks.catalog import find_tasks, is_file_name
from spoutnik.tasks.family import HeldOut
from spoutnik.train.monitor import ValidationSettings
from spoutnik.train.pretrain import TOKENIZER_DOCUMENTS
from spoutnik.train.settings import Settings, young
from spoutnik.validation import did_you_mean, refuse_names

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DEVICE = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


def refuse_other_names(title: str, names: dict[tuple[str, ...], str]) -> None:
    """Raises what a validator raises where a name is not that of one folder on every system: they become folders of a run.
    names: path in the recipe -> name."""
    wrong, seen = [], {}
    for path, name in names.items():
        twin = seen.setdefault(name.casefold(), name)
        if not _NAME.fullmatch(name) or _DEVICE.fullmatch(name):
            wrong.append((path, name, f"{name[:80]!r} cannot be the name of a folder; use up to 64 letters, digits, _ and -, "
                          "the first a letter or digit, and no name that Windows reserves for a device (con, nul, com1)", ()))
        elif twin != name:
            wrong.append((path, name, f"'{twin}' and '{name}' differ by case alone, and are one folder on some systems; rename "
                          "one of them", ()))
    refuse_names(title, wrong)


class Recipe(Settings):
    """A whole recipe. `stages` run in file order; each names earlier ones as its inputs."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Of the recipe, and of the run's folder under ./runs."""
    description: str = ""
    """A line for people."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Same seed, same models, to the bit."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the arithmetic; auto is bfloat16 where the processor (or GPU) multiplies it in hardware."""
    device: str = "auto"
    """Where it is computed: cpu, cuda (or cuda:1 for the second GPU); auto is the GPU where there is one. Changes no key:
    numbers differ in rounding alone."""
    checkpoint_seconds: float = Field(default=20.0, gt=0)
    """What a power cut may cost: seconds between two checkpoints of a stage. Where none are given, more for a large model, so
    that what is written stays below 100 GB an hour: 20 up to 46 million parameters, about 60 for 135 million, 700
    for 1.5 billion."""
    vocab_size: int | None = Field(default=None, ge=300)
    """Tokens of the tokenizer, which is trained on the corpus. Of recipes that pretrain: a checkpoint brings its own."""
    tokenizer_documents: int = young(TOKENIZER_DOCUMENTS, gt=0)
    """Documents of the corpus that the tokenizer is trained on."""
    families: list[str] = []
    """The families of problems that are trained and evaluated. A recipe that starts from a checkpoint may do without, and have
    tasks of its own."""
    held_out: HeldOut = young("instance")
    """Which problems of a family no training text has, one in eight: with instance a problem as it is, though not its like with
    other names or numbers; with structure all that have its structure (the table of families says what that is)."""
    tasks: list[str] = []
    """Tasks that are rewarded and evaluated beside the families: names that `spoutnik tasks` lists, or files of your own (JSON
    lines or Python; relative to the recipe's folder). No solver writes traces for them."""
    abstention: float = young(0.0, ge=0, lt=1)
    """What "I don't know" earns in the tasks named under `tasks`, whose prompts then invite to it; 0 for nothing. An answer is
    worth giving where it is right with a higher chance than that."""
    exempt: dict[str, str] = {}
    """Tasks that are trained on although the audit of their verifiers refuses them, by name -> the reason. Changes no weights,
    and no key."""
    models: dict[str, dict]
    """Name -> configuration, with the keys of the published config.json; or `checkpoint`, the folder of a published model or
    its name on the hub, from which a stage starts."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How every stage's model is evaluated."""
    validation: ValidationSettings = ValidationSettings()
    """How an RL stage's start, result and best checkpoint are told apart. Changes no weights, and no key."""
    bill: BillSettings = BillSettings()
    """What power and machines cost. Changes no artifact, and no key."""
    hygiene: HygieneSettings = HygieneSettings()
    """What becomes of traces from files that repeat each other, or hold problems of benchmarks."""
    scale: ScaleSettings | None = None
    """How several processes and cores share the work, so that their number changes no byte."""
    stages: dict[str, Stage]
    """Name -> stage, in the order in which they run."""

    @model_validator(mode="after")
    def _names_are_folders(self) -> "Recipe":
        refuse_other_names("recipe", {("name",): self.name})
        refuse_other_names("recipe", {("stages", name): name for name in self.stages})
        return self

    @model_validator(mode="after")
    def _checkpoints_are_names(self) -> "Recipe":
        wrong = []
        for name, checkpoint in self.checkpoints.items():
            path = ("models", name, CHECKPOINT)
            wrong += [(("models", name, key), key, "is the checkpoint's own and stands in its config.json; remove it here", ())
                      for key in self.models[name] if key not in (CHECKPOINT, *FORM_KEYS)]
            wrong += [(("models", name, key), str(self.models[name][key]), what, ())
                      for key, what in StartForm.problems(self.models[name]).items()]
            if not isinstance(checkpoint, str) or not checkpoint.strip():
                wrong.append((path, str(checkpoint), "must be the folder of a model, or its name on the hub (org/model)", ()))
            if name in self.stages:
                wrong.append((("models", name), name, f"there is a stage '{name}' too, and `from` could mean either; rename "
                              "one of them", ()))
        refuse_names("Recipe", wrong)
        return self

    @model_validator(mode="after")
    def _has_what_stages_learn_from(self) -> "Recipe":
        wrong = []
        for name, stage in self.stages.items():
            if isinstance(stage, PretrainStage) and stage.model in self.checkpoints:
                continue  # which is wrong by itself
            if isinstance(stage, PretrainStage) and self.vocab_size is None:
                wrong.append((("vocab_size",), "", f"the key is missing, and stage '{name}' makes a tokenizer. Add it", ()))
            reads = isinstance(stage, BaseStage) or getattr(stage, "cold_start", None) is not None
            if reads and not self.families:
                what = "cold_start" if isinstance(stage, SFTStage) else stage.kind
                wrong.append((("families",), "", f"the key is missing, and stage '{name}' ({what}) learns them. Add it", ()))
            if isinstance(stage, GRPOStage | RejectStage) and not (self.families or self.tasks):
                wrong.append((("tasks",), "", f"the key is missing, and stage '{name}' ({stage.kind}) needs problems. Give "
                              "tasks or families", ()))
        refuse_names("Recipe", wrong)
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Recipe":
        if self.abstention and not self.tasks:
            raise ValueError("abstention is of the tasks named under `tasks`, and there are none. Name some, or leave it out")
        if self.hygiene != HygieneSettings() and not any(getattr(stage, "file", None) for stage in self.stages.values()):
            raise ValueError("hygiene is of the traces that stages read with `file`, and no stage reads any. Leave it out")
        kinds = {stage.kind for stage in self.stages.values()}
        if self.scale is not None and self.scale.rollout_workers and not kinds & {"grpo", "reject"}:
            raise ValueError("scale.rollout_workers sample for stages of kind grpo and reject, and there are none. Leave it "
                             "out")
        if self.scale is not None and self.scale.max_staleness and "grpo" not in kinds:
            raise ValueError("scale.max_staleness is of stages of kind grpo, and there is none. Leave it out")
        return self

    @model_validator(mode="after")
    def _connected(self) -> "Recipe":
        lists = [(("families",), self.families, FAMILIES)]
        for name, stage in self.stages.items():
            lists.append((("stages", name, "families"), getattr(stage, "families", None) or (), FAMILIES))
            if set(self.families) <= set(FAMILIES):
                lists.append((("stages", name, "examples"), getattr(stage, "examples", None) or (), self.families))
        wrong = [((*path, index), family, f"there is no family '{family}'; the families are {', '.join(choices)}", choices)
                 for path, families, choices in lists for index, family in enumerate(families) if family not in choices]
        makes_model = {"pretrain", "midtrain", "sft", "distill", "dpo", "kto", "grpo"}
        needed = {"start": makes_model, "traces": {"reject"}, "reward_model": {"reward_model"}}
        earlier: dict[str, Stage] = {}
        for name, stage in self.stages.items():
            if isinstance(stage, PretrainStage) and (stage.model not in self.models or stage.model in self.checkpoints):
                what = (f"'{stage.model}' is trained already; start from it with `from` of another kind of stage"
                        if stage.model in self.checkpoints else f"there is no '{stage.model}' under models")
                wrong.append((("stages", name, "model"), stage.model, what, self.models.keys() - self.checkpoints.keys()))
            for role, source in stage.inputs.items():
                key = "from" if role == "start" else role
                able = [other for other, made in earlier.items() if made.kind in needed[role]]
                if role == "start" and source in self.checkpoints:
                    continue
                choices = [*able, *(self.checkpoints if role == "start" else ())]
                if source in self.models and role == "start" and source not in earlier:
                    wrong.append((("stages", name, key), source, f"'{source}' has no weights until a pretrain stage makes them",
                                  choices))
                elif source not in earlier:
                    wrong.append((("stages", name, key), source, f"'{source}' is not an earlier stage", choices))
                elif source not in able:
                    wrong.append((("stages", name, key), source, f"'{source}' is a {earlier[source].kind} stage and cannot "
                                  f"serve as {key}", choices))
            earlier[name] = stage
        refuse_names("Recipe", wrong)
        return self

    @property
    def checkpoints(self) -> dict[str, str]:
        """Name under `models` -> path or name on the hub, of the published ones."""
        return {name: values[CHECKPOINT] for name, values in self.models.items() if CHECKPOINT in values}

    @property
    def start_forms(self) -> dict[str, StartForm]:
        """Name under `models` -> how a published one is asked to write thoughts."""
        return {name: StartForm.of(self.models[name]) for name in self.checkpoints}

    @property
    def used_checkpoints(self) -> dict[str, str]:
        """Those from which a stage starts."""
        starts = {getattr(stage, "start", None) for stage in self.stages.values()}
        return {name: checkpoint for name, checkpoint in self.checkpoints.items() if name in starts}

    def checkpoint_of_stage(self, name: str) -> str | None:
        """The checkpoint from which a stage's model descends, by its name under `models`; None for the recipe's own models."""
        start = getattr(self.stages[name], "start", None)
        return start if start is None or start in self.checkpoints else self.checkpoint_of_stage(start)

    def computes_in(self, source: str = "") -> torch.dtype:
        """The type of activations, on the device that is asked for. source, errors: as of `compute_device`."""
        return compute_dtype(self.dtype, compute_device(self.device, source))

    @property
    def virtual_shards(self) -> int | None:
        """Into how many parts sums are divided; None: into as many as there are processes and cores."""
        return None if self.scale is None else self.scale.fixed_shards

    def families_of(self, stage: Stage) -> list[str]:
        """What a stage is trained on: the recipe's families, unless it names its own."""
        return getattr(stage, "families", None) or self.families

    def tasks_of(self, stage: Stage | None = None) -> list[Task]:
        """What a stage is rewarded and evaluated on; without one, what the recipe is."""
        families = self.families if stage is None else self.families_of(stage)
        return [*find_tasks(families, self.held_out), *self.more_tasks]

    @property
    def more_tasks(self) -> list[Task]:
        """Those beside the families."""
        tasks = find_tasks(self.tasks, self.held_out)
        return [Abstention(task, self.abstention) for task in tasks] if self.abstention else tasks

    @property
    def solved_tasks(self) -> list[Task]:
        """Those whose solvers write traces."""
        return find_tasks(self.families, self.held_out)

    def solved_tasks_of(self, stage: Stage) -> list[Task]:
        """Those of which a stage reads texts."""
        return find_tasks(self.families_of(stage), self.held_out)

    def model_config_of(self, name: str, source: str) -> ModelConfig:
        values = self.models[name]
        if "vocab_size" in values:
            raise UserError(f"{source}: models.{name}.vocab_size is set by the recipe's own vocab_size. Remove it here.")
        return ModelConfig.parse(values | {"vocab_size": self.vocab_size}, f"{source}: models.{name}")

    def config_of_checkpoint(self, name: str, source: str) -> ModelConfig:
        """Of one under `models`; it is looked for. Raises UserError where it cannot be read."""
        return config_of(name, self.checkpoints[name], source)

    def config_of_stage(self, name: str, source: str) -> ModelConfig:
        """The configuration of the model that a stage makes or reads, as its ancestors made it."""
        stage = self.stages[name]
        if isinstance(stage, PretrainStage):
            return self.model_config_of(stage.model, source)
        is_published = stage.start in self.checkpoints
        config = (self.config_of_checkpoint if is_published else self.config_of_stage)(stage.start, source)
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
    text = text_of(path)
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys (name, families, models, stages ...).")
    if (problems := describe_problems(path, text, values, Recipe)) is not None:
        raise UserError(problems)
    return text, recipe_of(values, path)


def recipe_of(values: dict, path: Path) -> Recipe:
    """The recipe of values that the schema takes. path: of the file that they are from, to whose folder paths are relative.

    Raises:
        UserError: a model's configuration is wrong, or files that the recipe names. ValidationError: the schema refuses them.
    """
    recipe = Recipe.model_validate(values)
    for name in recipe.models:
        if name not in recipe.checkpoints and recipe.vocab_size is not None:  # without one, no stage makes the model
            recipe.model_config_of(name, str(path))
    for name in recipe.stages:
        if recipe.checkpoint_of_stage(name) is None:  # others are looked at before a run: they need not be there to be named
            recipe.config_of_stage(name, str(path))
    stages = {name: _with_located_files(stage, name, path) for name, stage in recipe.stages.items()}
    tasks = [str(path.parent / Path(name).expanduser()) if is_file_name(name) else name for name in recipe.tasks]
    try:
        find_tasks(tasks)
    except UserError as error:
        raise UserError(f"{path}: tasks: {error}") from error
    models = recipe.models | {name: recipe.models[name] | {CHECKPOINT: located(checkpoint, path)}
                              for name, checkpoint in recipe.checkpoints.items()}
    return recipe.model_copy(update={"stages": stages, "tasks": tasks, "models": models,
                                     "hygiene": recipe.hygiene.located(path)})


def text_of(path: Path) -> str:
    """Of a recipe's file. Raises UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors write a mark before the text
    except FileNotFoundError as error:
        names = ", ".join(shipped_recipes())
        raise UserError(f"{path}: no such recipe.{did_you_mean(path.stem, shipped_recipes())} Name a file, or one of the "
                        f"package's: {names}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Name a recipe file.") from error


def _with_located_files(stage: Stage, name: str, recipe: Path) -> Stage:
    located = {}
    if getattr(stage, "file", None) is not None:
        located["file"] = _located_file(stage.file, f"{recipe}: stages.{name}.file", recipe)
    anchor = getattr(stage, "anchor", None)
    if anchor is not None and anchor.file is not None:
        file = _located_file(anchor.file, f"{recipe}: stages.{name}.anchor.file", recipe)
        located["anchor"] = anchor.model_copy(update={"file": file})
    return stage.model_copy(update=located)


def _located_file(file: Path, where: str, recipe: Path) -> Path:
    if is_hub_name(file):
        return file
    try:
        return recipe.parent / file.expanduser()
    except RuntimeError as error:  # ~somebody
        raise UserError(f"{where} = {str(file)!r}: has a home folder that is not known here. Write the whole path.") from error
