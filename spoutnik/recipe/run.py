"""The run of a recipe's DAG: finished stages are reused, interrupted ones resumed, missing ones made."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from spoutnik.errors import UserError
from spoutnik.evals.protocol import PromptStyle
from spoutnik.files import install_folder, remove_folder, sha256_file, sha256_json, write_json, write_text
from spoutnik.recipe.acceptance import accepted, refused
from spoutnik.recipe.artifacts import Artifact, copy_shipped, find, seal, shipped_folder, stage_key
from spoutnik.recipe.report import write_report
from spoutnik.recipe.schema import (
    BaseStage,
    PretrainStage,
    Recipe,
    RejectStage,
    RewardModelStage,
    SFTStage,
    Stage,
    load_recipe,
)
from spoutnik.recipe.stages import Context, evaluate_model, run_stage
from spoutnik.train.loop import Progress
from spoutnik.train.pretrain import TOKENIZER_DOCUMENTS

MADE, REUSED, PREBUILT = "made now", "already made", "prebuilt"


class Display(Protocol):
    """The display of a run: the terminal, or nothing."""

    def stage(self, name: str, kind: str, position: int, total: int) -> AbstractContextManager[Callable[[str], Progress]]:
        """Opens a stage's progress; what it yields makes a Progress for each thing the stage does."""

    def log(self, text: str) -> None: ...


@dataclass(frozen=True)
class RunResult:
    """The artifacts in stage order, and where each came from."""

    out: Path
    artifacts: list[Artifact]
    origins: dict[str, str]


def stage_settings(recipe: Recipe, stage: Stage, source: str) -> dict:
    """Everything in the recipe that decides this stage's result, as plain data."""
    settings = stage.model_dump(mode="json", by_alias=True, exclude={"seed", "families", "examples"})
    settings["dtype"] = recipe.dtype
    if isinstance(stage, PretrainStage):
        settings |= {"config": recipe.model_config_of(stage.model, source).model_dump(mode="json", exclude_defaults=True),
                     "vocab_size": recipe.vocab_size}
        if recipe.tokenizer_documents != TOKENIZER_DOCUMENTS:  # younger than the first artifacts, whose keys lack it
            settings["tokenizer_documents"] = recipe.tokenizer_documents
    if not isinstance(stage, RewardModelStage):
        settings["families"] = recipe.families_of(stage)
    return settings


def _key(recipe: Recipe, stage: Stage, source: str, inputs: dict[str, Artifact]) -> str:
    contents = {role: artifact.content for role, artifact in inputs.items()}
    if isinstance(stage, SFTStage) and stage.file is not None:
        if not stage.file.exists():
            raise UserError(f"{source}: file = {str(stage.file)!r}: no such file of traces. Correct the path.")
        contents["file"] = sha256_file(stage.file)
    return stage_key(stage.kind, stage_settings(recipe, stage, source), _seed(recipe, stage), contents)


def _seed(recipe: Recipe, stage: Stage) -> int:
    own = stage.seed if isinstance(stage, BaseStage) else None
    return recipe.seed if own is None else own


def run_recipe(path: Path, out: Path, display: Display, until: str | None = None, redo_from: str | None = None,
               seed: int | None = None, accept: Collection[str] = ()) -> RunResult:
    """Makes every stage that is not made yet, in order. accept: stages that are sealed whatever their health.

    Raises:
        UserError: the recipe or the request is wrong; nothing has run.
        RunError: a stage failed; what was finished before it stays.
    """
    recipe = load_recipe(path)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    selected, redo = select_stages(recipe, path, until, redo_from, accept)
    _refuse_foreign(out)
    artifacts: dict[str, Artifact] = {}
    origins: dict[str, str] = {}
    for position, name in enumerate(selected, start=1):
        stage = recipe.stages[name]
        inputs = {role: artifacts[source] for role, source in stage.inputs.items()}
        key = _key(recipe, stage, str(path), inputs)
        final = out / "artifacts" / f"{name}-{key[:12]}"
        with display.stage(name, stage.kind, position, len(selected)) as reporter:
            artifact, origins[name] = _obtain(recipe, str(path), name, stage, inputs, key, final, name in redo, reporter,
                                              display.log, accept)
            artifacts[name] = _evaluated(recipe, stage, artifact, out, reporter)
        _write_index(out, path, recipe, artifacts, origins)
    result = RunResult(out, list(artifacts.values()), origins)
    write_report(out / "report.html", recipe.name, path.read_text(encoding="utf-8"), result.artifacts, origins)
    return result


def select_stages(recipe: Recipe, path: Path, until: str | None, redo_from: str | None,
                  accept: Collection[str] = ()) -> tuple[list[str], set[str]]:
    """The stages to walk, in order, and those among them to make anew."""
    names = list(recipe.stages)
    for option, value in (("--until", until), ("--from", redo_from), *(("--accept", name) for name in accept)):
        if value is not None and value not in names:
            raise UserError(f"{option} {value}: {path} has no such stage. Its stages are {', '.join(names)}.")
    if until and redo_from and names.index(until) < names.index(redo_from):
        raise UserError(f"--until {until} comes before --from {redo_from}. Swap them.")
    selected = names[:names.index(until) + 1] if until else names
    return selected, set(names[names.index(redo_from):]) if redo_from else set()


