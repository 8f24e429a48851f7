"""Replies: budgets, closing, steering; no thought leaks, no answer is empty, whatever the budgets."""

import random

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from stepping import step_to_end

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.generation.delta import CollectedReply, Delta
from spoutnik.generation.generation import Generation
from spoutnik.generation.options import ContextOverflow, GenerationOptions, applied, plan_chat
from spoutnik.generation.prefix_warmer import PrefixWarmer

MESSAGES = [{"role": "user", "content": "How many?"}]


@pytest.fixture(scope="module")
def llm():
    """Random weights that like neither the end of a thought nor that of a sentence more than anything else."""
    model = tiny.model(tiny.DEEPSEEK, vocab_size=300, max_position_embeddings=256)
    return LLM(model, tiny.tokenizer(), max_num_seqs=8, max_num_batched_tokens=64)


def run(llm, options, act=None, at=5, messages=MESSAGES, deltas=None):
    """The replies of one plan, stepped to their end; act(generation) happens once, after `at` steps."""
    plan = plan_chat(llm, messages, options)
    deltas = [] if deltas is None else deltas
    llm.core.max_multi_steps = llm.core.runner.max_multi_steps if act is None else 1
    generation = Generation(llm, "r", plan, deltas.extend)
    return plan, generation, step_to_end(llm, generation, deltas, act, at)


def check(llm, plan, generation, reply, choice):
    """What holds for every generation."""
    marks = {llm.tokenizer.think_id, llm.tokenizer.end_think_id}
    assert reply.answer and "\ufffd" not in reply.answer[:1]
    assert reply.generated <= plan.params.max_tokens
    assert len(plan.prompt) + len(choice.ids) <= llm.config.max_position_embeddings
    assert not choice.stream.thinking or choice.ids[-1] in marks
    assert "<think>" not in reply.answer + reply.thought and "</think>" not in reply.answer + reply.thought
    assert not any(token in marks for token in llm.tokenizer.encode(reply.answer))


@given(data=st.data())
def test_hostile_budgets_give_an_answer_and_leak_no_thought(data, llm):
    options = GenerationOptions(
        SamplingParams(temperature=data.draw(st.sampled_from([0.0, 1.0, 5.0])), top_p=1.0, seed=data.draw(st.integers(0, 99)),
                       n=data.draw(st.integers(1, 3)), stop=data.draw(st.sampled_from([None, ["e"], ["\n\n", "a "]]))),
        max_tokens=data.draw(st.one_of(st.none(), st.integers(1, 60))),
        max_thinking_tokens=data.draw(st.one_of(st.none(), st.integers(0, 60))),
        reasoning_effort=data.draw(st.sampled_from([None, "none", "minimal", "medium", "max"])),
        enable_thinking=data.draw(st.sampled_from([None, False])))
    act = data.draw(st.sampled_from([None, Generation.end_thought, lambda generation: generation.insert(" hm."),
                                     lambda generation: (generation.pause(), generation.resume())]))
    plan, generation, replies = run(llm, options, act, data.draw(st.integers(0, 20)))
    for reply, choice in zip(replies, generation.choices):
        if options.params.stop is None:
            check(llm, plan, generation, reply, choice)
        else:
            assert not any(stop in reply.answer for stop in options.params.stop)
        if not options.may_think:
            assert reply.thought == ""


def test_a_budget_is_kept_and_said(llm):
    plan, generation, (reply,) = run(llm, GenerationOptions(SamplingParams(seed=1), max_tokens=40, max_thinking_tokens=10))
    assert applied(plan)["max_thinking_tokens"] == 10
    assert reply.thought_tokens == 10 and "budget of 10 tokens" in str(reply.warnings[0])
    assert reply.thought.endswith("I have thought long enough; here is my answer.")


