"""Rejection sampling keeps what is right, well formed, in the language, and said once."""

import random

import pytest
import tiny

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.catalog import find_tasks
from spoutnik.text.thought import Reply
from spoutnik.train import reject as module
from spoutnik.train.reject import RejectSettings, reject, select
from spoutnik.train.rollouts import GradedCompletion, grade, rollout_llm, sample_problems, thought_language


def judged(ids, accuracy=1.0, language=1.0) -> GradedCompletion:
    return GradedCompletion(CompletionOutput(0, "", list(ids)), Reply("t", "a", True, 1), accuracy, language)


def test_wrong_and_foreign_completions_are_left_out():
    right, wrong, foreign = judged([1]), judged([2], accuracy=0.0), judged([3], language=0.5)
    assert select([wrong, foreign, right], RejectSettings()) == [right]


def test_the_same_text_is_kept_once():
    first, again, other = judged([1, 2]), judged([1, 2]), judged([1, 3])
    kept = select([first, again, other], RejectSettings())
    assert len(kept) == 2 and kept[0] is first and kept[1] is other


def test_at_most_keep_per_prompt_stay_in_sampling_order():
    many = [judged([i]) for i in range(5)]
    assert select(many, RejectSettings(keep_per_prompt=3)) == many[:3]


@pytest.mark.parametrize("limit, kept", [(0.9, 1), (0.95, 0)])
def test_the_language_limit_is_inclusive(limit, kept):
    assert len(select([judged([1], language=0.9)], RejectSettings(min_language=limit))) == kept


def test_a_right_answer_without_its_form_is_wrong(tokenizer):
    problem = sample_problems(random.Random(0), [FAMILIES["arithmetic"]], 1, "train")[0]
    ids = tiny.completion_ids(tokenizer, "x", problem.answer)
    completions = [CompletionOutput(0, "", ids, finish_reason="stop"),
                   CompletionOutput(0, "", ids[:-1], finish_reason="length")]
    bare = CompletionOutput(0, "", [*tokenizer.encode(problem.answer), tokenizer.eos_id], finish_reason="stop")
    graded = grade([(problem, completion) for completion in [*completions, bare]], tokenizer)
    assert [each.accuracy for each in graded] == [1.0, 0.0, 0.0]


def test_kept_traces_say_where_they_come_from_and_the_cost_says_what_was_wasted(tokenizer, monkeypatch):
    def first_token_even(asked, tokenizer, rule, style="chat"):
        right = [bool(completion.token_ids) and completion.token_ids[0] % 2 == 0 for _, completion in asked]
        return [GradedCompletion(completion, Reply("thought", "answer", True, 1), float(good), 1.0)
                for (_, completion), good in zip(asked, right)]

    monkeypatch.setattr(module, "grade", first_token_even)
    policy = tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=512)
    heard = []
    settings, tasks = RejectSettings(prompts=10, samples=3, max_tokens=5), find_tasks(["arithmetic", "letters"])
    traces, cost, counts = reject(rollout_llm(policy, tokenizer), tokenizer, tasks, settings, 0, "rl",
                                  lambda done, total, tokens, note: heard.append((done, total)), 4)
    assert heard == [(4, 10), (8, 10), (10, 10)]
    assert counts["sampled"] == 30 and counts["kept"] == len(traces) and counts["kept_share"] == len(traces) / 30
    assert 0 < len(traces) < 20
    assert {row["source"] for row in traces} == {"rl"}
    assert {row["family"] for row in traces} == {"arithmetic", "letters"}
    assert set(traces[0]) == {"history", "prompt", "thought", "answer", "family", "level", "language", "source"}
    assert 0 < cost.tokens_wasted < cost.tokens_generated <= 150


@pytest.mark.parametrize("thought, language, lenient, strict", [
    ("", "en", 1, 0), (" \n", "fr", 1, 0), ("Подумаем: 2 + 2 = 4.", "en", 0, 0), ("让我想想", "fr", 0, 0),
    ("17 + 26 = 43.", "en", 1, 1), ("So the number is right.", "en", 1, 1),
    ("So the number is right.", "fr", 0, 0), ("Donc é, x.", "fr", 1, 1),
])
def test_the_strict_rule_credits_no_language_to_what_is_in_none(thought, language, lenient, strict):
    assert thought_language(thought, language, "lenient") == lenient
    assert thought_language(thought, language, "strict") == strict


def test_half_a_thought_in_another_script_is_half_in_the_language():
    assert thought_language("So the number is right. Это число верно, да.", "en", "strict") == pytest.approx(0.5, abs=0.1)
