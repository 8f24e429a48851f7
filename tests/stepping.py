"""Steps an engine by hand until a reply is whole."""

from collections.abc import Callable

from spoutnik.engine.llm import LLM
from spoutnik.generation.delta import CollectedReply, Delta
from spoutnik.generation.generation import Generation


def step_to_end(llm: LLM, generation: Generation, deltas: list[Delta], act: Callable[[Generation], object] | None = None,
                at: int = 5, advance_every: int = 1) -> list[CollectedReply]:
    """The replies of a generation whose deltas go to `deltas`. act(generation) happens once, after `at` steps; the generation
    looks at its tokens after every `advance_every` steps."""
    generation.start()
    steps = 0
    while not generation.done:
        assert steps < 2000
        if act is not None and steps == at:
            act(generation)
        llm.core.step()
        steps += 1
        if steps % advance_every == 0 or not llm.core.requests:
            generation.advance()
    assert not llm.core.requests and not llm.core.scheduler.unfinished
    replies = [CollectedReply() for _ in generation.choices]
    for delta in deltas:
        replies[delta.index].add(delta)
    return replies
