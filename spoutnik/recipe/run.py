"""The run of a recipe's DAG: finished stages are reused, interrupted ones resumed, missing ones made."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from spoutnik.errors import RunError, UserError
from spoutnik.files import install_folder, remove_folder
from spoutnik.recipe.acceptance import accepted, refused
from spoutnik.recipe.artifacts import Artifact, copy_shipped, find, seal, shipped_folder
from spoutnik.recipe.audit import audit_rewards, reward_reports
from spoutnik.recipe.checks import check_recipe
from spoutnik.recipe.extension import can_grow, finished_shorter, go_on
from spoutnik.recipe.folder import RunFolder, used_recipe
from spoutnik.recipe.keys import evaluation_protocol, key_of, seed_of, stage_contents, stage_settings
from spoutnik.recipe.orders import EvaluationOrder, StageOrder, announce
from spoutnik.recipe.report import Extras, other_seeds, write_report
from spoutnik.recipe.sampling import SAMPLERS_HERE, Samplers
from spoutnik.recipe.schema import Recipe, read_recipe
from spoutnik.recipe.stage_base import LARGEST_SEED
from spoutnik.recipe.stage_kinds import GRPOStage, RejectStage, RewardModelStage, Stage
from spoutnik.recipe.stages import Context, evaluate_model, run_stage
from spoutnik.recipe.starts import CHECKPOINT, published_starts
from spoutnik.recipe.trackers import Track, make_trackers, sent_to, track_nothing
from spoutnik.train.loop import Checkpoints, Progress
from spoutnik.world import team

_ENDING = 5.0  # seconds that the processes of an earlier run take to notice that their launcher was killed
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


def run_recipe(path: Path, out: Path, display: Display, until: str | None = None, redo_from: str | None = None,
               seed: int | None = None, accept: Collection[str] = (), trackers: Sequence[str] = (),
               samplers: Samplers = SAMPLERS_HERE) -> RunResult:
    """Makes every stage that is not made yet, in order. The recipe's file is read once: it may change meanwhile. accept: stages
    that are sealed whatever their health. trackers: names of what the logs go to as well (trackers.py). samplers: make what
    samples, where the recipe asks for more than this process.

    Raises:
        UserError: the recipe or the request is wrong; nothing has run.
        RunError: a stage failed, or another run works in the folder; what was finished before it stays.
    """
    text, recipe = read_recipe(path)
    recipe = with_seed(recipe, seed)
    refuse_one_gpu_for_all(recipe, str(path))
    selected, redo = select_stages(recipe, path, until, redo_from, accept)
    sinks = make_trackers(trackers, out, recipe.name)
    run = RunFolder(out)
    run.refuse_foreign()
    starts = published_starts(recipe.used_checkpoints, str(path), forms=recipe.start_forms)
    found, status = find_stages(recipe, str(path), run, selected, redo, starts)
    check_recipe(recipe, str(path), selected, found)
    audit_rewards(recipe, str(path), [name for name in selected if status[name] == "to make"], display.log)
    refuse_more_ranks_than_shards(recipe, str(path))
    if any(isinstance(recipe.stages[name], GRPOStage | RejectStage) and status[name] == "to make" for name in selected):
        samplers.check(recipe.scale, recipe.device)
    with ExitStack() as stack:
        stack.enter_context(run.lock(_ENDING if team().size > 1 else 0.0))
        track = sent_to(sinks, stack)
        text = used_recipe(text, recipe, path, out)
        run.keep_recipe(text)
        artifacts, origins = _Walk(recipe, str(path), run, display, redo, accept, starts, track, samplers).make(selected)
        later = _finished_beyond(recipe, str(path), run, selected, starts | artifacts, display.log)
        _index(run, recipe, artifacts | later, origins | dict.fromkeys(later, REUSED), display.log)
        every = {name: (artifacts | later)[name] for name in recipe.stages if name in artifacts or name in later}
        write_report(out / "report.html", recipe.name, text, list(every.values()), origins | dict.fromkeys(later, REUSED),
                     Extras(recipe.bill, reward_reports(recipe), other_seeds(run, every.values())))
    return RunResult(out, list(artifacts.values()), origins)


def refuse_more_ranks_than_shards(recipe: Recipe, source: str) -> None:
    """Raises UserError where some processes would have nothing to do."""
    shards, size = recipe.virtual_shards, team().size
    if shards is not None and size > shards:
        more = 1 << (size - 1).bit_length()
        raise UserError(f"{source}: scale.virtual_shards = {shards}: a batch of so many parts has no work for {size} processes."
                        f" Start {shards} at most, or write virtual_shards: {more} (other sums: all stages are made anew).")
    if shards is not None and recipe.scale.shard and size & (size - 1):
        fewer = 1 << (size.bit_length() - 1)
        raise UserError(f"{source}: scale.shard with reproducible: {size} processes do not divide a tree of {shards} virtual "
                        f"shards. Start {fewer} or {2 * fewer}, or write reproducible: false.")


def refuse_one_gpu_for_all(recipe: Recipe, source: str) -> None:
    """Raises UserError where several processes were told the number of a GPU, which all of them would take."""
    if team().size > 1 and ":" in recipe.device and recipe.device.startswith("cuda"):
        raise UserError(f"{source}: device = {recipe.device}: all {team().size} processes would compute on that one GPU. Write "
                        "device: cuda, of which each process takes one, and choose among them with CUDA_VISIBLE_DEVICES.")


def with_seed(recipe: Recipe, seed: int | None) -> Recipe:
    """Raises UserError where the command line's seed is none."""
    if seed is None:
        return recipe
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"--seed {seed}: must be from 0 to {LARGEST_SEED}. Choose another.")
    return recipe.model_copy(update={"seed": seed})


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


