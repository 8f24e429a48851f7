"""The training loop of every trained stage: gradients over all cores, checkpoints, resume, divergence.

A step is a function of (seed, step number, weights): what is read or sampled at step 7 is the same whether or not the
process died at step 6. So a checkpoint needs weights, optimizer state and a step number, and a resumed stage ends with
the same bytes.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from spoutnik.errors import RunError, UserError
from spoutnik.files import install_folder, read_json, read_jsonl, remove_folder, write_json, write_jsonl
from spoutnik.hardware import peak_memory
from spoutnik.model.lora import adapter_state, has_adapters
from spoutnik.model.moe import RouterTrace
from spoutnik.model.packing import on_device
from spoutnik.model.parts import Division, Part, everywhere, is_divided, read_rows, save_parts, shapes_in
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_tensors, save_tensors
from spoutnik.train.energy import readable_counters
from spoutnik.train.optimizer import Optimizer, Schedule
from spoutnik.train.summation import sum_gradients
from spoutnik.world import main_only, world


@dataclass
class Cost:
    """What a stage used. core_seconds is processor time over all threads, gpu_seconds the time of each GPU that is used; tokens
    are counted once per pass. joules: of the machine's energy counters, read for `metered_seconds` of the time."""

    seconds: float = 0.0
    core_seconds: float = 0.0
    tokens_trained: int = 0
    tokens_generated: int = 0
    tokens_wasted: int = 0  # generated, but taught nothing: groups without variance, rejected samples
    peak_memory_bytes: int = 0
    gpu_seconds: float = 0.0
    joules: float = 0.0
    metered_seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        summed = {key: getattr(self, key) + getattr(other, key) for key in vars(self)}
        return Cost(**summed | {"peak_memory_bytes": max(self.peak_memory_bytes, other.peak_memory_bytes)})


def of_all_ranks(cost: Cost) -> Cost:
    """With the time on processors and GPUs of all processes that took part, and the memory of the largest. All count the same
    tokens."""
    cores, gpus, memory = zip(*world().gather([(cost.core_seconds, cost.gpu_seconds, peak_memory())]))
    return replace(cost, core_seconds=sum(cores), gpu_seconds=sum(gpus), peak_memory_bytes=max(memory))


def kept_for_all(total: Cost, own: Cost) -> Cost:
    """What rank 0 keeps of a cost for another start: the other ranks took about as much time of processors and GPUs as it did.

    Args:
        total: of all that was kept before, of this process and of rollout workers.
        own: what of it is this process's own, since it began.
    """
    others = world().size - 1
    return replace(total, core_seconds=total.core_seconds + others * own.core_seconds,
                   gpu_seconds=total.gpu_seconds + others * own.gpu_seconds)


def counted_once(kept: Cost) -> Cost:
    """What was kept for all ranks, to be added to what each uses: rank 0 alone has its time, for `of_all_ranks` adds up."""
    return kept if world().is_main else replace(kept, core_seconds=0.0, gpu_seconds=0.0)


class Progress(Protocol):
    """Called after each step of a stage's work: a bar in the terminal, or nothing in tests."""

    def __call__(self, done: int, total: int, tokens: int, note: str) -> None: ...


@dataclass
class Gradient:
    """Sums over micro-batches. gradients: in the order of the optimizer's parameters; empty without micro-batches."""

    gradients: list[Tensor]
    metrics: dict[str, float] = field(default_factory=dict)
    loads: dict[str, Tensor] = field(default_factory=dict)

    def add(self, reports: Sequence["Report"], device: torch.device) -> None:
        """Metrics and loads, in the order of the micro-batches. device: where the loads go to."""
        for _, metrics, loads in sorted(reports, key=lambda report: report[0]):
            for key, value in metrics.items():
                self.metrics[key] = self.metrics.get(key, 0.0) + value
            for name, load in loads.items():
                self.loads[name] = self.loads[name] + load if name in self.loads else load
        self.loads = {name: load.to(device) for name, load in self.loads.items()}


Report = tuple[int, dict[str, float], dict[str, Tensor]]  # of a micro-batch: its number, metrics and routers' loads