def stage_status(recipe: Recipe, path: Path, out: Path, selected: list[str], redo: set[str]) -> dict[str, str]:
    """What a run would find for each stage: "already made", "prebuilt" or "to make". Changes nothing."""
    artifacts: dict[str, Artifact] = {}
    status = {}
    for name in selected:
        stage = recipe.stages[name]
        status[name] = "to make"
        if name in redo or any(source not in artifacts for source in stage.inputs.values()):
            continue
        inputs = {role: artifacts[source] for role, source in stage.inputs.items()}
        key = _key(recipe, stage, str(path), inputs)
        for folder, origin in ((out / "artifacts" / f"{name}-{key[:12]}", REUSED), (shipped_folder(name, key), PREBUILT)):
            if name not in artifacts and (artifact := find(folder, name, key)):
                artifacts[name], status[name] = artifact, origin
    return status


def _obtain(recipe: Recipe, source: str, name: str, stage: Stage, inputs: dict[str, Artifact], key: str, final: Path,
            redo: bool, reporter: Callable[[str], Progress], say: Callable[[str], None],
            accept: Collection[str]) -> tuple[Artifact, str]:
    """The stage's artifact and its origin."""
    working = final.parent.parent / "working" / final.name
    progress = working.with_name(working.name + ".progress")
    if not redo and (existing := find(final, name, key)):
        say(f"{name}: already made, nothing to do")
        return existing, REUSED
    if not redo and not progress.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        if shipped := copy_shipped(name, key, final):
            say(f"{name}: ships with the package, made by this very recipe (--from {name} makes it anew)")
            return shipped, PREBUILT
    seeded = recipe.model_copy(update={"seed": _seed(recipe, stage)})
    description = None if redo else refused(working)
    if description is None:
        remove_folder(working)  # half-written results of a killed run; its checkpoints lie beside it and stay
        description = run_stage(stage, Context(seeded, source, name, working, inputs, reporter, say))
    description = accepted(name, working, description, name in accept)
    described = {role: {"stage": artifact.stage, "content": artifact.content} for role, artifact in inputs.items()}
    artifact = seal(working, final, name, key, description | {
        "seed": seeded.seed, "inputs": described, "settings": stage_settings(recipe, stage, source)})
    remove_folder(progress)
    return artifact, MADE


def evaluation_protocol(recipe: Recipe, stage: Stage) -> tuple[PromptStyle, str]:
    """How a stage's model is asked, and the hash of all that decides its evaluation beside the model."""
    style: PromptStyle = "forum" if isinstance(stage, BaseStage) else "chat"
    return style, sha256_json({"settings": recipe.evaluation.model_dump(), "families": recipe.families, "style": style,
                               "seed": recipe.seed, "dtype": recipe.dtype})


def _evaluated(recipe: Recipe, stage: Stage, artifact: Artifact, out: Path, reporter: Callable[[str], Progress]) -> Artifact:
    """The artifact with its evaluation, made once for each model and protocol; as it is where it is no model."""
    if isinstance(stage, RejectStage | RewardModelStage):
        return artifact
    style, protocol = evaluation_protocol(recipe, stage)
    folder = out / "evaluations" / f"{artifact.stage}-{artifact.content[:12]}-{protocol[:8]}"
    if not (folder / "samples.jsonl").exists():
        fresh = folder.with_name(folder.name + ".writing")
        remove_folder(fresh)
        evaluate_model(artifact.folder, recipe, style, fresh, reporter("evaluating"))
        install_folder(fresh, folder)
    return replace(artifact, evaluation_folder=folder)


def _write_index(out: Path, path: Path, recipe: Recipe, artifacts: dict[str, Artifact], origins: dict[str, str]) -> None:
    """run.json: which artifact each stage name means, for `chat`, `eval` and people."""
    write_json(out / "run.json", {"recipe": recipe.name, "seed": recipe.seed, "stages": {
        name: str(artifact.folder.relative_to(out)) for name, artifact in artifacts.items()}, "origins": origins,
        "order": list(artifacts)})
    if not (out / "recipe.yaml").exists() or (out / "recipe.yaml").read_text() != path.read_text():
        write_text(out / "recipe.yaml", path.read_text())


def _refuse_foreign(out: Path) -> None:
    """A folder that holds something else is not ours to fill."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file. Name a folder.")
    ours = any((out / name).exists() for name in ("run.json", "artifacts", "working"))
    if out.exists() and any(out.iterdir()) and not ours:
        raise UserError(f"--out {out}: the folder is not empty and holds no run of Spoutnik. Name another one.")
