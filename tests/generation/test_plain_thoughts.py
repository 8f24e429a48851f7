"""Replies of a model whose marks of thought are plain text: the rules of those whose marks are tokens."""

import plain_marks
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.delta import CollectedReply
from spoutnik.generation.generation import Generation
from spoutnik.generation.grammar import structured_output
from spoutnik.generation.nonempty_answer import NonemptyAnswerProcessor
from spoutnik.generation.options import GenerationOptions, plan_chat
from spoutnik.generation.tools.tool_set import ToolSet

MESSAGES = [{"role": "user", "content": "How many?"}]
POSITIONS = 320


def make_llm(template):
    tokenizer = plain_marks.tokenizer(template)
    return LLM(tiny.model(tiny.QWEN, vocab_size=340, max_position_embeddings=POSITIONS), tokenizer, max_num_seqs=8,
               eos_token_ids=tokenizer.eos_ids)


@pytest.fixture(scope="module")
def opening():
    """Its template opens the thought."""
    return make_llm(plain_marks.OPENING)


@pytest.fixture(scope="module")
def closed():
    """Its template does not: the model may."""
    return make_llm(plain_marks.CHATML)


class Wanted:
    """Has the model write these ids, in all its segments, and then end; what others forbid is not written."""

    done = False

    def __init__(self, ids, ends, say=None):
        self.ids, self.ends = list(ids), ends

    def feed(self, token):
        if self.ids and token == self.ids[0]:
            del self.ids[0]

    def apply(self, logits, num_generated):
        wanted = self.ids[0] if self.ids else self.ends
        if logits[wanted].isfinite():
            logits[wanted] += 1e4


def run(llm, options, text=None, act=None, at=5, advance_every=1, name="r"):
    """(plan, generation, replies, the deltas). text: what the model wants to write."""
    plan, deltas = plan_chat(llm, MESSAGES, options), []
    generation = Generation(llm, name, plan, deltas.extend)
    if text is not None:
        start, left = generation.start_segment, {}

        def start_wanted(choices, params, processors=()):
            start(choices, params, processors)
            for choice in choices:
                ids = llm.tokenizer.encode(text) if isinstance(text, str) else text
                wanted = left.setdefault(choice.index, Wanted(ids, llm.tokenizer.eos_id))
                # What was generated and left out is to be written again; what we inserted was not its own.
                own = [token for token in choice.ids if choice.index not in inserted(choice, plan)]
                wanted.ids = ids[len(own):] if own == ids[:len(own)] else wanted.ids
                choice.sample.logits_processors.append(wanted)

        generation.start_segment = start_wanted
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
    replies = [CollectedReply() for _ in generation.choices]
    for delta in deltas:
        replies[delta.index].add(delta)
    assert not llm.core.requests and not llm.core.scheduler.unfinished
    return plan, generation, replies, deltas


def inserted(choice, plan):
    return ()