def accumulate(parameters: Sequence[Tensor], micro: Sequence[object],
               loss_of: Callable[[object, RouterTrace], tuple[Tensor, dict[str, float]]],
               want_balance_loss: bool = False) -> Gradient:
    """Sums gradients and metrics of `loss_of(micro_batch, trace)` over micro-batches, one thread per core, and over the
    processes of the run, which all have the same micro-batches and the same result. Micro-batches may lie elsewhere than
    the parameters, and are computed where these lie.

    Added up in the order of `micro`, whichever thread finished first, so that a run repeats to the bit. A loss must be
    normalized by global counts: the sum over micro-batches is the gradient of the whole batch.
    """
    if not micro:
        return Gradient([])
    if (division := getattr(parameters[0], "division", None)) is not None:
        return division.accumulate(parameters, micro, loss_of, want_balance_loss)
    reports: list[Report] = []  # of those that are computed here

    def gradient_of(number: int) -> list[Tensor | None]:
        trace = RouterTrace(want_balance_loss)
        loss, metrics = loss_of(on_device(micro[number], parameters[0].device), trace)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        reports.append((number, metrics, {name: load.cpu() for name, load in trace.loads.items()}))
        return list(gradients)

    total = Gradient(sum_gradients(world(), len(micro), gradient_of, parameters))
    total.add(world().gather(reports), parameters[0].device)
    return total


class AddedGradient(Protocol):
    """What every step learns beside its own data: an anchor (anchor.py)."""

    def add_to(self, gradient: Gradient, metrics: dict[str, float], model: Transformer, parameters: Sequence[Tensor],
               step: int) -> None: ...


HOURLY_BYTES = 100e9  # of checkpoints that are sparing: a disk of 1 TB is written to once over in ten hours


class Kept(Protocol):
    """What a stage keeps in its checkpoints beside weights and optimizer: rollouts of steps to come (ahead.py)."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Checkpoints:
    """The last good state of a stage in progress: its folder, and how often it is written. sparing: less often where it is
    large, so that no more than HOURLY_BYTES are written in an hour. kept: what else is in it."""

    folder: Path
    every_seconds: float = 30.0
    sparing: bool = False
    kept: Kept | None = None

    def seconds_between(self, model: nn.Module, optimizer: Optimizer) -> float:
        """From one checkpoint to the next: weights, and two moments of what is trained (Muon has one)."""
        if not self.sparing:
            return self.every_seconds
        weights = adapter_state(model) or model.state_dict()
        written = sum(t.nbytes for t in weights.values()) + 2 * sum(t.nbytes for t in optimizer.parameters)
        return max(self.every_seconds, 3600 * written / HOURLY_BYTES)

    @property
    def latest(self) -> Path:
        return self.folder / "checkpoint"

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, log: list[dict], cost: Cost) -> None:
        """Writes beside the last checkpoint, then takes its place: one of the two is always whole. Of a model with adapters,
        these alone: the rest is its base. Of one that is divided among processes all of them call this, and each writes its
        rows; the files are those that one process alone writes and reads."""
        fresh, division = self.folder / "checkpoint.new", optimizer.division
        weights, state = fresh / "weights.safetensors", fresh / "optimiser.safetensors"  # as checkpoints on disk spell it
        if division is None:
            remove_folder(fresh)
            save_tensors(weights, adapter_state(model) or model.state_dict())
            save_tensors(state, optimizer.tensors())
            self._finish(fresh, step, log, cost)
            return
        if world().is_main:
            remove_folder(fresh)
        save_parts(weights, saved_parts(division))
        save_parts(state, optimizer.tensor_parts())
        everywhere(lambda: world().is_main and self._finish(fresh, step, log, cost))

    def _finish(self, fresh: Path, step: int, log: list[dict], cost: Cost) -> None:
        write_jsonl(fresh / "log.jsonl", log)
        if self.kept is not None:
            self.kept.save(fresh)
        write_json(fresh / "state.json", {"step": step, "bill": vars(cost)})
        install_folder(fresh, self.latest, aside=self.folder / "checkpoint.old")

    def load(self, model: nn.Module, optimizer: Optimizer) -> tuple[int, list[dict], Cost] | None:
        """Restores the last checkpoint into model and optimizer; None where there is none."""
        folder = self.latest if self.latest.exists() else self.folder / "checkpoint.old"
        if not folder.exists():
            return None
        weights, state = folder / "weights.safetensors", folder / "optimiser.safetensors"
        if optimizer.division is None:
            model.load_state_dict(load_tensors(weights), strict=False)
            optimizer.load_tensors(load_tensors(state))
        else:
            read_rows(weights, saved_parts(optimizer.division))
            parts = optimizer.parts_of(shapes_in(state))
            read_rows(state, parts)
            optimizer.load_tensors({name: part.rows for name, part in parts.items()})
        if self.kept is not None:
            self.kept.load(folder)
        try:
            log, state = read_jsonl(folder / "log.jsonl"), read_json(folder / "state.json")
        except UserError as error:
            raise RunError(f"{error} Or delete {folder} to start this stage again.") from error
        return state["step"], log, Cost(**state["bill"])


def saved_parts(division: Division) -> dict[str, Part]:
    """Of what a checkpoint holds: the adapters alone where there are any."""
    parts = division.parts()
    return {name: part for name, part in parts.items() if ".adapter." in name} or parts


class Stopwatch:
    """Wall and processor time of a stretch of work, and its energy where the machine counts it."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        self.counters = [make() for make in readable_counters()]

    def lap(self) -> Cost:
        """What passed since the last lap."""
        wall, cpu = time.perf_counter(), time.process_time()
        seconds = wall - self.wall
        cost = Cost(seconds, cpu - self.cpu)
        if torch.cuda.is_initialized():
            cost.gpu_seconds = seconds  # a process computes on one; `of_all_ranks` adds up those of all
        if self.counters:
            cost.joules, cost.metered_seconds = sum(counter.lap() for counter in self.counters), seconds
        self.wall, self.cpu = wall, cpu
        return cost


