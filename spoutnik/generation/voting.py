"""Several replies to one question, and the answer that most of them come to (self-consistency, Wang et al. 2022)."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spoutnik.generation.delta import Delta
from spoutnik.generation.math_equivalence import checker
from spoutnik.generation.service import GenerationHandle
from spoutnik.tasks.answers import clean

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_NUMBER = re.compile(r"[-+\u2212]?\d[\d,.\u202f]*(?:\s*/\s*\d+)?%?")
_MAX_SHORT = 80  # characters: longer answers are prose
_MAX_TIMEOUTS = 3  # of mathematical comparisons in one vote


@dataclass
class VoteResult:
    """index: the reply that speaks for the majority; agreement: the share of replies that come to the same. runners_up: what
    others came to, (an answer in full, votes), most votes first."""

    index: int
    agreement: float
    runners_up: list[tuple[str, int]]


def final_answer(answer: str) -> str:
    """What an answer comes to: its box, the whole of a short one, the last number of a longer one; else all of it."""
    boxed = _BOXED.findall(answer)
    if boxed:
        return boxed[-1].strip()
    text = clean(answer)
    if len(text) > _MAX_SHORT:
        numbers = _NUMBER.findall(text.splitlines()[-1])
        return numbers[-1].rstrip(".,") if numbers else " ".join(text.lower().split())
    numbers = _NUMBER.findall(text)
    return numbers[0].rstrip(".,") if len(numbers) == 1 and re.search(r"[^\W\d_]{2}", text) else text.lower()


class Agreement:
    """Do two final answers agree, as texts or as mathematics? After a few that cannot be computed in time, as texts alone."""

    def __init__(self):
        self._timeouts_left = _MAX_TIMEOUTS

    def __call__(self, one: str, other: str) -> bool:
        if one == other:
            return True
        if not self._timeouts_left or max(len(one), len(other)) > _MAX_SHORT:
            return False
        equivalent = checker.equivalent(one, other)
        self._timeouts_left -= equivalent is None
        return bool(equivalent)


def tally(answers: Sequence[str]) -> VoteResult:
    """The largest group of answers that agree; the earliest of equal ones. Empty answers vote for nothing. It may take
    seconds: not for the event loop."""
    agree, groups = Agreement(), []
    final_answers = [final_answer(answer) for answer in answers]
    for number, final in enumerate(final_answers):
        if not final:
            continue
        group = next((group for group in groups if agree(final_answers[group[0]], final)), None)
        groups.append([number]) if group is None else group.append(number)
    if not groups:
        return VoteResult(0, 0.0, [])
    groups.sort(key=lambda group: (-len(group), group[0]))
    return VoteResult(groups[0][0], len(groups[0]) / len(answers),
                      [(answers[group[0]], len(group)) for group in groups[1:]])


async def vote(handle: GenerationHandle, on_deltas: Callable[[list[Delta]], None]) -> VoteResult:
    """Runs a generation of several choices (GenerationPlan.with_n) to its end: which of handle.replies speaks for the majority?
    on_deltas: called with what comes, for progress; what it raises ends the vote."""
    async with handle:
        async for deltas in handle:
            on_deltas(deltas)
    return await asyncio.to_thread(tally, [reply.answer for reply in handle.replies])
