"""Further steps for a finished stage: where its steps are also the first of a longer one, the longer one goes on from its last
checkpoint and ends with the bytes that it would have had from the start."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import RunError
from spoutnik.files import disk_errors, install_folder, read_json, remove_folder
from spoutnik.recipe.artifacts import FORMAT
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.stage_kinds import GRPOStage, Stage


@dataclass(frozen=True)
class Finished:
    """A finished artifact of a stage with fewer steps and nothing else that differs. folder: its name; reached: its last
    checkpoint's step, None where it kept none."""

    folder: str
    steps: int
    reached: int | None


def same_start(stage: Stage, steps: int, longer: int, until: int) -> bool:
    """Whether the first `until` steps are the same with `steps` steps in all and with `longer`."""
    settings = stage.settings
    one, other = (settings.make_schedule(count) for count in (steps, longer))
    if any(one.factor(step) != other.factor(step) for step in range(until)):
        return False
    if isinstance(stage, GRPOStage) and stage.reward_model is not None and settings.general_share:
        begins = [settings.general_from * count for count in (steps, longer)]  # the step from which general prompts come
        return all((step >= begins[0]) == (step >= begins[1]) for step in range(until))
    return True


def can_grow(stage: Stage) -> bool:
    """Whether a longer stage could go on from this one's end."""
    steps = getattr(stage.settings, "steps", None)
    return steps is not None and same_start(stage, steps, 2 * steps, steps)


def finished_shorter(run: RunFolder, name: str, stage: Stage, settings: dict, seed: int, contents: dict) -> Finished | None:
    """The longest finished one, of those with fewer steps."""
    steps, candidates = getattr(stage.settings, "steps", None), []
    if steps is None or "max_staleness" in settings:  # its last steps sampled for none beyond the end
        return None
    for path in (run.path / "artifacts").glob(f"{name}-{'?' * 12}/manifest.json"):
        try:
            manifest = read_json(path)
        except RunError:  # a damaged one has nothing to offer, and nobody asked for it
            continue
        made = manifest["settings"]
        others = {**made, "settings": {**made["settings"], "steps": steps}}
        if made["settings"].get("warmup") == stage.settings.make_schedule(made["settings"].get("steps", 0)).warmup:
            others["settings"]["warmup"] = settings["settings"]["warmup"]  # it may follow from the steps
        if (manifest["kind"], manifest["seed"], others) == (stage.kind, seed, settings) and manifest["format"] == FORMAT \
                and manifest_contents(manifest) == contents and made["settings"]["steps"] < steps:
            state = run.last_checkpoint(path.parent) / "checkpoint" / "state.json"
            reached = read_json(state)["step"] if state.exists() else None
            candidates.append(Finished(path.parent.name, made["settings"]["steps"], reached))
    return max(candidates, key=lambda found: found.steps, default=None)


def manifest_contents(manifest: dict) -> dict[str, str]:
    """What a stage was made of: role -> hash. Older manifests name only the stages."""
    return manifest.get("contents", {role: source["content"] for role, source in manifest["inputs"].items()})


def _what_depends(stage: Stage, steps: int) -> str:
    """Why the steps of a shorter stage are others, and what would make them the same."""
    settings = stage.settings
    one, other = (settings.make_schedule(count) for count in (steps, settings.steps))
    if one.warmup != other.warmup:
        return f"the warm-up, where none is given, depends on the number of steps. Give warmup: {one.warmup}"
    if any(one.factor(step) != other.factor(step) for step in range(steps)):
        return (f"the {settings.schedule} schedule depends on the number of steps. With schedule: constant a finished stage "
                "goes on from its end")
    return "general_from is a share of the steps. With general_from: 0 a finished stage goes on from its end"


def go_on(run: RunFolder, stage: Stage, found: Finished, progress: Path) -> str:
    """Copies the finished stage's last checkpoint to `progress` where the longer one can go on from it; says what happens."""
    steps = stage.settings.steps
    what = f"{found.steps} of its {steps} steps are made"
    if not same_start(stage, found.steps, steps, found.steps):
        return f"{what}, but these are not the first of {steps}: {_what_depends(stage, found.steps)}. It begins anew"
    if found.reached is None:
        return f"{what}, but no checkpoint of them is kept (it took less than checkpoint_seconds). It begins anew"
    source = run.path / "checkpoints" / found.folder
    copy = progress.with_name(f"{progress.name}.copying")
    with disk_errors(copy):
        shutil.copytree(source, copy, dirs_exist_ok=True)
    for best in copy.glob("validation-*/best"):  # where the best was the last, its weights are in the artifact alone
        if not (best / "weights.safetensors").exists():
            remove_folder(best)
    install_folder(copy, progress)
    return f"{what}; it goes on from step {found.reached}"