def train(model: Transformer, optimizer: Optimizer, schedule: Schedule, stage: str,
          step_gradient: Callable[[int], tuple[Gradient, dict[str, float], Cost]], checkpoints: Checkpoints,
          progress: Progress, bias_update_speed: float = 0.0,
          after_step: Callable[[list[dict]], Cost] = lambda log: Cost(),
          anchor: AddedGradient | None = None, resumes_every: int = 1) -> tuple[list[dict], Cost]:
    """Runs `schedule.steps` steps; returns the log (a row per step) and the cost.

    step_gradient(step) returns the gradient, the metrics to log and what it cost. after_step looks at the log after each step,
    may add to its last row, and returns the tokens that it generated. The correction biases move once per
    optimizer step, by the loads of the whole batch (V3, section 2.1.2); beside adapters they stay, as the base does. anchor:
    adds its part to each step's gradient and metrics. resumes_every: a checkpoint is written after multiples of so many steps
    alone, where nothing that it would lack is under way.

    Raises:
        RunError: loss or gradient is not finite, or exploded: names the step; the last good checkpoint stays.
    """
    start, log, kept = checkpoints.load(model, optimizer) or (0, [], Cost())
    total, own = counted_once(kept), Cost()
    refuse_other_weights(model, stage, start)
    routers = model.routers if isinstance(model, Transformer) else {}
    if has_adapters(model):
        bias_update_speed = 0.0
    watch, last_save, pause = Stopwatch(), time.perf_counter(), checkpoints.seconds_between(model, optimizer)
    for step in range(start, schedule.steps):
        gradient, metrics, cost = step_gradient(step)
        if anchor is not None:
            anchor.add_to(gradient, metrics, model, optimizer.parameters, step)
        if world().virtual_shards:
            torch.set_num_threads(1)  # norms are sums too, and an engine may have set another number
        refuse_divergence(stage, step, metrics["loss"], gradient.gradients, log, checkpoints, optimizer.division)
        # A step that taught nothing leaves the weights alone: momentum and decay would move them all the same.
        metrics["grad_norm"] = optimizer.step(gradient.gradients, schedule.factor(step)) if gradient.gradients else 0.0
        for name, load in gradient.loads.items():
            if bias_update_speed and routers[name].biased:
                routers[name].move_bias(load, bias_update_speed)
        if gradient.loads:
            metrics["max_load"] = max(float(load.max() / load.float().mean()) for load in gradient.loads.values())
        lap = watch.lap()
        total, own = total + cost + lap, own + lap
        log.append({"step": step, "seconds": round(total.seconds, 3), "lr": optimizer.peak * schedule.factor(step)}
                   | {key: round(value, 6) for key, value in metrics.items()})
        cost, lap = after_step(log), watch.lap()
        total, own = total + cost + lap, own + lap
        progress(step + 1, schedule.steps, total.tokens_trained + total.tokens_generated, headline(metrics))
        if (step + 1) % COMPARED_EVERY == 0 or step + 1 == schedule.steps:
            refuse_other_weights(model, stage, step + 1)
        between = (step + 1) % resumes_every == 0 and step + 1 < schedule.steps
        if between and is_due(last_save + pause, optimizer.division):
            checkpoints.save(step + 1, model, optimizer, log, kept_for_all(total, own))
            last_save = time.perf_counter()
    return log, total


