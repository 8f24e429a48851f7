"""Several replies to one question, and the answer that most of them come to (self-consistency, Wang et al. 2022)."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spoutnik.generation.delta import CollectedReply, Delta, GenerationWarning
from spoutnik.generation.final_answer import MAX_SHORT, final_answer
from spoutnik.generation.service import GenerationHandle
from spoutnik.tasks.maths import equal

MAX_SECONDS = 15.0  # of comparisons in one vote


@dataclass
class VoteResult:
    """index: the reply that speaks for the majority, or for the first of equal ones. agreement: its votes as a share of all
    replies; those that came to no finished answer have no vote, and agree with nobody. runners_up: what others came to, (an
    answer in full, votes), most votes first. votes: how many replies had one."""

    index: int
    agreement: float
    runners_up: list[tuple[str, int]]
    votes: int = 0

    @property
    def tied(self) -> bool:
        return bool(self.runners_up) and self.votes == self.runners_up[0][1] + sum(count for _, count in self.runners_up)


class Agreement:
    """Do two final answers agree, as texts or as mathematics, by the function that grades answers everywhere? After MAX_SECONDS
    of comparisons in one vote as texts alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._deadline = clock, clock() + MAX_SECONDS

    def __call__(self, one: str, other: str) -> bool:
        if one == other:
            return True
        return max(len(one), len(other)) <= MAX_SHORT and self._clock() <= self._deadline and equal(one, other)


def tally(answers: Sequence[str]) -> VoteResult:
    """The largest group of answers that agree; the earliest of equal ones. Empty answers have no vote. It may take seconds: not
    for the event loop."""
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
                      [(answers[group[0]], len(group)) for group in groups[1:]], sum(map(len, groups)))


def tally_replies(replies: Sequence[CollectedReply]) -> VoteResult:
    """The vote of those that finished: what was cut off, stopped or failed has no vote, however many came to the same. Where
    nothing finished, the first that began an answer is shown, with a warning."""
    result = tally([reply.answer if reply.finish_reason == "stop" else "" for reply in replies])
    if not result.votes:
        result.index = next((index for index, reply in enumerate(replies) if reply.answer.strip()), 0)
        replies[result.index].warnings.append(GenerationWarning("unfinished_vote", len(replies)))
    elif result.tied:
        replies[result.index].warnings.append(GenerationWarning("tied_vote", result.runners_up[0][1]))
    return result


async def vote(handle: GenerationHandle, on_deltas: Callable[[list[Delta]], None]) -> VoteResult:
    """Runs a generation of several choices (GenerationPlan.with_n) to its end: which of handle.replies speaks for the majority?
    on_deltas: called with what comes, for progress; what it raises ends the vote."""
    async with handle:
        async for deltas in handle:
            on_deltas(deltas)
    return await asyncio.to_thread(tally_replies, handle.replies)
