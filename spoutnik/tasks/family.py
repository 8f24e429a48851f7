"""What a procedural family of problems offers beyond a task: levels, and problems drawn without end in two languages."""

import random
from dataclasses import replace

from spoutnik.tasks.problem import Problem, Task, Trace, check_split, is_held_out
from spoutnik.tasks.wording import as_typed

LANGUAGES = ("en", "fr")
MAX_REJECTIONS = 10_000  # a family whose level cannot fill a split in that many draws is a bug, not bad luck


class Family(Task):
    """A kind of problem that is generated without end, verified exactly and solved in two styles.

    levels: how hard; the docstring of a family says what each of them is.
    """

    levels: tuple[int, ...]
    languages = LANGUAGES

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        """A problem of either split. Raises ValueError for a level or a language that it does not have."""
        raise NotImplementedError

    def sample(self, rng: random.Random, split: str = "train") -> Problem:
        return sample(self, rng, rng.choice(self.levels), rng.choice(self.languages), split)

    def solve(self, problem: Problem, rng: random.Random, style: str = "careful") -> Trace:
        raise NotImplementedError

    def as_typed(self, problem: Problem, rng: random.Random) -> Problem:
        return replace(problem, prompt=as_typed(problem.prompt, problem.language, rng))


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