def find_stages(recipe: Recipe, source: str, run: RunFolder, selected: Sequence[str], redo: set[str],
                starts: Mapping[str, Artifact]) -> tuple[dict[str, Artifact], dict[str, str]]:
    """What a run would find: the artifacts that are there, and for each stage "already made", "prebuilt" or "to make". Changes
    nothing. starts: the published checkpoints."""
    artifacts: dict[str, Artifact] = {}
    status = {}
    redo = redo | set(run.to_redo())
    for name in selected:
        stage = recipe.stages[name]
        status[name] = "to make"
        known = {**starts, **artifacts}
        if name in redo or any(origin not in known for origin in stage.inputs.values()):
            continue
        inputs = {role: known[origin] for role, origin in stage.inputs.items()}
        key = key_of(recipe, stage, name, source, inputs)
        for folder, origin in ((run.artifact(name, key), REUSED), (shipped_folder(name, key), PREBUILT)):
            if name not in artifacts and (artifact := find(folder, name, key)):
                artifacts[name], status[name] = artifact, origin
    return artifacts, status


def stage_status(recipe: Recipe, path: Path, out: Path, selected: Sequence[str], redo: set[str]) -> dict[str, str]:
    """What a run would find for each stage: "already made", "prebuilt" or "to make". Changes nothing."""
    starts = published_starts(recipe.used_checkpoints, str(path), forms=recipe.start_forms)
    return find_stages(recipe, str(path), RunFolder(out), selected, redo, starts)[1]


@dataclass
class _Walk:
    """From stage to stage. redo: what --from makes anew, from its first step on. accept: what is sealed whatever its health.
    starts: the published checkpoints."""

    recipe: Recipe
    source: str
    run: RunFolder
    display: Display
    redo: set[str]
    accept: Collection[str]
    starts: Mapping[str, Artifact]
    track: Track = track_nothing
    samplers: Samplers = SAMPLERS_HERE

    def make(self, selected: Sequence[str]) -> tuple[dict[str, Artifact], dict[str, str]]:
        artifacts: dict[str, Artifact] = {}
        origins: dict[str, str] = {}
        anew = [name for name in selected if name in self.redo]
        self.run.forget_progress(anew)
        self.run.set_to_redo(dict.fromkeys([*self.run.to_redo(), *anew]))
        for position, name in enumerate(selected, start=1):
            stage = self.recipe.stages[name]
            known = {**self.starts, **artifacts}
            inputs = {role: known[source] for role, source in stage.inputs.items()}
            with self.display.stage(name, stage.kind, position, len(selected)) as reporter:
                artifact, origins[name] = self._obtain(name, stage, inputs, reporter)
                self.track(name, artifact.log)  # all of it, where it was made before
                artifacts[name] = evaluated(self.recipe, stage, artifact, self.run, reporter)
            _index(self.run, self.recipe, artifacts, origins, self.display.log)
        return artifacts, origins

    def _obtain(self, name: str, stage: Stage, inputs: dict[str, Artifact],
                reporter: Callable[[str], Progress]) -> tuple[Artifact, str]:
        """The stage's artifact and its origin."""
        run, say = self.run, self.display.log
        key = key_of(self.recipe, stage, name, self.source, inputs)
        final, redo = run.artifact(name, key), name in run.to_redo()
        progress = run.progress(final)
        if not redo and (existing := find(final, name, key)):
            say(f"{name}: already made, nothing to do")
            remove_folder(progress)
            return existing, REUSED
        if not redo and not progress.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            if shipped := copy_shipped(name, key, final):
                say(f"{name}: ships with the package, made by this very recipe (--from {name} makes it anew)")
                return shipped, PREBUILT
        if redo and progress.exists():
            say(f"{name}: goes on with what --from began")
        artifact = self._run_stage(name, stage, inputs, key, reporter, redo)
        if can_grow(stage) and progress.exists():
            kept = run.last_checkpoint(final)
            kept.parent.mkdir(exist_ok=True)
            install_folder(progress, kept, aside=kept.with_name(f"{kept.name}.replaced"))
        remove_folder(progress)
        run.set_to_redo(other for other in run.to_redo() if other != name)
        return artifact, MADE

    def _run_stage(self, name: str, stage: Stage, inputs: dict[str, Artifact], key: str, reporter: Callable[[str], Progress],
                   redo: bool) -> Artifact:
        run, final = self.run, self.run.artifact(name, key)
        working, progress = run.working(final), run.progress(final)
        settings, seed = stage_settings(self.recipe, stage, self.source), seed_of(self.recipe, stage)
        contents = stage_contents(self.recipe, stage, name, self.source, inputs)
        description = refused(working)
        if description is None:
            if not redo and not progress.exists() and (found := finished_shorter(run, name, stage, settings, seed, contents)):
                self.display.log(f"{name}: {go_on(run, stage, found, progress)}")
            remove_folder(working)  # half-written results of a killed run; its checkpoints lie beside it and stay
            context = Context(with_seed(self.recipe, seed), self.source, name, working, inputs, reporter, self.display.log,
                              partial(self.track, name), self.samplers)
            working.mkdir(parents=True, exist_ok=True)
            announce(StageOrder(name, seed, working, inputs, key))
            description = run_stage(stage, context)
        description = accepted(name, working, description, name in self.accept)
        described = {role: {key: artifact.manifest[key] for key in ("stage", "content", CHECKPOINT) if key in artifact.manifest}
                     for role, artifact in inputs.items()}
        return seal(working, final, name, key, description | {
            "seed": seed, "inputs": described, "contents": contents, "settings": settings})