@pytest.mark.parametrize("n", [1, 3])
def test_a_seed_gives_the_same_reply_alone_and_in_company(llm, n):
    options = GenerationOptions(SamplingParams(seed=5, n=n, temperature=1.0), max_tokens=50, max_thinking_tokens=20)
    alone = [(w.thought, w.answer) for w in run(llm, options)[2]]
    others = [Generation(llm, f"other-{i}", plan_chat(llm, MESSAGES, GenerationOptions(SamplingParams(seed=i), max_tokens=60)),
                         lambda _: None)
              for i in range(5)]
    for other in others:
        other.start()
    plan = plan_chat(llm, MESSAGES, options)
    replies, deltas = [CollectedReply() for _ in range(n)], []
    generation = Generation(llm, "r", plan, deltas.extend)
    generation.start()
    while not (generation.done and all(other.done for other in others)):
        llm.core.step()
        for one in (generation, *others):
            one.advance()
    for delta in deltas:
        replies[delta.index].add(delta)
    assert [(w.thought, w.answer) for w in replies] == alone


def test_a_thought_is_ended_paused_and_added_to(llm):
    options = GenerationOptions(SamplingParams(seed=2, temperature=1.0), max_tokens=80)
    _, _, (ended,) = run(llm, options, Generation.end_thought, at=8)
    assert ended.thought.endswith("here is my answer.") and ended.thought_tokens < 60
    _, generation, (added,) = run(llm, options, lambda generation: generation.insert(" Check the units."), at=8)
    assert " Check the units." in added.thought
    assert "dropped_insertion" not in [warning.code for warning in added.warnings]
    for late in (lambda generation: generation.insert(" x" * llm.config.max_position_embeddings),  # no room for it
                 lambda generation: (generation.end_thought(), generation.insert(" Check the units."))):
        _, _, (dropped,) = run(llm, options, late, at=8)
        assert " x x" not in dropped.thought + dropped.answer and "units" not in dropped.thought + dropped.answer
        assert "dropped_insertion" in [warning.code for warning in dropped.warnings]
    seen = []

    def pause(generation):
        generation.pause()
        before = len(generation.choices[0].ids)
        for _ in range(5):
            llm.core.step()
            generation.advance()
        seen.append(len(generation.choices[0].ids) == before and not llm.core.requests)
        generation.resume()

    run(llm, options, pause, at=8)
    assert seen == [True]


class Monotone:
    """Forces one token for ever, as a model that goes in circles."""

    def __init__(self, ids):
        self.ids, self.done, self.place = ids, False, 0

    def feed(self, token):
        self.place += 1

    def apply(self, logits, generated):
        wanted = self.ids[self.place % len(self.ids)]
        logits[:] = float("-inf")
        logits[wanted] = 0.0


@pytest.mark.parametrize("detect", [True, False])
def test_circles_are_broken_and_said(llm, detect, monkeypatch):
    plain = Generation.start_segment

    def circling(self, choices, params, processors=()):
        thinking = choices[0].stream.thinking
        plain(self, choices, params, processors)
        if thinking:
            for choice in choices:
                choice.sample.logits_processors.append(Monotone([70, 71, 72]))

    monkeypatch.setattr(Generation, "start_segment", circling)
    options = GenerationOptions(SamplingParams(seed=1), max_tokens=180, max_thinking_tokens=150, detect_loops=detect)
    _, _, (reply,) = run(llm, options)
    assert reply.answer
    assert any(warning.code == "repetition" for warning in reply.warnings) == detect
    assert (reply.thought_tokens < 110) == detect


def test_an_abort_leaves_nothing_behind(llm):
    deltas: list[Delta] = []
    generation = Generation(llm, "r", plan_chat(llm, MESSAGES, GenerationOptions(SamplingParams(n=3))), deltas.extend)
    generation.start()
    for _ in range(4):
        llm.core.step()
        generation.advance()
    generation.abort()
    assert generation.done and not llm.core.requests and not llm.core.scheduler.unfinished
    assert {delta.finish_reason for delta in deltas if delta.finish_reason} == {"abort"}


