"""What decides a stage's result, as plain data to be hashed. What changes no result is not in it: comments, paths, how often a
checkpoint is written, limits that only refuse. A `young` setting is in it where it is not its default."""

from spoutnik.files import sha256_file, sha256_json
from spoutnik.recipe.anchors import anchor_hash
from spoutnik.recipe.artifacts import Artifact, stage_key
from spoutnik.recipe.own_data import existing_files
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.stage_kinds import BaseStage, GRPOStage, PretrainStage, RejectStage, RewardModelStage, Stage
from spoutnik.tasks.verifier_code import verifier_code
from spoutnik.train.prompt_style import PromptStyle

_EVALUATION = 2  # raised when evaluations of older code lack what ours hold: 2 keeps all samples
_LIMITS = ("max_mismatch_kl",)  # settings that stop a stage and change nothing else: their defaults stand for them


def stage_settings(recipe: Recipe, stage: Stage, source: str) -> dict:
    """Everything in the recipe that decides this stage's result, as plain data."""
    settings = stage.model_dump(mode="json", by_alias=True, exclude={"seed", "families", "examples"})
    if settings.get("file") is not None:
        settings["file"] = None  # its content counts (`stage_contents`), wherever it lies
    if "anchor" in settings:
        settings["anchor"]["file"] = None  # likewise
    for name in _LIMITS:
        if name in settings["settings"]:
            settings["settings"][name] = type(stage.settings).model_fields[name].default
    _settle_warmup(stage, settings["settings"])
    settings["dtype"] = recipe.dtype
    if isinstance(stage, PretrainStage):
        settings |= {"config": recipe.model_config_of(stage.model, source).model_dump(mode="json", exclude_defaults=True),
                     "vocab_size": recipe.vocab_size}
        settings |= recipe.model_dump(include={"tokenizer_documents"})
    if not isinstance(stage, RewardModelStage):
        settings |= {"families": recipe.families_of(stage)} | recipe.model_dump(include={"held_out"})
    if isinstance(stage, GRPOStage | RejectStage):
        settings |= _more_tasks(recipe)
    if getattr(stage, "file", None) is not None and recipe.hygiene.drops:
        settings["hygiene"] = recipe.hygiene.drops
    if recipe.scale is not None and isinstance(stage, GRPOStage):
        settings |= recipe.scale.deciding
    if recipe.virtual_shards is not None and not isinstance(stage, RejectStage):  # which adds nothing up
        settings["virtual_shards"] = recipe.virtual_shards
        if recipe.scale.key:
            settings["shard"] = recipe.scale.key
    return settings


def _settle_warmup(stage: Stage, settings: dict) -> None:
    """A warm-up that is not given follows from the number of steps, and is another than the same number given."""
    if "warmup" not in settings:
        return
    given, steps = "warmup" in stage.settings.model_fields_set, getattr(stage.settings, "steps", None)
    if not given and steps is not None:
        settings["warmup"] = stage.settings.make_schedule(steps).warmup
    elif given and steps is None and settings["warmup"] == type(stage.settings).model_fields["warmup"].default:
        settings["warmup_given"] = True  # of fine-tuning, whose steps follow from its traces


def stage_contents(recipe: Recipe, stage: Stage, name: str, source: str, inputs: dict[str, Artifact]) -> dict[str, str]:
    """Role -> hash, of all that a stage reads beside its settings.

    Raises:
        UserError: its file of traces, or the text of its anchor, cannot be read.
    """
    contents = {role: artifact.content for role, artifact in inputs.items()}
    if getattr(stage, "file", None) is not None:
        hashes = [sha256_file(file) for file in existing_files(stage, name, source)]
        whole = hashes[0] if len(hashes) == 1 else sha256_json(hashes)
        contents |= {"file": whole} | recipe.hygiene.contents()
    if getattr(stage, "anchor", None) is not None:
        contents["anchor"] = anchor_hash(stage, name, source)
    if isinstance(stage, GRPOStage | RejectStage) and (code := verifier_code(recipe.tasks_of(stage))):
        contents["verifiers"] = sha256_json(code)
    return contents


def seed_of(recipe: Recipe, stage: Stage) -> int:
    own = stage.seed if isinstance(stage, BaseStage) else None
    return recipe.seed if own is None else own


def key_of(recipe: Recipe, stage: Stage, name: str, source: str, inputs: dict[str, Artifact]) -> str:
    """The key of the artifact that a stage makes of these inputs."""
    return stage_key(stage.kind, stage_settings(recipe, stage, source), seed_of(recipe, stage),
                     stage_contents(recipe, stage, name, source, inputs))


def style_of_stage(stage: Stage) -> PromptStyle:
    """How the model that a stage makes is asked: a base as a forum is, RL as its rollouts were, others in a conversation."""
    if isinstance(stage, BaseStage):
        return "forum"
    return stage.settings.prompt_style if isinstance(stage, GRPOStage) else "chat"


def evaluation_protocol(recipe: Recipe, stage: Stage) -> tuple[PromptStyle, str]:
    """How a stage's model is asked, and the hash of all that decides its evaluation beside the model."""
    style = style_of_stage(stage)
    code = verifier_code(recipe.tasks_of())
    asked = {"families": recipe.families} | recipe.model_dump(include={"held_out"}) | _more_tasks(recipe)
    return style, sha256_json({"version": _EVALUATION, "settings": recipe.evaluation.model_dump(), "style": style,
                               "seed": recipe.seed, "dtype": recipe.dtype} | asked | ({"verifiers": code} if code else {}))


def _more_tasks(recipe: Recipe) -> dict:
    """The tasks beside the families by their own names: the contents of files count, wherever they lie."""
    if not recipe.tasks:
        return {}
    return {"tasks": [task.name for task in recipe.more_tasks]} | recipe.model_dump(include={"abstention"})