def is_due(moment: float, division: Division | None) -> bool:
    """Whether this process is to write a checkpoint now: rank 0 by its clock, and the others with it where all write."""
    if division is None:
        return world().is_main and time.perf_counter() > moment
    return main_only(lambda: time.perf_counter() > moment)


COMPARED_EVERY = 20  # steps after which the ranks compare their weights


def refuse_other_weights(model: nn.Module, stage: str, step: int) -> None:
    """Each rank moves weights of its own, by the same sums: they stay alike for as long as the processors compute alike. Of a
    model that is divided among them, what each has whole is compared: routers' biases.

    Raises:
        RunError: those of some rank are others than rank 0's, or of another step.
    """
    if world().size == 1:
        return
    state = dict(model.named_buffers()) if is_divided(model) else adapter_state(model) or model.state_dict()
    states = world().gather([(step, fingerprint(state))])
    for rank, (other_step, other) in enumerate(states):
        if other_step != states[0][0]:
            raise RunError(f"{stage}: rank {rank} goes on from step {other_step} and rank 0 from step {states[0][0]}: they "
                           "read different checkpoints. The run's folder (--out) must be on a file system that all share.")
        if other != states[0][1]:
            raise RunError(f"{stage}: the weights of rank {rank} are others than those of rank 0 at step {step}: their "
                           "processors compute differently, or one of them wrongly. Start on machines of one kind.")


def fingerprint(state: Mapping[str, Tensor]) -> int:
    """Of every byte of some tensors; cheap, and no protection against intent."""
    total = 0
    for number, tensor in enumerate(state.values(), start=1):
        flat = tensor.detach().contiguous().flatten().view(torch.uint8)
        flat = torch.nn.functional.pad(flat, (0, -len(flat) % 4)).view(torch.int32)
        total += number * int(flat.sum(dtype=torch.int64))
    return total


def headline(metrics: dict[str, float]) -> str:
    """What a person wants to see beside the bar: the reward where there is one (an RL loss near 0 is normal)."""
    return next((f"{key} {metrics[key]:.3f}" for key in ("reward", "accuracy", "loss") if key in metrics), "")


def refuse_divergence(stage: str, step: int, loss: float, gradients: list[Tensor], log: list[dict],
                      checkpoints: Checkpoints, division: Division | None = None) -> None:
    """Stops before the weights are touched when the loss or a gradient is not a number, or the loss exploded."""
    norms = [] if not gradients else torch._foreach_norm(gradients) if division is None else [division.norm(gradients)]
    finite = math.isfinite(loss) and all(math.isfinite(float(norm)) for norm in norms)
    usual = sorted(abs(row["loss"]) for row in log[-50:])
    exploded = len(usual) >= 20 and abs(loss) > 20 * max(usual[len(usual) // 2], 1.0)
    if finite and not exploded:
        return
    remains = (f"the last good checkpoint is kept in {checkpoints.latest}" if checkpoints.latest.exists()
               else "there was no checkpoint yet")
    what = "is not a finite number" if not finite else "exploded"
    raise RunError(f"{stage}: the loss {what} at step {step} (loss {loss:.4g}); {remains}. "
                   "Lower learning_rate (or max_grad_norm) of this stage in the recipe and run again.")
