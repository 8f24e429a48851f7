"""What every process of a run but rank 0 does: its part of each stage and evaluation that rank 0 announces (`orders.py`). It
reads what rank 0 reads and writes nothing but what it is sampling."""

import time
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.keys import key_of
from spoutnik.recipe.orders import EvaluationOrder, StageOrder, refuse_complaints
from spoutnik.recipe.run import with_seed
from spoutnik.recipe.sampling import SAMPLERS_HERE, Samplers
from spoutnik.recipe.schema import Recipe, read_recipe
from spoutnik.recipe.stages import Context, evaluate_model, perform
from spoutnik.recipe.starts import CHECKPOINT, published_starts
from spoutnik.train.loop import Checkpoints, Progress
from spoutnik.world import team

_PATIENCE = 20.0  # seconds in which a shared file system shows what another machine wrote


def follow(path: Path, seed: int | None, samplers: Samplers = SAMPLERS_HERE) -> None:
    """Until rank 0 has nothing more to do. path, seed, samplers: as rank 0 has them.

    Raises:
        UserError, RunError: as rank 0 raises them; and where this rank sees other files than rank 0.
    """
    _, recipe = read_recipe(path)
    recipe = with_seed(recipe, seed)
    while (order := team().broadcast(None)) is not None:
        if isinstance(order, EvaluationOrder):
            complaint = _missing(order.folder)
            refuse_complaints(complaint)
            checkpoints = Checkpoints(order.progress, recipe.checkpoint_seconds)
            evaluate_model(order.folder, recipe, order.style, None, _silent, checkpoints)
        else:
            _follow_stage(order, recipe, str(path), samplers)


def _follow_stage(order: StageOrder, recipe: Recipe, source: str, samplers: Samplers) -> None:
    stage, inputs = recipe.stages[order.name], dict(order.inputs)
    complaint = None
    try:
        complaint = _missing(order.working) or _other_inputs(inputs, recipe, source)
        if complaint is None and key_of(recipe, stage, order.name, source, inputs) != order.key:
            complaint = (f"stage '{order.name}' would become another one here than on rank 0: its data files, verifiers or "
                         "the checkpoint that it starts from are others. Copy them, or keep them on a shared file system.")
    except (UserError, RunError) as error:
        complaint = str(error)
    refuse_complaints(complaint)
    perform(stage, Context(with_seed(recipe, order.seed), source, order.name, order.working, inputs, lambda what: _silent,
                           samplers=samplers))


def _other_inputs(inputs: dict[str, Artifact], recipe: Recipe, source: str) -> str | None:
    """What is wrong with what the stage reads, as this rank sees it. Published checkpoints may lie elsewhere there."""
    starts = {name: artifact for name, artifact in _starts(recipe, source).items()
              if any(each.kind == CHECKPOINT and each.stage == name for each in inputs.values())}
    for role, artifact in inputs.items():
        if artifact.kind == CHECKPOINT:
            inputs[role] = starts[artifact.stage]
        elif (complaint := _missing(artifact.folder)) is not None:
            return complaint
        elif read_json(artifact.folder / "manifest.json")["content"] != artifact.content:
            return f"{artifact.folder}: holds another artifact here than on rank 0. Keep --out on a shared file system."
    return None


def _starts(recipe: Recipe, source: str) -> dict[str, Artifact]:
    return published_starts(recipe.used_checkpoints, source, forms=recipe.start_forms)


def _missing(folder: Path) -> str | None:
    deadline = time.monotonic() + _PATIENCE
    while not folder.exists():
        if time.monotonic() > deadline:
            return (f"does not see {folder}, where rank 0 works. The run's folder (--out) must be on a file system that all "
                    "ranks share, under the same path.")
        time.sleep(0.2)
    return None


_silent: Progress = lambda done, total, tokens, note: None  # noqa: E731
