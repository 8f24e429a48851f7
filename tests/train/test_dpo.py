"""Learning from pairs: what moves, what is repeated after a kill, what is refused."""

import pytest
import tiny
import torch

from spoutnik.errors import UserError
from spoutnik.model.lora import LoraConfig, adapter_state, add_lora
from spoutnik.train.dpo import DPOSettings, dpo, dpo_gradient, measured_pairs
from spoutnik.train.health import warnings_of
from spoutnik.train.loop import Checkpoints
from spoutnik.train.monitor import Monitor
from spoutnik.train.preferences import Pair, documents_of, reply_log_probs
from spoutnik.train.sft import trace_document

SETTINGS = {"epochs": 4, "tokens_per_step": 300, "learning_rate": 0.01, "micro_batch_tokens": 256, "optimizer": "adamw"}


def pairs_of(tokenizer, count=8) -> list[Pair]:
    """A short reply and a long one to each question."""
    return [Pair(*(trace_document({"prompt": f"What is {i}?", "thought": "", "answer": answer}, tokenizer)
                   for answer in (str(i), f"the sum of it is {i}, and the end"))) for i in range(count)]


def policy(base=tiny.QWEN, adapter=False):
    model = tiny.model(base, vocab_size=300, max_position_embeddings=256)
    return add_lora(model, LoraConfig(4, 8.0, 0.1), torch.Generator().manual_seed(1)) if adapter else model


def trained(folder, pairs, progress=tiny.silent, base=tiny.QWEN, adapter=False, **changes):
    model, monitor = policy(base, adapter), Monitor("preferred")
    log, cost = dpo(model, pairs, DPOSettings(**SETTINGS | changes), 0, "preferred", Checkpoints(folder, 0.0), progress,
                    monitor=monitor)
    return model, log, cost, monitor


def test_the_better_reply_becomes_the_likelier_one_and_the_start_is_the_reference(tokenizer, tmp_path):
    pairs = pairs_of(tokenizer)
    model, log, cost, monitor = trained(tmp_path, pairs)
    assert log[0]["loss"] == pytest.approx(0.693147, abs=1e-4) and log[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert log[-1]["loss"] < 0.3 and log[-1]["accuracy"] == 1 and log[-1]["margin"] > 1
    assert cost.tokens_trained == 4 * sum(len(document.ids) for document in documents_of(pairs))
    comparison = monitor.comparisons[-1]
    assert comparison.before == pytest.approx([0.693147] * 8) and comparison.is_better()
    before, after = (reply_log_probs(each, documents_of(pairs), 999) for each in (policy(), model))
    measured = measured_pairs(pairs, before, after, DPOSettings(**SETTINGS))
    assert measured["accuracy"] == 1 and measured["margin"] > 1 and measured["loss"] < 0.3
    assert measured["likelier"] > measured["likelier_before"]


def test_nll_keeps_the_better_reply_likely(tokenizer, tmp_path):
    pairs = pairs_of(tokenizer)
    changes = [trained(tmp_path / str(weight), pairs, nll_weight=weight)[1][-1]["chosen_change"] for weight in (0.0, 1.0)]
    assert changes[1] > changes[0] + 0.1


def test_prompts_get_no_gradient_and_the_split_into_micro_batches_changes_nothing(tokenizer):
    pairs, model = pairs_of(tokenizer, 5), policy(tiny.DEEPSEEK)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    references = reply_log_probs(model, documents_of(pairs), 999) + 0.3 * torch.arange(10)
    steps = [dpo_gradient(model, pairs, references, parameters, DPOSettings(**SETTINGS | {
        "nll_weight": 0.3, "balance_loss_alpha": alpha, "micro_batch_tokens": tokens}))[0]
        for alpha, tokens in ((0.0, 9999), (0.0, 100), (0.1, 9999))]
    for one, other in zip(steps[0].gradients, steps[1].gradients):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert steps[0].metrics == pytest.approx(steps[1].metrics, rel=1e-4)
    assert any(not torch.allclose(a, b) for a, b in zip(steps[0].gradients, steps[2].gradients))  # the experts' balance


def test_a_prompt_that_a_pair_shares_is_computed_once_and_the_gradient_is_the_same(tokenizer, monkeypatch):
    model = add_lora(policy(), LoraConfig(4, 8.0), torch.Generator().manual_seed(1))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    pairs, tokens, steps = pairs_of(tokenizer, 5), [], []
    monkeypatch.setattr(model, "hidden", lambda ids, *rest: tokens.append(len(ids)) or type(model).hidden(model, ids, *rest))
    for sharing in (True, False):
        monkeypatch.setattr("spoutnik.train.preferences.can_share_prefixes", lambda _, sharing=sharing: sharing)
        steps.append(dpo_gradient(model, pairs, torch.arange(10.0), parameters, DPOSettings(**SETTINGS))[0])
    for one, other in zip(steps[0].gradients, steps[1].gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    half = len(tokens) // 2
    assert sum(tokens[:half]) < 0.8 * sum(tokens[half:])


@pytest.mark.parametrize("adapter", [False, True], ids=["whole model", "adapter with dropout"])
def test_a_killed_stage_ends_with_the_same_bytes(tokenizer, tmp_path, adapter):
    def kill(done, total, tokens, note):
        if done == 3:
            raise KeyboardInterrupt

    pairs = pairs_of(tokenizer)
    straight, log, _, _ = trained(tmp_path / "a", pairs, adapter=adapter)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", pairs, kill, adapter=adapter)
    resumed, again, _, _ = trained(tmp_path / "b", pairs, adapter=adapter)
    states = [adapter_state(model) or model.state_dict() for model in (straight, resumed)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert [row["loss"] for row in again] == [row["loss"] for row in log]


def test_no_pair_that_fits_is_an_error(tmp_path):
    with pytest.raises(UserError, match="preferred: no pair fits the model's 256 positions"):
        trained(tmp_path, [])


def test_better_replies_that_become_unlikely_are_warned_of():
    rows = [{"step": i, "loss": 0.6, "chosen_change": -0.3 * i, "margin": 1.0, "grad_norm": 1.0} for i in range(8)]
    (finding,) = warnings_of(rows)
    assert "1.5 nats per token less likely" in finding.sentence and "nll_weight" in finding.sentence
    assert warnings_of([row | {"chosen_change": 0.1} for row in rows]) == []
