"""The processes that work on one run together: as a rule one, or as many as torchrun started (`spoutnik/scale/launch.py`).

All of them walk through the same code with the same seeds. Each does its part of what costs time and gathers the others', so
that every one holds the same results in the same order, takes the same decisions and moves the same weights. Rank 0 alone
writes.

The functions below are the only ones of training that other processes hear of; alone, none of them imports torch.distributed.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from spoutnik.errors import RunError

Value = TypeVar("Value")


class LostRank(RunError):
    """Another process of the run does not answer: it ended, or its machine did."""


@dataclass(frozen=True)
class World:
    """Which process this is among those of a run.

    rank: 0 is the one that writes. cores: on which each process counts; None alone, where it is this machine's number.
    virtual_shards: into how many parts each sum over a batch is divided, whatever the number of processes and cores
    (`train/summation.py`); None: into as many as there are processes and cores.
    divide: `scale.sharding.divide`, which divides a model among the processes; None where nobody can.
    """

    rank: int = 0
    size: int = 1
    cores: int | None = None
    virtual_shards: int | None = None
    divide: Callable[..., None] | None = None

    @staticmethod
    def alone() -> "World":
        return World()

    @property
    def divides(self) -> bool:
        """Whether models that a recipe wants divided are. Of one process alone they stay whole, unless sums have a fixed order:
        that over divided models is one of its own."""
        return self.divide is not None and (self.size > 1 or self.virtual_shards is not None)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, values: list[Value]) -> list[Value]:
        """Those of all ranks, of which each holds some, in the order of ranks; the same list on every rank."""
        return [value for of_rank in self._gathered(values) for value in of_rank]

    def gather_dealt(self, values: list[Value]) -> list[Value]:
        """The results of items that were dealt one by one (rank r has numbers r, r + size ...), in the order of the items."""
        parts = self._gathered(values)
        return [parts[number % self.size][number // self.size] for number in range(sum(map(len, parts)))]

    def broadcast(self, value: Value) -> Value:
        """Rank 0's, on every rank."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        with collective():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def _gathered(self, values: list[Value]) -> list[list[Value]]:
        if self.size == 1:
            return [values]
        import torch.distributed as dist

        parts: list[list[Value]] = [[] for _ in range(self.size)]
        with collective():
            dist.all_gather_object(parts, values)
        return parts


_team = _current = World()


def world() -> World:
    """The processes that do together what this one is at. Alone, but inside `together`: of several, rank 0 also does much that
    no other does (plans, audits, reports)."""
    return _current


def team() -> World:
    """All processes that were started for this run."""
    return _team


@contextlib.contextmanager
def started_in(new: World) -> Iterator[World]:
    """Inside it, this process is one of several."""
    global _team
    before, _team = _team, new
    try:
        yield new
    finally:
        _team = before


@contextlib.contextmanager
def together(virtual_shards: int | None = None) -> Iterator[World]:
    """Inside it, all processes walk through the same code, and sums are divided into so many parts."""
    global _current
    before, _current = _current, replace(_team, virtual_shards=virtual_shards)
    try:
        with pulse.at("works"):
            yield _current
    finally:
        _current = before


@dataclass
class Pulse:
    """What others see of this process (`scale/watch.py`). beats: pieces of work that it has finished. state: whether it works
    or waits for others; "idle" is outside of what all do together, where nobody knows how long a piece of work takes."""

    beats: int = 0
    state: str = "idle"

    def beat(self) -> None:
        self.beats += 1

    @contextlib.contextmanager
    def at(self, state: str) -> Iterator[None]:
        before, self.state = self.state, state
        try:
            yield
        finally:
            self.state = before
            self.beat()


pulse = Pulse()


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """Around each exchange between processes.

    Raises:
        LostRank: one of the others is gone.
    """
    with pulse.at("idle" if pulse.state == "idle" else "waits"):
        try:
            yield
        except RuntimeError as error:  # gloo's and NCCL's errors have no class of their own
            raise _lost(error) from error


@contextlib.contextmanager
def exchanging() -> Iterator[None]:
    """Around work in which processes also exchange what it needs: other errors stay what they are.

    Raises:
        LostRank: one of the others is gone.
    """
    try:
        yield
    except RuntimeError as error:
        kind, text = type(error).__name__, str(error)
        if not (kind.startswith("Dist") or "gloo" in text or "NCCL" in text):
            raise
        raise _lost(error) from error


def _lost(error: RuntimeError) -> LostRank:
    return LostRank(f"another process of this run ended ({_first_line(error)}). What was finished is kept; run the same "
                    "command again to go on from the last checkpoint.")


def _first_line(error: RuntimeError) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def main_only(work: Callable[[], Value]) -> Value:
    """What rank 0 finds out, on every rank: of files that it alone writes."""
    current = world()
    return current.broadcast(work() if current.is_main else None)