def make_stage(recipe: Recipe, source: str, run: RunFolder, name: str, inputs: dict[str, Artifact], display: Display,
               reporter: Callable[[str], Progress], accept: Collection[str] = ()) -> tuple[Artifact, str]:
    """One stage alone, from inputs that are there: its artifact, and where that came from. Who calls it holds off others from
    the same stage with the same settings.

    Raises:
        RunError: the stage failed.
    """
    return _Walk(recipe, source, run, display, set(), accept, {})._obtain(name, recipe.stages[name], inputs, reporter)


def evaluated(recipe: Recipe, stage: Stage, artifact: Artifact, run: RunFolder,
              reporter: Callable[[str], Progress]) -> Artifact:
    """The artifact with its evaluation, made once for each model and protocol; as it is where it is no model, or the recipe has
    no problems to ask."""
    if isinstance(stage, RejectStage | RewardModelStage) or not recipe.tasks_of():
        return artifact
    style, protocol = evaluation_protocol(recipe, stage)
    folder = run.evaluation(artifact, protocol)
    if not (folder / "samples.jsonl").exists():
        fresh, progress = folder.with_name(folder.name + ".writing"), run.progress(folder)
        remove_folder(fresh)
        checkpoints = Checkpoints(progress, recipe.checkpoint_seconds)
        announce(EvaluationOrder(artifact.folder, style, progress))
        evaluate_model(artifact.folder, recipe, style, fresh, reporter("evaluating"), checkpoints)
        install_folder(fresh, folder)
        remove_folder(progress)
    return replace(artifact, evaluation_folder=folder)


def _finished_beyond(recipe: Recipe, source: str, run: RunFolder, selected: Sequence[str], artifacts: dict[str, Artifact],
                     say: Callable[[str], None]) -> dict[str, Artifact]:
    """Finished stages after --until, so that index and report do not forget them."""
    later: dict[str, Artifact] = {}
    for name, stage in recipe.stages.items():
        known = artifacts | later
        if name in selected or any(origin not in known for origin in stage.inputs.values()):
            continue
        try:
            key = key_of(recipe, stage, name, source, {role: known[origin] for role, origin in stage.inputs.items()})
            artifact = find(run.artifact(name, key), name, key)
        except (UserError, RunError) as error:
            say(f"{name} is after --until and was not needed, but: {error}")
            continue
        if artifact is not None:
            folder = run.evaluation(artifact, evaluation_protocol(recipe, stage)[1])
            has_evaluation = (folder / "samples.jsonl").exists() and not isinstance(stage, RejectStage | RewardModelStage)
            later[name] = replace(artifact, evaluation_folder=folder if has_evaluation else None)
    return later


def _index(run: RunFolder, recipe: Recipe, artifacts: dict[str, Artifact], origins: dict[str, str],
           say: Callable[[str], None]) -> None:
    if complaint := run.write_index(recipe, artifacts, origins):
        say(complaint)
