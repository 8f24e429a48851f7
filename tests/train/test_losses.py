"""The losses against hand numbers, autograd and slow references."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from spoutnik.train.losses import (
    PolicyLoss,
    group_advantages,
    has_variance,
    kl_penalty,
    mismatch_kl,
    policy_loss,
    preference_loss,
    token_log_probs,
    token_log_probs_plain,
    token_weights,
)


def problem(n: int, width: int = 16, vocabulary: int = 50):
    g = torch.Generator().manual_seed(n)
    return (torch.randn(n, width, generator=g, requires_grad=True),
            torch.randn(vocabulary, width, generator=g, requires_grad=True),
            torch.randint(0, vocabulary, (n,), generator=g), torch.randn(n, generator=g))


@pytest.mark.parametrize("n", [1, 64, 150])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chunked_log_probabilities_and_gradients_equal_the_plain_twin_s(n, temperature):
    hidden, weight, targets, upstream = problem(n)
    fast, _ = token_log_probs(hidden, weight, targets, temperature, chunk=64)
    plain = token_log_probs_plain(hidden, weight, targets, temperature)
    torch.testing.assert_close(fast, plain)
    for a, b in zip(*(torch.autograd.grad(out, [hidden, weight], upstream) for out in (fast, plain)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_log_probabilities_are_those_of_cross_entropy():
    hidden, weight, targets, _ = problem(30)
    expected = -torch.nn.functional.cross_entropy(hidden @ weight.T / 0.7, targets, reduction="none")
    torch.testing.assert_close(token_log_probs(hidden, weight, targets, 0.7)[0], expected)


def test_entropy_is_that_of_the_tempered_distribution():
    hidden, weight, targets, _ = problem(30)
    _, entropy = token_log_probs(hidden, weight, targets, 0.7)
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=hidden @ weight.T / 0.7).entropy())
    assert not entropy.requires_grad


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation's result has had."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_the_logits_of_a_batch_never_exist_at_once():
    hidden, weight, targets, upstream = problem(5000, width=4, vocabulary=300)
    with LargestTensor() as seen:
        log_probs, _ = token_log_probs(hidden, weight, targets)
        torch.autograd.backward(log_probs, upstream)
    assert seen.elements == 2048 * 300
    with LargestTensor() as plain:
        token_log_probs_plain(hidden, weight, targets)
    assert plain.elements == 5000 * 300  # the meter does see such tensors


def test_nothing_to_predict_is_no_error():
    hidden, weight, targets, _ = problem(0)
    log_probs, entropy = token_log_probs(hidden, weight, targets)
    assert log_probs.shape == entropy.shape == (0,)
    log_probs.sum().backward()
    assert weight.grad.abs().max() == 0


# Advantages

def test_advantages_are_rewards_minus_the_group_s_mean():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    expected = torch.tensor([[0.5, -0.5, -0.5, 0.5], [-0.25, -0.25, -0.25, 0.75]])
    torch.testing.assert_close(group_advantages(rewards, False), expected)


def test_normalised_advantages_are_divided_by_the_population_s_deviation():
    deviation = math.sqrt(3) / 4  # of one success in four
    torch.testing.assert_close(group_advantages(torch.tensor([[0.0, 0.0, 0.0, 1.0]]), True),
                               torch.tensor([[-0.25, -0.25, -0.25, 0.75]]) / deviation, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("std_normalisation", [True, False])
def test_a_group_of_equal_rewards_teaches_nothing(std_normalisation):
    rewards = torch.tensor([[0.1] * 8, [0.0] * 7 + [0.1]])
    assert has_variance(rewards).tolist() == [False, True]
    assert group_advantages(rewards, std_normalisation)[0].abs().max() < 0.05


# Policy loss

ON_POLICY = PolicyLoss()


def policy_gradient(log_probs, sampler, advantages, options=ON_POLICY, weights=None, reference=None):
    log_probs = log_probs.clone().requires_grad_(True)
    weights = torch.ones_like(sampler) if weights is None else weights
    loss, clipped = policy_loss(log_probs, sampler, advantages, weights, options, reference)
    return torch.autograd.grad(loss, log_probs)[0], loss.detach(), float(clipped)


def test_on_policy_the_gradient_is_reinforce_s():
    g = torch.Generator().manual_seed(0)
    log_probs, weights = -torch.rand(20, generator=g), torch.rand(20, generator=g)
    advantages = torch.randn(20, generator=g)
    gradient, _, clipped = policy_gradient(log_probs, log_probs, advantages, weights=weights)
    torch.testing.assert_close(gradient, -advantages * weights)
    assert clipped == 0


@pytest.mark.parametrize("ratio, advantage, expected", [
    (1.27, 1.0, -1.27), (1.29, 1.0, 0.0),  # clip-higher: the upper bound is 1.28
    (0.81, -1.0, 0.81), (0.79, -1.0, 0.0),
    (1.5, -1.0, 1.5), (0.5, 1.0, -0.5),  # moving back is never clipped
])
def test_clipping_stops_the_gradient_on_its_own_side_only(ratio, advantage, expected):
    sampler = torch.tensor([-1.0])
    gradient, loss, clipped = policy_gradient(sampler + math.log(ratio), sampler, torch.tensor([advantage]))
    torch.testing.assert_close(gradient, torch.tensor([expected]))
    bounded = min(max(ratio, 0.8), 1.28)
    assert loss.item() == pytest.approx(-min(ratio * advantage, bounded * advantage), rel=1e-5)
    assert clipped == (expected == 0)


def test_the_clipped_share_is_weighted():
    sampler = torch.zeros(2)
    _, _, clipped = policy_gradient(torch.tensor([0.0, 1.0]), sampler, torch.ones(2), weights=torch.tensor([3.0, 1.0]))
    assert clipped == 0.25


def test_the_kl_penalty_pulls_towards_the_reference():
    log_probs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -1.0])
    for estimator in ("k2", "k3"):
        gradient, _, _ = policy_gradient(log_probs, log_probs, torch.zeros(2), PolicyLoss(
            kl_coefficient=0.1, kl_estimator=estimator), reference=reference)
        assert gradient[0] > 0 > gradient[1]  # descending lowers the first, raises the second


# Token weights

@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_the_three_normalisations_are_those_of_their_papers(lengths):
    size, n = torch.tensor(lengths), len(lengths)
    values = torch.randn(n, generator=torch.Generator().manual_seed(0)).double()
    totals = values * size  # a completion whose tokens all lose the same
    loss = {how: float((token_weights(size, how, 50).double() * totals).sum())
            for how in ("token", "sequence", "constant")}
    assert loss["token"] == pytest.approx(float(totals.sum()) / sum(lengths), abs=1e-5)
    assert loss["sequence"] == pytest.approx(float(values.mean()), abs=1e-5)
    assert loss["constant"] == pytest.approx(float(totals.sum()) / (n * 50), abs=1e-5)


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_the_loss_is_the_same_in_one_batch_and_in_two(how):
    lengths = torch.tensor([3, 10, 7])
    weights = token_weights(lengths, how, 20).repeat_interleave(lengths)
    g = torch.Generator().manual_seed(0)
    log_probs, sampler, advantages = (torch.randn(20, generator=g) * 0.2 for _ in range(3))
    whole, _ = policy_loss(log_probs, sampler, advantages, weights, ON_POLICY)
    parts = [policy_loss(log_probs[part], sampler[part], advantages[part], weights[part], ON_POLICY)[0]
             for part in (slice(0, 13), slice(13, 20))]
    torch.testing.assert_close(sum(parts), whole)


# Estimators

@pytest.mark.parametrize("estimator", ["k2", "k3"])
@given(a=st.lists(st.integers(-800, 0), min_size=1, max_size=10))
def test_kl_estimates_are_never_negative_and_vanish_at_equality(estimator, a):
    log_probs = torch.tensor(a) / 80
    assert (kl_penalty(log_probs, log_probs.flip(0), estimator) >= 0).all()
    assert (kl_penalty(log_probs, log_probs, estimator) == 0).all()


def test_k3_is_unbiased_and_k2_has_the_right_gradient():
    logits = torch.tensor([0.3, -0.2, 1.0], dtype=torch.double, requires_grad=True)
    log_p, log_q = logits.log_softmax(-1), torch.tensor([0.5, 0.2, 0.3], dtype=torch.double).log()
    p = log_p.exp().detach()
    exact = (log_p.exp() * (log_p - log_q)).sum()
    torch.testing.assert_close((p * kl_penalty(log_p, log_q, "k3")).sum(), exact)
    # In the loss, an estimate's gradient is taken at fixed samples.
    gradient = torch.autograd.grad((p * kl_penalty(log_p, log_q, "k2")).sum(), logits, retain_graph=True)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(exact, logits)[0])


def test_the_mismatch_is_0_between_equals_and_estimates_the_kl_otherwise():
    log_probs = torch.tensor([-1.0, -0.5, -3.0])
    assert mismatch_kl(log_probs, log_probs) == 0
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    tokens = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)  # exactly as often as p says
    torch.testing.assert_close(mismatch_kl(p.log()[tokens], q.log()[tokens]), (p * (p / q).log()).sum())


def test_the_preference_loss_is_that_of_bradley_and_terry():
    loss = preference_loss(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
    expected = -(math.log(1 / (1 + math.exp(-1))) + math.log(1 / (1 + math.exp(2)))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert preference_loss(torch.tensor([500.0]), torch.tensor([-500.0])).item() == 0
    assert preference_loss(torch.tensor([-500.0]), torch.tensor([500.0])).item() == 1000


@pytest.mark.parametrize("n", [1, 300])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_frozen_head_s_log_probabilities_gradients_and_entropies_equal_the_plain_twin_s(n, temperature, dtype):
    hidden, weight, targets, upstream = problem(n)
    hidden, weight = hidden.detach().to(dtype).requires_grad_(True), weight.detach()
    fast, entropy = token_log_probs(hidden, weight, targets, temperature)
    plain = token_log_probs_plain(hidden, weight, targets, temperature)
    tolerance = {"atol": 1e-4, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}
    torch.testing.assert_close(fast, plain, **tolerance)
    grads = [torch.autograd.grad(out, hidden, upstream)[0] for out in (fast, plain)]
    torch.testing.assert_close(*grads, **tolerance)
    torch.testing.assert_close(entropy, token_log_probs(hidden.detach(), weight, targets, temperature)[1], **tolerance)
    assert not entropy.requires_grad
