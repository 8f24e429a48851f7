"""Several thoughts on one question, and the answer that most of them come to (self-consistency, Wang et al. 2022)."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from spoutnik.generation.generation import Delta, GenerationPlan
from spoutnik.generation.math_equivalence import mathematician
from spoutnik.generation.service import GenerationHandle, GenerationService, ServedModel
from spoutnik.tasks.answers import clean

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_NUMBER = re.compile(r"[-+\u2212]?\d[\d,.\u202f]*(?:\s*/\s*\d+)?%?")
_SHORT = 80  # characters: longer answers are prose


@dataclass
class VoteResult:
    """index: the reply that speaks for the majority; agreement: the share of replies that come to the same.
    runners_up: what others came to, (an answer in full, votes), most votes first."""

    index: int
    agreement: float
    runners_up: list[tuple[str, int]]


@dataclass
class CollectedReply:
    """One reply from its deltas."""

    thought: str = ""
    answer: str = ""
    finish_reason: str = ""
    stop_reason: str | None = None
    thought_tokens: int = 0
    generated: int = 0
    warnings: list[str] = field(default_factory=list)
    logprobs: list[Delta] = field(default_factory=list)  # deltas that carry some

    def add(self, delta: Delta) -> None:
        self.thought += delta.thought
        self.answer += delta.answer
        self.warnings += delta.warnings
        self.thought_tokens, self.generated = delta.thought_tokens, delta.generated
        if delta.ids:
            self.logprobs.append(delta)
        if delta.finish_reason:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason


def conclusion(answer: str) -> str:
    """What an answer comes to: its box, the whole of a short one, the last number of a longer one; else all of it."""
    boxed = _BOXED.findall(answer)
    if boxed:
        return boxed[-1].strip()
    text = clean(answer)
    if len(text) > _SHORT:
        numbers = _NUMBER.findall(text.splitlines()[-1])
        return numbers[-1].rstrip(".,") if numbers else " ".join(text.lower().split())
    numbers = _NUMBER.findall(text)
    return numbers[0].rstrip(".,") if len(numbers) == 1 and re.search(r"[^\W\d_]{2}", text) else text.lower()


class Agreement:
    """Do two conclusions agree, as texts or as mathematics? After a few that cannot be computed in time, as texts alone."""

    def __init__(self):
        self._patience = 3

    def __call__(self, one: str, other: str) -> bool:
        if one == other:
            return True
        if not self._patience or max(len(one), len(other)) > _SHORT:
            return False
        agree = mathematician.agree(one, other)
        self._patience -= agree is None
        return bool(agree)


def tally(answers: Sequence[str], agree: Callable[[str, str], bool] | None = None) -> VoteResult:
    """The largest group of answers that agree; the earliest of equal ones. Empty answers vote for nothing. It may take
    seconds: not for the event loop."""
    agree = agree or Agreement()
    groups: list[list[int]] = []
    conclusions = [conclusion(answer) for answer in answers]
    for number, found in enumerate(conclusions):
        if not found:
            continue
        group = next((group for group in groups if agree(conclusions[group[0]], found)), None)
        groups.append([number]) if group is None else group.append(number)
    if not groups:
        return VoteResult(0, 0.0, [])
    groups.sort(key=lambda group: (-len(group), group[0]))
    return VoteResult(groups[0][0], len(groups[0]) / len(answers),
                      [(answers[group[0]], len(group)) for group in groups[1:]])


async def vote(service: GenerationService, served: ServedModel, plan: GenerationPlan, thoughts: int, name: str | None = None,
               heard: Callable[[list[Delta]], None] = lambda deltas: None) -> tuple[VoteResult, list[CollectedReply],
                                                                                    GenerationHandle]:
    """Thinks `thoughts` times at once on a shared prompt; all replies, and which of them speaks for the majority. heard: is
    told of what comes, for progress. A temperature of 0 would think the same thought every time.

    Raises:
        Busy: as Service.start.
    """
    wholes = [CollectedReply() for _ in range(thoughts)]
    async with service.start(served, replace(plan, params=replace(plan.params, n=thoughts)), name) as handle:
        async for deltas in handle:
            for delta in deltas:
                wholes[delta.index].add(delta)
            heard(deltas)
    return await asyncio.to_thread(tally, [whole.answer for whole in wholes]), wholes, handle
