"""The reward model: a score per document, trained on pairs, blind to the thought."""

import random

import pytest
import tiny
import torch

from spoutnik.model.packing import PackedSequences
from spoutnik.tasks.general import sample_general
from spoutnik.tasks.preferences import preference_pairs
from spoutnik.train import reward_model as module
from spoutnik.train.loop import Checkpoints
from spoutnik.train.reward_model import (
    RewardModel,
    RewardModelSettings,
    accuracy_by_difference,
    best_constant,
    held_out_accuracy,
    score_answers,
    scored_document,
    train_reward_model,
)


def make(base=tiny.QWEN, score: bool = True) -> RewardModel:
    reward_model = RewardModel(tiny.model(base, vocab_size=300, max_position_embeddings=512))
    if score:
        torch.nn.init.normal_(reward_model.score.weight, generator=torch.Generator().manual_seed(0))
    return reward_model


def test_an_untrained_reward_model_prefers_nothing(tokenizer):
    assert score_answers(make(score=False), tokenizer, [("a", "b"), ("c", "d e f")]) == [0.5, 0.5]


def test_the_score_is_read_at_each_document_s_last_token():
    reward_model = make()
    a, b = tiny.tokens(12), tiny.tokens(20, seed=1)
    with torch.no_grad():
        together = reward_model(torch.cat([a, b]), PackedSequences.of([12, 20]))
        alone = [reward_model(ids, PackedSequences.of([len(ids)])) for ids in (a, b)]
        hidden = reward_model.backbone.hidden(a, PackedSequences.of([12]))[-1]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone[0][0], hidden @ reward_model.score.weight[0])


def test_scores_come_back_in_the_order_of_the_pairs_whatever_the_batches(tokenizer):
    stream = preference_pairs(random.Random(0), "train")
    pairs = [(p.prompt, chosen) for p, chosen, _ in (next(stream) for _ in range(9))]
    reward_model = make(tiny.DEEPSEEK)
    together, cut = score_answers(reward_model, tokenizer, pairs), score_answers(reward_model, tokenizer, pairs, 100)
    alone = [score_answers(reward_model, tokenizer, [pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-5) and cut == pytest.approx(alone, abs=1e-5)
    assert all(0 < score < 1 for score in alone) and len(set(alone)) == 9


def test_no_pairs_have_no_scores(tokenizer):
    assert score_answers(make(), tokenizer, []) == []


def test_what_is_scored_is_prompt_empty_thought_and_answer(tokenizer):
    ids = scored_document("Hi?", "Hello.", tokenizer).ids
    assert tokenizer.decode(ids, True) == (
        "<｜begin▁of▁sentence｜><｜User｜>Hi?<｜Assistant｜><think>\n\n</think>\n\nHello.<｜end▁of▁sentence｜>")


def test_the_loss_starts_at_ln_2_and_the_model_learns_to_prefer(tokenizer, tmp_path):
    reward_model = make(score=False)
    settings = RewardModelSettings(steps=80, tokens_per_step=1500, learning_rate=0.003, warmup=0, schedule="constant")
    log, cost = train_reward_model(reward_model, tokenizer, settings, 0, "rm", Checkpoints(tmp_path), tiny.silent)
    assert log[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert sum(row["loss"] for row in log[-20:]) / 20 < 0.62
    assert sum(row["accuracy"] for row in log[-20:]) / 20 > 0.62
    assert held_out_accuracy(reward_model, tokenizer, 1000, 0) > 0.68  # 0.735, its standard error 0.014
    assert cost.tokens_trained >= 80 * 1500


def test_the_gradient_does_not_depend_on_the_size_of_the_micro_batches(tokenizer, tmp_path):
    def weights(micro_batch_tokens):
        reward_model = make()
        settings = RewardModelSettings(steps=1, tokens_per_step=1200, learning_rate=0.01, optimizer="adamw",
                                       micro_batch_tokens=micro_batch_tokens, max_grad_norm=1e-3)
        log, _ = train_reward_model(reward_model, tokenizer, settings, 0, "rm", Checkpoints(tmp_path / str(micro_batch_tokens)),
                                    tiny.silent)
        return log[0]

    whole, cut = weights(8192), weights(250)
    assert cut["loss"] == pytest.approx(whole["loss"], rel=1e-5) and cut["accuracy"] == pytest.approx(whole["accuracy"])
    assert cut["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)


def test_a_scorer_that_reads_the_answer_alone_is_beaten_by_a_constant(tokenizer, monkeypatch):
    """The longest answer, whatever is asked: some constant is longer than right answers are on average. A scorer that reads the
    question as well has none."""
    kinds = ("capital", "opposite", "wish")
    monkeypatch.setattr(module, "score_answers", lambda model, tokenizer, pairs: [len(answer) / 100 for _, answer in pairs])
    found = best_constant(None, tokenizer, 0, kinds)
    assert found.score > found.right and found.score == pytest.approx(len(found.answer) / 100)
    right = {(p.prompt, p.content) for p in (sample_general(random.Random(i), "en", "train", kinds) for i in range(2000))}

    def reads_the_question(model, tokenizer, pairs):
        return [float(any(prompt == asked and content in answer for asked, content in right)) for prompt, answer in pairs]

    monkeypatch.setattr(module, "score_answers", reads_the_question)
    found = best_constant(None, tokenizer, 0, kinds)
    assert found.score == 0.0
    assert accuracy_by_difference(None, tokenizer, 20, 0).keys() == {"form", "relevance", "truth"}


def test_pairs_of_relevance_are_what_is_trained_on(tokenizer, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "preference_pairs", lambda rng, split, kinds, pairs: asked.append((set(kinds), pairs)) or
                        preference_pairs(rng, split, kinds, pairs))
    settings = RewardModelSettings(steps=1, tokens_per_step=200, learning_rate=0.003, pairs="relevance", wishes="any")
    train_reward_model(make(score=False), tokenizer, settings, 0, "rm", Checkpoints(tmp_path), tiny.silent)
    assert asked[0][1] == "relevance" and "any_wish" in asked[0][0]
