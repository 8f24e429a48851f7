"""Harmless rewordings of problems: the same question in other words, spaces or courtesies, the same ones every time.

Each names its source, so that a report can say what was varied. None touches numbers, formulas, code, options, or the line that
says how to answer, which stays the last one.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spoutnik.errors import UserError
from spoutnik.tasks import Family
from spoutnik.tasks.benchmarks.ifeval import IFEval
from spoutnik.tasks.problem import Problem
from spoutnik.tasks.wording import COURTESIES
from spoutnik.validation import did_you_mean

FRAMES = {"en": ("Here is a question. {p}", "Consider the following. {p}", "Problem: {p}"),
          "fr": ("Voici une question. {p}", "Considère ce qui suit. {p}", "Problème : {p}"),
          "de": ("Hier ist eine Frage. {p}",), "es": ("Aquí hay una pregunta. {p}",), "ru": ("Вот вопрос. {p}",),
          "zh": ("请看下面的问题。{p}",)}


@dataclass(frozen=True)
class Rewording:
    """source: where its words come from. apply: gives the reworded problem, or None where it does not suit it."""

    name: str
    source: str
    apply: Callable[[Problem, random.Random], Problem | None]


def _spaces(problem: Problem, rng: random.Random) -> Problem | None:
    """Two spaces after each sentence that ends within a line, or else one at the end of the first line. Code and tables, which
    have runs of spaces or fences, stay as they are."""
    if "```" in problem.prompt or re.search(r"\S {2,}|\n {2,}|\t", problem.prompt):
        return None
    reworded = re.sub(r"(?<=[^\W\d_][.?!]) (?=\S)", "  ", problem.prompt)
    if reworded == problem.prompt:
        first, newline, rest = problem.prompt.partition("\n")
        reworded = f"{first} {newline}{rest}"
    return replace(problem, prompt=reworded)


def _framed(frames: dict[str, tuple[str, ...]]) -> Callable[[Problem, random.Random], Problem | None]:
    def apply(problem: Problem, rng: random.Random) -> Problem | None:
        """In a frame that suits: what has several lines ends in options or in how to answer, so nothing follows."""
        suited = [frame for frame in frames.get(problem.language, ())
                  if frame.endswith("{p}") or "\n" not in problem.prompt]
        if not suited:
            return None
        before, after = rng.choice(suited).split("{p}")
        return replace(problem, prompt=before + problem.prompt + after)
    return apply


def _typed(problem: Problem, rng: random.Random) -> Problem | None:
    if not isinstance(problem.task, Family):
        return None
    for _ in range(20):  # a third of the draws changes nothing
        reworded = problem.task.as_typed(problem, rng)
        if reworded.prompt != problem.prompt:
            return reworded
    return None


REWORDINGS = {each.name: each for each in (
    Rewording("spaces", "spoutnik.evals.rewording: two spaces between sentences, or one more after the first line", _spaces),
    Rewording("courtesy", "spoutnik.tasks.wording.COURTESIES, written for this project", _framed(COURTESIES)),
    Rewording("frame", "spoutnik.evals.rewording.FRAMES, written for this project", _framed(FRAMES)),
    Rewording("typed", "spoutnik.tasks.wording.as_typed: families' questions as people type them", _typed),
)}


def reword(problems: Sequence[Problem], name: str) -> list[tuple[Problem, Problem]]:
    """(problem, reworded problem) of those that the rewording suits, in their order and the same ones every time.

    Raises:
        UserError: there is no such rewording, or it suits none of the problems.
    """
    rewording = REWORDINGS.get(name)
    if rewording is None:
        raise UserError(f"There is no rewording '{name}'.{did_you_mean(name, REWORDINGS)} There are {', '.join(REWORDINGS)}.")
    pairs = [(problem, other) for problem in problems if not isinstance(problem.task, IFEval)  # its checks quote the prompt
             and (other := rewording.apply(problem, random.Random(f"{name} {problem.prompt}"))) is not None]
    if not pairs:
        raise UserError(f"The rewording {name} ({rewording.source}) suits none of the {len(problems)} problems. Choose "
                        f"another: {', '.join(REWORDINGS)}.")
    return pairs
