"""What a task and one of its problems are, and how problems are split into train and held out."""

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

STYLES = ("quick", "careful")
SPLITS = ("train", "held_out")
HELD_OUT_ONE_IN = 8


History = tuple[tuple[str, str], ...]  # earlier turns of a conversation: (question, answer)


@dataclass(frozen=True)
class Problem:
    """One question with what is needed to verify any answer to it.

    task: that verifies it, and solves it where it can.
    history: what was asked and answered before in the same conversation; no part of the problem's identity.
    data: JSON values, the same in every language; entries named `shown_*` describe the presentation alone (the order of the
        numbers or of the sentences) and are no part of the problem's identity.
    """

    task: "Task" = field(repr=False)
    level: int
    language: str
    prompt: str
    answer: str
    data: dict
    history: History = ()

    @property
    def family(self) -> str:
        """The name of its task, as traces and tables say it."""
        return self.task.name

    @property
    def key(self) -> str:
        """Identity of the problem: the same for its French twin, its other wordings and its shuffled statement."""
        identity = {name: value for name, value in self.data.items() if not name.startswith("shown_")}
        return json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


@dataclass(frozen=True)
class Trace:
    """A worked solution: the text of the thought and the answer it leads to."""

    thought: str
    answer: str


class Task:
    """A kind of problem that is verified: procedural, read from a file, or from another library. Training, rejection sampling,
    distillation and evaluation know no more of it than this.

    Attributes:
        name: in recipes, traces and tables.
        about: a line for people.
        languages: of its prompts (ISO 639-1).
        content: hash of the files that it was read from; "" for one that is code alone.
        parts: other tasks that it asks and grades with.
        notes: sentences on what was not as it was written, where it was read.
    """

    name: str
    about: str = ""
    languages: tuple[str, ...] = ("en",)
    content: str = ""
    parts: "tuple[Task, ...]" = ()
    notes: Sequence[str] = ()

    def sample(self, rng: random.Random, split: str = "train") -> Problem:
        """A problem of the split: drawn, or one of those that were read."""
        raise NotImplementedError

    def problems(self, split: str = "held_out") -> Sequence[Problem] | None:
        """All problems of the split, in their order; None for a task that draws them without end."""
        return None

    def verify(self, problem: Problem, answer: str) -> float:
        """The grade in [0, 1] of an answer without its thought; a bool is one. Never raises: what it cannot read is wrong."""
        raise NotImplementedError

    def verify_all(self, asked: "Sequence[tuple[Problem, str]]") -> list[float]:
        """`verify` of many answers, in their order. Where a verdict is mostly waiting (for a program in the sandbox, for a
        model behind an endpoint), a task waits for many at one time."""
        return [self.verify(problem, answer) for problem, answer in asked]

    def extract(self, problem: Problem, answer: str) -> str | None:
        """What of an answer is graded, to be shown and counted; None where it holds nothing of the kind."""
        return answer.strip() or None

    def solve(self, problem: Problem, rng: random.Random, style: str = "careful") -> Trace | None:
        """A worked solution; None where the task has none."""
        return None

    def as_typed(self, problem: Problem, rng: random.Random) -> Problem:
        """The problem in the words of somebody who types it; as it is, where that is how it is meant to be asked."""
        return problem

    def split_keys(self, problem: Problem) -> Iterable[str]:
        """What decides the split of a problem: it is held out where one of these is."""
        return (f"{self.name} {problem.key}",)


def side_by_side(verify: Callable[[Problem, str], float], asked: Sequence[tuple[Problem, str]]) -> list[float]:
    """verify(problem, answer) for each, a thread for every core, for verifiers that wait for programs of their own."""
    if len(asked) < 2:
        return [verify(*each) for each in asked]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(lambda each: verify(*each), asked))


def check_style(task: Task, style: str) -> None:
    """Raise ValueError for an unknown style of solution."""
    if style not in STYLES:
        raise ValueError(f"The task {task.name} has no style {style!r}: its styles are {', '.join(STYLES)}.")


def check_split(split: str) -> None:
    """Raise ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: the splits are {', '.join(SPLITS)}.")


def held_out_by_hash(text: str) -> bool:
    """True for one text in eight, always the same ones."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def is_held_out(problem: Problem) -> bool:
    """Whether a problem is kept for evaluation. Its task says what decides it; the same decides alike, so the splits cannot
    overlap."""
    return any(map(held_out_by_hash, problem.task.split_keys(problem)))
