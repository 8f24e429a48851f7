"""What a problem is, what a family of problems must offer, and how problems are split into train and held out."""

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Protocol

LANGUAGES = ("en", "fr")
STYLES = ("quick", "careful")
SPLITS = ("train", "held_out")
HELD_OUT_ONE_IN = 8
MAX_REJECTIONS = 10_000  # a family whose level cannot fill a split in that many draws is a bug, not bad luck


History = tuple[tuple[str, str], ...]  # earlier turns of a conversation: (question, answer)


@dataclass(frozen=True)
class Problem:
    """One question with what is needed to verify any answer to it.

    history: what was asked and answered before in the same conversation; no part of the problem's identity.
    data: JSON values, the same in every language; entries named `shown_*` describe the presentation alone (the order of the
        numbers or of the sentences) and are no part of the problem's identity.
    """

    family: str
    level: int
    language: str
    prompt: str
    answer: str
    data: dict
    history: History = ()

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


class Family(Protocol):
    """A kind of problem that can be generated without end, verified exactly and solved in two styles."""

    name: str
    levels: tuple[int, ...]

    def generate(self, rng: random.Random, level: int, language: str) -> Problem: ...

    def verify(self, problem: Problem, answer: str) -> bool: ...

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace: ...


def check_request(family: Family, level: int, language: str) -> None:
    """Raise ValueError when a family is asked for a level or a language that it does not have."""
    if level not in family.levels:
        raise ValueError(f"The family {family.name} has no level {level!r}: its levels are "
                         f"{', '.join(map(str, family.levels))}.")
    if language not in LANGUAGES:
        raise ValueError(f"The family {family.name} does not speak {language!r}: its languages are {', '.join(LANGUAGES)}.")


def check_style(family: Family, style: str) -> None:
    """Raise ValueError for an unknown style of solution."""
    if style not in STYLES:
        raise ValueError(f"The family {family.name} has no style {style!r}: its styles are {', '.join(STYLES)}.")


def held_out_by_hash(text: str) -> bool:
    """True for one text in eight, always the same ones."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def is_held_out(problem: Problem) -> bool:
    """Whether a problem is kept for evaluation. It depends on its identity alone, so the splits cannot overlap."""
    return held_out_by_hash(f"{problem.family} {problem.key}")


def sample(family: Family, rng: random.Random, level: int, language: str, split: str) -> Problem:
    """Draw a problem of the split, by rejection."""
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: the splits are {', '.join(SPLITS)}.")
    for _ in range(MAX_REJECTIONS):
        problem = family.generate(rng, level, language)
        if is_held_out(problem) == (split == "held_out"):
            return problem
    raise RuntimeError(f"No {split} problem of {family.name} at level {level} in {MAX_REJECTIONS} draws.")
