"""A step of reinforcement learning on paper: sampling, scoring, training, weights to the samplers. Does not import torch.

Completions differ in length, and a step waits for the longest: the share of them that is still being written falls from 1 to 0
as (1 - t / longest) ** k, with k such that their mean is the one given. Sampling and training take turns on the same GPUs.
"""

from dataclasses import dataclass, replace

from spoutnik.errors import UserError
from spoutnik.scale import efficiency
from spoutnik.scale.costs import PlannedModel
from spoutnik.scale.efficiency import SOFTWARE, Software
from spoutnik.scale.hardware import Cluster
from spoutnik.scale.key_values import KeyValues
from spoutnik.scale.layout import Layout
from spoutnik.scale.serving import BYTES, Engine, ServingWork, divided, placed
from spoutnik.scale.training import RECOMPUTE, TrainingTime, TrainingWork, training_time

_SLICES = 24  # of the time that a step samples
_PACKED = 8192  # tokens of a micro-batch


@dataclass(frozen=True)
class RLWork:
    """prompts, group_size: of a step. prompt, response: tokens, on average; longest: the longest response. updates: of the
    weights in a step. scorings: forward passes over all completions (the policy's own probabilities, the reference's).
    steps: in all. training: settings of the updates. rollout: of the samplers."""

    prompts: int
    group_size: int
    prompt: float
    response: float
    longest: float
    updates: int
    scorings: int
    steps: int
    training: TrainingWork
    rollout: ServingWork

    @property
    def completions(self) -> int:
        return self.prompts * self.group_size


@dataclass(frozen=True)
class RLTime:
    """Seconds of one step; each with its part of what the loop takes beside the work (`efficiency.RL_LOOP`)."""

    sampling: float
    scoring: float
    training: float
    transfer: float
    update: TrainingTime
    sampling_binds: str

    @property
    def seconds(self) -> float:
        return self.sampling + self.scoring + self.training + self.transfer

    @property
    def binds(self) -> str:
        parts = {f"sampling ({self.sampling_binds})": self.sampling, "scoring (compute)": self.scoring,
                 f"training ({self.update.binds})": self.training, "weight transfer (network)": self.transfer}
        return max(parts, key=parts.get)


def rl_time(model: PlannedModel, cluster: Cluster, layout: Layout, work: RLWork) -> RLTime:
    """Of one step. Raises UserError where the samplers' weights do not fit."""
    engine = Engine(model, cluster, placed(model, cluster, work.rollout))
    sampling, binds = sampling_seconds(engine, work)
    update = work.training
    count = max(1, round(update.batch / update.micro_batch / layout.data(cluster.gpus)))  # packed: nothing has to divide
    trained = training_time(model, cluster, layout, replace(update, micro_batches=count))
    forward = training_time(model, cluster, layout, replace(update, recompute="none", micro_batches=count))
    scoring = work.scorings * work.updates * (forward.seconds - forward.optimizer - forward.data) / 3
    link = cluster.gpu.link if cluster.nodes == 1 else cluster.network
    transfer = engine.weight_bytes / (link * (efficiency.LINK if cluster.nodes == 1 else efficiency.NETWORK))
    parts = (efficiency.RL_LOOP * part for part in (sampling, scoring, work.updates * trained.seconds, transfer))
    return RLTime(*parts, trained, binds)


def sampling_seconds(engine: Engine, work: RLWork) -> tuple[float, str]:
    """Seconds of sampling all completions, and what binds while most are being written."""
    if engine.free_bytes <= 0:
        raise UserError(f"--rl: on each GPU the samplers' weights take {engine.weight_bytes / 1e9:.0f} GB, and one has "
                        f"{engine.cluster.gpu.memory / 1e9:.0f}. Divide them among more (tensor, expert), or give "
                        "rollout_precision=fp8.")
    each = work.completions / engine.cluster.gpus
    fits = replace(engine, work=replace(engine.work, input=work.prompt, output=work.response)).largest_batch()
    together = min(each, fits)
    prefill = engine.forward(work.prompts / engine.cluster.gpus, work.prompt, work.prompt / 2, latent=False).seconds
    power = max(0.0, work.longest / work.response - 1)
    seconds, binds = prefill, ""
    for number in range(_SLICES):
        time = (number + 0.5) / _SLICES
        step = engine.forward(together * (1 - time) ** power, 1, work.prompt + time * work.longest, latent=True)
        seconds += work.longest / _SLICES * step.seconds
        binds = binds or step.binds
    later = (each - together) * work.response  # tokens of completions that begin when others have ended
    if later > 0:
        step = engine.forward(together, 1, work.prompt + work.response / 2, latent=True)
        seconds += later * step.seconds / together
    return seconds, binds


def update_of(sequence: int, batch: int, precision: str = "bf16", recompute: str = "full",
              software: Software = efficiency.PYTORCH) -> TrainingWork:
    """An update on `batch` completions of `sequence` tokens on average, packed into micro-batches."""
    return TrainingWork(batch * sequence, sequence, batch, max(1, min(batch, _PACKED // sequence)), precision=precision,
                        recompute=recompute, software=software)


def parse_rl(text: str) -> RLWork:
    """The work of "prompts=96,group_size=8,response=1960,longest=9632,tensor=32"."""
    values = KeyValues("--rl", text)
    prompts, group = values.whole("prompts", 512), values.whole("group_size", 16)
    prompt, response = values.number("prompt", 200), values.number("response", 4000)
    longest = values.number("longest", max(response, 32768))
    updates, scorings = values.whole("updates", 16), values.whole("scorings", 2, zero=True)
    steps = values.whole("steps", 1)
    precision = values.choice("precision", ("bf16", "fp8"), "bf16")
    recompute = values.choice("recompute", RECOMPUTE, "full")
    software = SOFTWARE[values.choice("software", SOFTWARE, "pytorch")]
    tensor, expert = divided(values)
    rollout = ServingWork(prompt, response, tensor=tensor, expert=expert,
                          precision=values.choice("rollout_precision", BYTES, "bf16"),
                          graphs=values.choice("graphs", ("yes", "no"), "yes") == "yes")
    values.refuse_others()
    if longest < response:
        raise UserError(f"--rl: longest = {longest:g} is shorter than the mean response = {response:g}. Correct one of them.")
    if updates > prompts * group:
        raise UserError(f"--rl: updates = {updates} are more than the {prompts * group} completions of a step. Give fewer.")
    sequence = max(1, round(prompt + response))
    batch = max(1, prompts * group // updates)
    return RLWork(prompts, group, prompt, response, longest, updates, scorings, steps,
                  update_of(sequence, batch, precision, recompute, software), rollout)


