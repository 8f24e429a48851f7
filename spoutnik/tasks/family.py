"""What a procedural family of problems offers beyond a task: levels, and problems drawn without end in two languages."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from spoutnik.tasks.problem import Problem, Task, Trace, check_split, is_held_out
from spoutnik.tasks.wording import as_typed

LANGUAGES = ("en", "fr")
HeldOut = Literal["instance", "structure"]
MAX_REJECTIONS = 10_000  # a family whose level cannot fill a split in that many draws is a bug, not bad luck


class Family(Task):
    """A kind of problem that is generated without end, verified exactly and solved in two styles.

    levels: how hard; the docstring of a family says what each of them is.
    held_out: which problems are kept for evaluation: one in eight, though training may have their like with other names or
        numbers (instance); or all those of one structure in eight, so that no training text has their like (structure).
    structure: what is held out by structure, in words for people.
    """

    levels: tuple[int, ...]
    languages = LANGUAGES
    structure: str

    def __init__(self, held_out: HeldOut = "instance"):
        self.held_out = held_out

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        """A problem of either split. Raises ValueError for a level or a language that it does not have."""
        raise NotImplementedError

    def sample(self, rng: random.Random, split: str = "train") -> Problem:
        return sample(self, rng, rng.choice(self.levels), rng.choice(self.languages), split)

    def solve(self, problem: Problem, rng: random.Random, style: str = "careful") -> Trace:
        raise NotImplementedError

    def structures(self, problem: Problem) -> Iterable[str]:
        """The structures that a problem has; where one of them is held out, the problem is."""
        raise NotImplementedError

    def split_keys(self, problem: Problem) -> Iterable[str]:
        return super().split_keys(problem) if self.held_out == "instance" else self.structures(problem)

    def as_typed(self, problem: Problem, rng: random.Random) -> Problem:
        return replace(problem, prompt=as_typed(problem.prompt, problem.language, rng))


def structure_key(name: str, structure: object) -> str:
    """A structure, of plain data, as the text that decides its split."""
    return f"{name} structure {json.dumps(structure, separators=(',', ':'))}"


def check_request(family: Family, level: int, language: str) -> None:
    """Raise ValueError when a family is asked for a level or a language that it does not have."""
    if level not in family.levels:
        raise ValueError(f"The family {family.name} has no level {level!r}: its levels are "
                         f"{', '.join(map(str, family.levels))}.")
    if language not in family.languages:
        raise ValueError(f"The family {family.name} does not speak {language!r}: its languages are "
                         f"{', '.join(family.languages)}.")


def sample(family: Family, rng: random.Random, level: int, language: str, split: str) -> Problem:
    """Draw a problem of the split, by rejection."""
    check_split(split)
    for _ in range(MAX_REJECTIONS):
        problem = family.generate(rng, level, language)
        if is_held_out(problem) == (split == "held_out"):
            return problem
    raise RuntimeError(f"No {split} problem of {family.name} at level {level} in {MAX_REJECTIONS} draws.")