def test_what_cannot_be_is_said(llm):
    plan = plan_chat(llm, MESSAGES, GenerationOptions(max_tokens=9999))
    assert plan.params.max_tokens == llm.max_model_len - len(plan.prompt) - len(plan.closing)
    assert "max_tokens = 9999" in plan.notes[0] and f"at most {plan.params.max_tokens} fit" in plan.notes[0]
    with pytest.raises(ContextOverflow, match="leaves no room"):
        plan_chat(llm, [{"role": "user", "content": "a" * 900}], GenerationOptions())
    with pytest.raises(UserError, match="reasoning_effort = 'much'"):
        plan_chat(llm, MESSAGES, GenerationOptions(reasoning_effort="much"))
    with pytest.raises(UserError, match="contradicts"):
        plan_chat(llm, MESSAGES, GenerationOptions(enable_thinking=True, max_thinking_tokens=0))


@given(data=st.data())
def test_counts_are_of_what_the_model_generated(data, llm):
    """Whatever was closed, inserted or paused: thought and the rest make the whole, and the thought keeps its budget."""
    params = SamplingParams(seed=data.draw(st.integers(0, 99)), temperature=1.0, n=data.draw(st.integers(1, 2)))
    options = GenerationOptions(params, max_tokens=data.draw(st.integers(2, 60)),
                                max_thinking_tokens=data.draw(st.integers(0, 40)))
    act = data.draw(st.sampled_from([None, Generation.end_thought, lambda generation: generation.insert(" Check the units."),
                                     lambda generation: (generation.pause(), generation.resume())]))
    plan, generation, replies = run(llm, options, act, data.draw(st.integers(0, 15)))
    marks = {llm.tokenizer.think_id, llm.tokenizer.end_think_id}
    for reply, choice in zip(replies, generation.choices):
        assert reply.thought_tokens <= min(plan.max_thinking_tokens, reply.generated)
        assert reply.generated <= len(choice.ids) + 1  # with the end of sentence
        assert len(llm.tokenizer.encode(reply.answer)) == 0 or reply.generated > reply.thought_tokens
        if act is None and not reply.warnings and plan.max_thinking_tokens:
            assert reply.thought_tokens == sum(token not in marks for token in choice.thought_ids)


def test_log_probabilities_are_the_answer_s(llm):
    deltas = []
    options = GenerationOptions(SamplingParams(seed=3, logprobs=2), max_tokens=40, max_thinking_tokens=10)
    _, generation, _ = run(llm, options, deltas=deltas)
    ids = [token for delta in deltas for token in delta.ids]
    assert ids and len(ids) == sum(len(delta.top_logprobs) for delta in deltas)
    assert generation.choices[0].ids[-len(ids):] == ids or generation.choices[0].ids[1 - len(ids):] == ids[:-1]


def test_the_next_turn_starts_from_the_cache(llm):
    talk = [{"role": "user", "content": "a long question " * 4}, {"role": "assistant", "content": "a long answer " * 4}]
    follow = [*talk, {"role": "user", "content": "And now?"}]
    warmer = PrefixWarmer(llm)
    warmer.add(talk, {})
    assert warmer.warm_next() and not warmer.warm_next()
    while llm.core.requests:
        llm.core.step()
    _, generation, _ = run(llm, GenerationOptions(SamplingParams(seed=1), max_tokens=8), messages=follow)
    shared = len(llm.tokenizer.chat_ids(talk, add_generation_prompt=False))
    assert generation.num_cached_tokens >= shared - 2 * 16 > 16


def test_random_plans_do_not_depend_on_torch_s_seed(llm):
    torch.manual_seed(0)
    random.seed(0)
    seeds = {plan_chat(llm, MESSAGES, GenerationOptions()).seed for _ in range(5)}
    assert len(seeds) == 5
