"""A rollout worker: an engine with weights of a known version. What runs inside of a Ray actor; knows nothing of Ray.

A worker refuses in a sentence what it cannot do truthfully (weights of another version, a wrong checksum, another vocabulary),
and whoever asked sends what is missing. Its tokens are a function of (weights, prompt, seed): another worker that is asked the
same answers the same.
"""

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spoutnik.engine.llm import LLM
from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.hardware import available_memory
from spoutnik.parallel import cores
from spoutnik.scale.gpus import seen_gpus
from spoutnik.scale.identity import Identity, identity
from spoutnik.scale.policy import Policy, build_policy, refresh_policy
from spoutnik.scale.weight_updates import ReceivedWeights, WeightUpdate
from spoutnik.train.rollouts import PolicyEngine

_CACHE_SHARE = 0.25  # of a machine's free memory, for the caches of all workers on it


@dataclass(frozen=True)
class Work:
    """A part of a call. numbers: the prompts' places in the whole, which with `seed` decide their random numbers."""

    version: int
    vocabulary: str
    prompts: list[list[int]]
    params: SamplingParams
    seed: int
    numbers: list[int]


@dataclass(frozen=True)
class Sampled:
    """The completions of a Work, prompt by prompt. core_seconds: of the process, since it began."""

    groups: list[list[CompletionOutput]]
    seconds: float
    core_seconds: float


@dataclass(frozen=True)
class Progress:
    """How far a worker is. steps: grows for as long as it works; core_seconds: of the process, since it began."""

    steps: int
    core_seconds: float


@dataclass(frozen=True)
class Refused:
    """sentence: why, without a capital and a full stop. final: sending the weights again would not help."""

    sentence: str
    final: bool = False


class WorkerEngine(Protocol):
    """What samples in a worker."""

    def load(self, weights: ReceivedWeights) -> None:
        """The weights of now, which it may go on reading."""

    def sample(self, work: Work, on_step: Callable[[], None]) -> list[list[CompletionOutput]]: ...


class SpoutnikEngine:
    """Our own engine, as the training process would run it. device: "cpu" or "cuda"."""

    def __init__(self, policy: Policy, device: str):
        self.policy, self.device = policy, device
        self._engine: PolicyEngine | None = None
        self._llm: LLM | None = None

    def load(self, weights: ReceivedWeights) -> None:
        self._llm = None  # frees what it had packed
        if self._engine is None:
            model = build_policy(self.policy, weights.tensors, self.device)
            self._engine = PolicyEngine(model, None, self.policy.end_ids, self._memory(weights))
        else:
            refresh_policy(self._engine.model, self.policy, weights.tensors)
        self._llm = self._engine.current()

    def _memory(self, weights: ReceivedWeights) -> int | None:
        """For packed weights and cache: this worker's share, by its cores, of what the workers of a machine may take."""
        if self.device != "cpu":
            return None
        cache = _CACHE_SHARE * available_memory() * min(1.0, cores() / (os.cpu_count() or 1))
        return int(sum(tensor.nbytes for tensor in weights.tensors.values()) * 2 + cache)

    def sample(self, work: Work, on_step: Callable[[], None]) -> list[list[CompletionOutput]]:
        requests = self._llm.requests_of(work.prompts, work.params, work.seed, numbers=work.numbers)
        return [output.outputs for output in self._llm.run(requests, lambda tokens, ended: on_step())]


def make_engine(kind: str, policy: Policy, gpus: int) -> WorkerEngine:
    if kind == "vllm":
        from spoutnik.scale.vllm_engine import VLLMEngine

        return VLLMEngine(policy, gpus)
    return SpoutnikEngine(policy, "cuda" if gpus else "cpu")


class RolloutWorker:
    """stacks: the file to which the stacks of its threads are written when it makes no step for `hang_seconds`."""

    def __init__(self, policy: Policy, engine: str, cpus: int, gpus: int, hang_seconds: float, stacks: Path):
        os.environ["OMP_NUM_THREADS"] = str(cpus)  # which `cores` counts, whatever the machine has
        self.policy, self.gpus, self._watchdog = policy, gpus, _Watchdog(hang_seconds, stacks)
        self.weights = ReceivedWeights()
        self.engine = make_engine(engine, policy, gpus)
        self._loaded: int | None = None
        self._refusal: str | None = None  # of the last update
        self._error: Exception | None = None
        self._steps = 0

    def identity(self) -> Identity:
        return identity(seen_gpus() if self.gpus else ())

    def update(self, update: WeightUpdate) -> float:
        """Takes over new weights and compares their checksums; seconds. What went wrong is remembered: `sample` says it."""
        began = time.perf_counter()
        try:
            with self._watchdog:
                self._refusal, self._error = self.weights.apply(update), None
        except Exception as error:  # whoever sent the weights does not wait for the end of it
            self._error = error
            raise
        self._steps += 1
        return time.perf_counter() - began

    def sample(self, work: Work) -> Sampled | Refused:
        began = time.perf_counter()
        if work.vocabulary != self.policy.vocabulary:
            return Refused(f"it has another vocabulary ({self.policy.vocabulary[:12]}) than the prompts "
                           f"({work.vocabulary[:12]})", final=True)
        if self._error is not None:
            raise self._error
        if self.weights.version != work.version:
            here = "none" if self.weights.version is None else f"version {self.weights.version}"
            return Refused(self._refusal or f"it was asked for version {work.version} of the weights and has {here}")
        with self._watchdog:
            if self._loaded != work.version:
                self._loaded = None
                self.engine.load(self.weights)
                self._loaded = work.version
            groups = self.engine.sample(work, self._on_step)
        return Sampled(groups, time.perf_counter() - began, time.process_time())

    def _on_step(self) -> None:
        self._steps += 1
        self._watchdog.feed()

    def progress(self) -> Progress:
        """Asked from another thread."""
        return Progress(self._steps, time.process_time())

    def stacks(self) -> str:
        """What each thread is doing; asked from another thread."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return "\n".join(f"Thread {names.get(number, number)}:\n" + "".join(traceback.format_stack(frame))
                         for number, frame in sys._current_frames().items())


class _Watchdog:
    """While it is entered and not fed, writes the stacks of all threads after some seconds: from a thread of C, so that it also
    writes where Python's own lock is held."""

    def __init__(self, seconds: float, path: Path):
        self.seconds, self.path = seconds, path
        self._file = None
        self._fed = 0.0

    def __enter__(self) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "w", encoding="utf-8")
        self._arm()

    def __exit__(self, *error: object) -> None:
        faulthandler.cancel_dump_traceback_later()

    def feed(self) -> None:
        if time.monotonic() - self._fed > 1:
            self._arm()

    def _arm(self) -> None:
        self._fed = time.monotonic()
        if self._file is not None:
            faulthandler.dump_traceback_later(self.seconds, file=self._file)


def shares(prompts: Sequence[Sequence[int]], workers: int) -> list[list[int]]:
    """The prompts' places by worker: dealt by what they are, longest first and in turns, so that each has as many and about as
    long ones. (Who samples a prompt changes none of its tokens.)"""
    order = sorted(range(len(prompts)), key=lambda number: (-len(prompts[number]), tuple(prompts[number]), number))
    dealt: list[list[int]] = [[] for _ in range(workers)]
    for turn, number in enumerate(order):
        lap, place = divmod(turn, workers)
        dealt[place if lap % 2 == 0 else workers - 1 - place].append(number)
    return [sorted(numbers) for numbers in dealt]
