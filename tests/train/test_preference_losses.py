"""The losses of preferences: by hand, and as TRL computes them."""

import json
from math import exp, log
from pathlib import Path

import formula_model
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.model.lora import LoraConfig, add_lora
from spoutnik.train.dpo import DPOSettings, dpo_gradient
from spoutnik.train.kto import KTOSettings, kto_gradient, mismatched
from spoutnik.train.preference_losses import balanced_weights, chosen_nll, dpo_losses, kto_losses, kto_reference
from spoutnik.train.preferences import documents_of, reply_log_probs

# What TRL 1.16 (with PEFT 0.21, transformers 5.23) computed of the models and replies of tests/formula_model.py, in float32:
# benchmarks/preference_parity.py --record wrote it.
TRL = json.loads(Path(__file__).with_name("trl_preferences.json").read_text())
POSITIONS = formula_model.CONFIG["max_position_embeddings"]


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_dpo_by_hand():
    losses = dpo_losses(torch.tensor([2.0, -1.0, 0.0]), torch.tensor([-1.0, 3.0, 0.0]), beta=0.5)
    torch.testing.assert_close(losses, torch.tensor([-log(sigmoid(1.5)), -log(sigmoid(-2.0)), log(2)]))


def test_label_smoothing_takes_a_share_of_pairs_the_other_way_round():
    chosen, rejected = torch.tensor([2.0]), torch.tensor([-1.0])
    right, wrong = dpo_losses(chosen, rejected, 0.5), dpo_losses(rejected, chosen, 0.5)
    torch.testing.assert_close(dpo_losses(chosen, rejected, 0.5, 0.2), 0.8 * right + 0.2 * wrong)


def test_losses_far_from_the_reference_are_finite():
    assert dpo_losses(torch.tensor([-9e4]), torch.tensor([9e4]), 0.1).item() == pytest.approx(18_000)
    assert kto_losses(torch.tensor([-9e4, 9e4]), torch.tensor([True, False]), torch.tensor(0.0), 0.1, 1, 2).tolist() == [1, 2]


def test_kto_by_hand():
    losses = kto_losses(torch.tensor([2.0, 2.0, -1.0]), torch.tensor([True, False, False]), torch.tensor(0.5), 0.4, 1.2, 0.8)
    torch.testing.assert_close(losses, torch.tensor(
        [1.2 * (1 - sigmoid(0.4 * 1.5)), 0.8 * (1 - sigmoid(0.4 * -1.5)), 0.8 * (1 - sigmoid(0.4 * 1.5))]))


def test_the_reference_point_is_a_mean_that_is_not_negative_and_has_no_gradient():
    ratios = torch.tensor([1.0, -0.5], requires_grad=True)
    assert kto_reference(ratios).item() == 0.25 and not kto_reference(ratios).requires_grad
    assert kto_reference(-ratios).item() == 0


def test_the_nll_is_one_mean_over_all_tokens():
    assert chosen_nll(torch.tensor([-3.0, -9.0]), 6).item() == 2.0


@pytest.mark.parametrize("counts, given, expected", [
    ((100, 100), (None, None), (1, 1)), ((120, 100), (None, None), (1, 1)), ((100, 300), (None, None), (3, 1)),
    ((400, 100), (None, None), (1, 3)), ((100, 100), (2.0, None), (2, 1.5)), ((100, 100), (None, 2.0), (2, 2)),
    ((400, 100), (1.0, 1.0), (1, 1))], ids=range(7))
def test_weights_balance_good_and_bad_replies(counts, given, expected):
    weights = balanced_weights(*counts, *given)
    assert (weights.desirable, weights.undesirable) == pytest.approx(expected)


@given(good=st.integers(1, 10 ** 6), bad=st.integers(1, 10 ** 6))
def test_weights_that_are_not_given_are_balanced(good, bad):
    weights = balanced_weights(good, bad)
    assert 1 - 1e-9 <= weights.ratio <= 4 / 3 + 1e-9 and min(weights.desirable, weights.undesirable) == 1
    assert f"{good:,} good replies" in weights.sentence()


@pytest.mark.parametrize("split", [10_000, 12], ids=["one batch", "micro-batches"])
@pytest.mark.parametrize("case", TRL)
def test_losses_rewards_and_gradients_are_trls(case, split):
    name, trained = case.split(", ")
    reference, policy = formula_model.model(0), formula_model.model(0 if trained == "adapter" else -1)
    if trained == "adapter":
        add_lora(policy, LoraConfig(2, 4.0), torch.Generator().manual_seed(0))
        formula_model.fill_adapters(policy)
    named = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    examples = formula_model.pairs() if name.startswith("DPO") else formula_model.thumbs()
    references = reply_log_probs(reference, documents_of(examples), split)
    options = formula_model.CASES[name] | {"learning_rate": 0.1, "micro_batch_tokens": split}
    if name.startswith("DPO"):
        step, _ = dpo_gradient(policy, examples, references, list(named.values()), DPOSettings(**options))
    else:
        others, settings = mismatched(examples, POSITIONS), KTOSettings(**options)
        kl = kto_reference(reply_log_probs(policy, others, split) - reply_log_probs(reference, others, split))
        step, _ = kto_gradient(policy, examples, references, kl, list(named.values()), settings,
                               settings.weights_of(examples))
    ours = formula_model.numbers(step.metrics, dict(zip(named, step.gradients)))
    assert ours.pop("gradient") == pytest.approx(TRL[case]["gradient"], rel=1e-4, abs=5e-6)
    assert ours == pytest.approx({key: value for key, value in TRL[case].items() if key != "gradient"}, rel=1e-4, abs=5e-6)
