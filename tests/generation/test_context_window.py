"""Conversations that outgrow the context: whole turns go, the oldest first; the system prompt and the question stay."""

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.engine.llm import LLM
from spoutnik.generation.context_window import plan_within_window
from spoutnik.generation.options import ContextOverflow, GenerationOptions, plan_chat

POSITIONS = 512
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def llm():
    return LLM(tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=POSITIONS), tiny.tokenizer(), max_num_seqs=1)


def turn(number, length=10):
    return [{"role": "user", "content": f"question {number} " + "x" * length},
            {"role": "assistant", "content": f"answer {number}"}]


def conversation(*lengths, question="And now?"):
    return [SYSTEM, *(message for number, length in enumerate(lengths) for message in turn(number, length)),
            {"role": "user", "content": question}]


@given(lengths=st.lists(st.integers(0, 600), max_size=8), left_out=st.integers(0, 9),
       max_tokens=st.one_of(st.none(), st.integers(1, 400)))
def test_whole_turns_go_and_the_last_question_stays(llm, lengths, left_out, max_tokens):
    messages, options = conversation(*lengths), GenerationOptions(max_tokens=max_tokens)
    window = plan_within_window(llm, messages, options, left_out)
    assert min(left_out, len(lengths)) <= window.left_out <= len(lengths)
    assert window.messages == [SYSTEM, *messages[1 + 2 * window.left_out:]]
    assert window.plan.prompt == plan_chat(llm, window.messages, options).prompt
    assert len(window.plan.prompt) + window.plan.params.max_tokens <= POSITIONS


def test_what_fits_stays_as_it_is(llm):
    messages = conversation(10, 10)
    assert plan_within_window(llm, messages, GenerationOptions()).messages == messages
    assert plan_within_window(llm, messages[1:], GenerationOptions()).messages == messages[1:]


def test_the_start_stays_for_some_turns_once_questions_are_left_out(llm):
    """So that the prompt's beginning is found in the cache."""
    messages, counts = [], []
    for number in range(40):
        messages += turn(number, 40)[:1]
        counts.append(plan_within_window(llm, messages, GenerationOptions(), counts[-1] if counts else 0).left_out)
        messages += turn(number)[1:]
    changes = sum(before != after for before, after in zip(counts, counts[1:]))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] > 30
    assert changes < 20
    prompt = plan_within_window(llm, messages, GenerationOptions(), counts[-1]).plan.prompt
    assert POSITIONS // 4 < len(prompt) <= POSITIONS * 3 // 4


def test_a_question_that_is_too_long_by_itself_is_refused(llm):
    for messages in (conversation(10, 10, question="y" * 900), [{"role": "user", "content": "y" * 900}]):
        with pytest.raises(ContextOverflow, match="leaves no room"):
            plan_within_window(llm, messages, GenerationOptions())


def test_a_long_question_takes_all_the_room_it_needs(llm):
    window = plan_within_window(llm, conversation(50, 50, 50, question="y" * 400), GenerationOptions())
    assert window.left_out == 3 and window.plan.params.max_tokens > 0
