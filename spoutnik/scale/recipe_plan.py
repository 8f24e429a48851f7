"""The stages of a recipe on a cluster."""

from dataclasses import dataclass, replace
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.stage_kinds import GRPOStage, RejectStage, Stage
from spoutnik.recipe.work import TYPICAL_LENGTH, Work, stage_work
from spoutnik.scale.costs import PlannedModel
from spoutnik.scale.efficiency import PYTORCH
from spoutnik.scale.hardware import Cluster
from spoutnik.scale.layout import Layout
from spoutnik.scale.planner import plan_rl, plan_training
from spoutnik.scale.rl import RLWork, sampling_seconds, update_of
from spoutnik.scale.serving import Engine, ServingWork, placed
from spoutnik.scale.training import TrainingWork

_PROMPT = 32.0  # tokens, as `spoutnik run --dry-run` takes them


@dataclass(frozen=True)
class PlannedStage:
    """gpus: those that the stage's batch can feed. memory_bytes: of one of them. binds: what takes most of the time."""

    name: str
    kind: str
    gpus: int
    tokens_trained: int
    tokens_generated: int
    memory_bytes: float
    seconds: float
    gpu_hours: float
    cost: float | None
    binds: str


def plan_recipe_on(path: Path, cluster: Cluster, layout: Layout | None) -> list[PlannedStage]:
    """Every stage, without its evaluation. Raises UserError as `load_recipe` and the planner do, with the stage's name."""
    recipe = load_recipe(path)
    planned = []
    for name, stage in recipe.stages.items():
        model, work = PlannedModel(recipe.config_of_stage(name, str(path))), stage_work(recipe, name)
        try:
            gpus, memory, seconds, binds = _stage(model, stage, work, cluster, layout)
        except UserError as error:
            raise UserError(f"{path}: stages.{name}: {error}") from error
        hours = seconds * gpus / 3600
        planned.append(PlannedStage(name, stage.kind, gpus, work.trained, work.generated, memory, seconds, hours,
                                    cluster.cost(hours), binds))
    return planned


def _stage(model: PlannedModel, stage: Stage, work: Work, cluster: Cluster, layout: Layout | None
           ) -> tuple[int, float, float, str]:
    """GPUs, bytes of one, seconds and what binds."""
    settings = stage.settings
    if isinstance(stage, GRPOStage | RejectStage):
        prompts, group = ((settings.prompts_per_step, settings.group_size) if isinstance(stage, GRPOStage)
                          else (settings.prompts, settings.samples))
        response = max(1.0, settings.max_tokens * TYPICAL_LENGTH)
        sequence = round(_PROMPT + response)
        used = _fed(cluster, prompts * group)
        training = update_of(sequence, prompts * group)
        rl = RLWork(prompts, group, _PROMPT, response, settings.max_tokens, 1, 1, getattr(settings, "steps", 1), training,
                    ServingWork(_PROMPT, response, tensor=None, expert=None))
        if isinstance(stage, GRPOStage):
            plan = plan_rl(model, used, layout, rl)
            return used.gpus, plan.training.memory.total, plan.seconds, plan.step.binds
        engine = Engine(model, used, placed(model, used, rl.rollout))
        seconds, binds = sampling_seconds(engine, rl)
        return used.gpus, engine.weight_bytes, seconds, f"sampling ({binds})"
    sequence = min(model.config.max_position_embeddings, settings.tokens_per_step)
    batch = settings.tokens_per_step // sequence
    used = _fed(cluster, batch) if layout is None else cluster
    training = TrainingWork(work.trained, sequence, batch, software=PYTORCH, mtp=model.config.num_nextn_predict_layers > 0)
    plan = plan_training(model, used, layout, training, None)
    return used.gpus, plan.memory.total, plan.seconds, plan.step.binds


def _fed(cluster: Cluster, batch: int) -> Cluster:
    """As many of the cluster's GPUs as a batch can be dealt to, evenly."""
    gpus = min(cluster.gpus, batch)
    while gpus > 1 and (batch % gpus or (gpus > cluster.per_node and gpus % cluster.per_node)):
        gpus -= 1
    return replace(cluster, gpus=gpus, per_node=min(gpus, cluster.per_node))
