"""Plans: the layout that is fastest among those that fit, and what training, RL and serving take. Does not import torch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from spoutnik.errors import UserError
from spoutnik.scale.costs import PlannedModel
from spoutnik.scale.hardware import Cluster, check_precision
from spoutnik.scale.layout import Layout, candidates, check_layout
from spoutnik.scale.memory import USABLE, TrainingMemory, training_memory
from spoutnik.scale.rl import RLTime, RLWork, rl_time
from spoutnik.scale.serving import ServingPlan, ServingWork, placed, serving_plan
from spoutnik.scale.training import RECOMPUTE, TrainingTime, TrainingWork, micro_batches, training_time

_LONG = 16384  # tokens of a sequence from which dividing it is looked at
_MOST_GPUS = 1 << 20


@dataclass(frozen=True)
class TrainingPlan:
    layout: Layout
    work: TrainingWork
    cluster: Cluster
    memory: TrainingMemory
    step: TrainingTime

    @property
    def seconds(self) -> float:
        """Of all tokens."""
        return self.work.tokens / self.step.tokens * self.step.seconds

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.cluster.gpus / 3600

    def as_json(self) -> dict:
        step = self.step
        return {"layout": asdict(self.layout) | {"data": self.layout.data(self.cluster.gpus)}, "gpus": self.cluster.gpus,
                "recompute": self.work.recompute, "precision": self.work.precision, "software": self.work.software.name,
                "memory_bytes": asdict(self.memory) | {"total": self.memory.total},
                "step_seconds": step.seconds, "step_parts": asdict(step), "tokens": self.work.tokens,
                "tokens_per_second": step.tokens_per_second_per_gpu * self.cluster.gpus,
                "tokens_per_second_per_gpu": step.tokens_per_second_per_gpu, "seconds": self.seconds,
                "gpu_hours": self.gpu_hours, "cost": self.cluster.cost(self.gpu_hours), "binds": step.binds}


@dataclass(frozen=True)
class RLPlan:
    training: TrainingPlan
    work: RLWork
    step: RLTime
    cluster: Cluster

    @property
    def seconds(self) -> float:
        return self.work.steps * self.step.seconds

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.cluster.gpus / 3600

    def as_json(self) -> dict:
        step, work = self.step, self.work
        return {"layout": self.training.as_json()["layout"], "memory_bytes": self.training.as_json()["memory_bytes"],
                "step_seconds": step.seconds, "sampler_tensor": work.rollout.tensor,
                "sampler_expert": work.rollout.expert, "sampling_seconds": step.sampling, "scoring_seconds": step.scoring,
                "training_seconds": step.training, "transfer_seconds": step.transfer, "steps": work.steps,
                "tokens_per_second": work.completions * work.response / step.seconds, "seconds": self.seconds,
                "gpu_hours": self.gpu_hours, "cost": self.cluster.cost(self.gpu_hours), "binds": step.binds}


def serving_json(work: ServingWork, plan: ServingPlan, cluster: Cluster) -> dict:
    """A serving plan; costs are for a million output tokens, of the GPUs that make them."""
    rate = plan.tokens_per_second
    return {name: value for name, value in asdict(plan).items() if name not in ("prefill", "decode")} | {
        "tensor": work.tensor, "expert": work.expert,
                "prefill_binds": plan.prefill.binds, "decode_binds": plan.decode.binds, "prefill_parts": asdict(plan.prefill),
        "decode_parts": asdict(plan.decode), "gpu_hours_per_million": 1e6 / rate / 3600,
        "cost_per_million": cluster.cost(1e6 / rate / 3600)}


def plan_training(model: PlannedModel, cluster: Cluster, layout: Layout | None, work: TrainingWork,
                  recompute: str | None = None) -> TrainingPlan:
    """The plan of a layout, or of the fastest one that fits.

    Args:
        recompute: what was asked for; None looks for the least that fits.

    Raises:
        UserError: the layout or batch does not divide, or nothing fits; then with the least number of GPUs that would.
    """
    _check_training(model, cluster, work)
    works = [replace(work, recompute=each) for each in RECOMPUTE] if recompute is None else [work]
    if layout is not None:
        check_layout(layout, model.config, cluster)
        plans = [_plan(model, cluster, layout, each) for each in works]
        fitting = [plan for plan in plans if plan.memory.total <= USABLE * cluster.gpu.memory]
        if not fitting:
            raise UserError(_too_large(model, cluster, plans[-1].memory.total, works[-1], f"the layout {layout}"))
        return fitting[0]
    best, divides = _fastest(model, cluster, works)
    if best is None and not divides:
        raise UserError(f"--train: batch = {work.batch} sequences cannot be dealt evenly to {cluster.gpus} GPUs by any layout. "
                        f"Give a batch with more factors in common with {cluster.gpus}, or fewer GPUs.")
    if best is None:
        raise UserError(_too_large(model, cluster, None, works[-1], "any layout"))
    return best


def _check_training(model: PlannedModel, cluster: Cluster, work: TrainingWork) -> None:
    check_precision(cluster.gpu, work.precision, "--train")
    if work.mtp and not model.config.num_nextn_predict_layers:
        raise UserError("--train: mtp = yes: the model has no MTP module (num_nextn_predict_layers). Leave it out.")


def _plan(model: PlannedModel, cluster: Cluster, layout: Layout, work: TrainingWork) -> TrainingPlan:
    memory = training_memory(model, cluster, layout, work, micro_batches(work, layout, cluster))
    return TrainingPlan(layout, work, cluster, memory, training_time(model, cluster, layout, work))


def _fastest(model: PlannedModel, cluster: Cluster, works: list[TrainingWork]) -> tuple[TrainingPlan | None, bool]:
    """The fastest plan that fits, and whether any layout divides the batch."""
    best, divides = None, False
    for layout in candidates(model.config, cluster, works[0].sequence >= _LONG):
        for work in works:
            try:
                plan = _plan(model, cluster, layout, work)
            except UserError:
                break
            divides = True
            if plan.memory.total <= USABLE * cluster.gpu.memory:
                if best is None or plan.step.seconds < best.step.seconds:
                    best = plan
                break  # more recomputation is only slower
    return best, divides


def _too_large(model: PlannedModel, cluster: Cluster, bytes_needed: float | None, work: TrainingWork, what: str) -> str:
    def fits(other: Cluster) -> bool:
        return _fastest(model, other, [replace(work, batch=other.gpus, micro_batches=1)])[0] is not None

    needs = "" if bytes_needed is None else f": a GPU would need {bytes_needed / 1e9:.0f} GB"
    least = least_gpus(cluster, fits)
    remedy = f"At least {least} of these GPUs would hold it with another layout" if least else "No number of them holds it"
    return (f"--cluster: the model does not fit {cluster.gpus} x {cluster.gpu.name} of {cluster.gpu.memory / 1e9:.0f} GB with "
            f"{what}{needs}. {remedy} (one sequence of {work.sequence} tokens at a time, recompute={work.recompute}).")


def least_gpus(cluster: Cluster, fits: Callable[[Cluster], bool]) -> int | None:
    """The least number of GPUs, a power of two or whole nodes, that fits; None where none up to a million does."""
    gpus = 1
    while gpus <= _MOST_GPUS:
        if fits(replace(cluster, gpus=gpus, per_node=min(gpus, cluster.gpu.node))):
            return gpus
        gpus *= 2
    return None


def plan_rl(model: PlannedModel, cluster: Cluster, layout: Layout | None, work: RLWork) -> RLPlan:
    """Raises UserError as `plan_training`, and where the samplers' weights do not fit."""
    check_precision(cluster.gpu, work.training.precision, "--rl")
    check_precision(cluster.gpu, work.rollout.precision, "--rl: rollout")
    if layout is None:  # completions are packed, so the batch need not divide
        training = _fastest(model, cluster, [replace(work.training, micro_batches=1)])[0]
        if training is None:
            raise UserError(_too_large(model, cluster, None, work.training, "any layout"))
    else:
        training = plan_training(model, cluster, layout, replace(work.training, micro_batches=1), work.training.recompute)
    work = replace(work, rollout=placed(model, cluster, work.rollout))
    return RLPlan(training, work, rl_time(model, cluster, training.layout, work), cluster)


def plan_serving(model: PlannedModel, cluster: Cluster, work: ServingWork) -> tuple[ServingWork, ServingPlan]:
    """The work with the engine that was chosen, and its plan. Raises UserError where the model does not fit or divide."""
    config = model.config
    check_precision(cluster.gpu, work.precision, "--serve")
    if work.drafts and not config.num_nextn_predict_layers:
        raise UserError("--serve: drafts = yes: the model has no MTP module (num_nextn_predict_layers). Leave it out.")
    work = placed(model, cluster, work)
    for name in ("tensor", "expert"):
        if cluster.gpus % getattr(work, name):
            raise UserError(f"--serve: {name} = {getattr(work, name)} does not divide gpus = {cluster.gpus}. Give one that "
                            "does.")
    if config.num_attention_heads % work.tensor:
        raise UserError(f"--serve: tensor = {work.tensor} does not divide num_attention_heads = {config.num_attention_heads}. "
                        "Give one that does.")
    if work.expert > 1 and not config.has_experts:
        raise UserError(f"--serve: expert = {work.expert}: the model has no routed experts. Leave it out.")
    return work, serving_plan(model, cluster, work)
