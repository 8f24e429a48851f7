"""The problems that an audit asks, and what a policy can know of a task without understanding it."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from spoutnik.tasks.problem import Problem, Task

_USUAL = 8  # golds that are tried as constants
_NUMBER = re.compile(r"[-\u2212]?\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Sample:
    """Problems of one task. seed: of everything that an attack draws."""

    problems: Sequence[Problem]
    seed: int

    @cached_property
    def counts(self) -> Counter[str]:
        """How many problems have each answer."""
        return Counter(problem.answer for problem in self.problems if problem.answer.strip())

    @cached_property
    def usual(self) -> list[str]:
        """The most frequent answers, the most frequent first."""
        return [answer for answer, _ in sorted(self.counts.items(), key=lambda each: (-each[1], each[0]))[:_USUAL]]

    def others(self, problem: Problem, count: int = 2) -> list[str]:
        """Other problems' answers that are not this one's: usual ones, and numbers where there are too few."""
        others = [answer for answer in (*self.usual, "17", "4711", "-3") if answer.strip() != problem.answer.strip()]
        return others[:count]

    def next_gold(self, problem: Problem) -> str | None:
        """The answer of the next problem that has another one; None where all have the same."""
        index = next(index for index, each in enumerate(self.problems) if each is problem)
        following = [*self.problems[index + 1:], *self.problems[:index]]
        return next((each.answer for each in following
                     if each.answer.strip() and each.answer.strip() != problem.answer.strip()), None)


def draw_sample(task: Task, count: int, seed: int) -> Sample:
    """Training problems; held-out ones of a task that has no others. Always the same ones.

    Raises:
        Exception: whatever the task raises.
    """
    rng = random.Random(f"{seed} audit {task.name}")
    listed = task.problems("train")
    if listed is not None and not len(listed):
        listed = task.problems("held_out")
    if listed is None:
        return Sample([task.sample(rng, "train") for _ in range(count)], seed)
    return Sample(rng.sample(list(listed), min(count, len(listed))), seed)


def numbers_of(text: str) -> list[str]:
    """All numbers that stand in a text, as they stand there."""
    return _NUMBER.findall(text)


def functions_of(problem: Problem) -> list[str]:
    """Names of the functions that the prompt or the answer defines or tests; one that is usual where there are none."""
    names = re.findall(r"\b(?:def|assert)\s+(\w+)\s*\(", f"{problem.prompt}\n{problem.answer}")
    return list(dict.fromkeys(names)) or ["solution"]
