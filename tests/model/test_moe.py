"""Router and experts against slow references written from the report's equations."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.model.grouped import grouped_linear
from spoutnik.model.moe import Experts, Layout, Router, RouterTrace, sequence_balance_loss
from spoutnik.model.packing import PackedSequences


def make_router(seed: int = 0, **changes) -> Router:
    router = Router(tiny.config(tiny.DEEPSEEK, **changes), "router")
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(seed))
    return router


def inputs(tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(tokens, 32, generator=torch.Generator().manual_seed(seed))


# Router

def test_the_bias_chooses_an_expert():
    router = make_router(n_group=1, topk_group=1)
    router.e_score_correction_bias[5] = 10.0
    experts, _ = router(inputs(50), None, None)
    assert (experts == 5).any(-1).all()


def test_the_bias_never_weighs():
    router = make_router(n_group=1, topk_group=1)
    router.e_score_correction_bias.copy_(torch.linspace(-2, 2, 8))
    x = inputs(50)
    experts, weights = router(x, None, None)
    chosen = F.linear(x, router.weight).sigmoid().gather(1, experts)
    torch.testing.assert_close(weights, 2.5 * chosen / chosen.sum(-1, keepdim=True))


@given(bias=st.lists(st.integers(-300, 300).map(lambda n: n / 30), min_size=8, max_size=8))
def test_experts_are_the_best_of_the_two_best_groups_whatever_the_bias(bias):
    """Token by token: a group's score is the sum of its two best (V3 section 2.1.2)."""
    router = make_router(n_group=4, topk_group=2)
    router.e_score_correction_bias.copy_(torch.tensor(bias))
    x = inputs(20)
    biased = (F.linear(x, router.weight).sigmoid() + router.e_score_correction_bias).tolist()
    experts, _ = router(x, None, None)
    for scores, chosen in zip(biased, experts.tolist(), strict=True):
        group_score = [sum(sorted(scores[2 * g:2 * g + 2])[-2:]) for g in range(4)]
        allowed = sorted(range(4), key=lambda g: -group_score[g])[:2]
        best = sorted((e for e in range(8) if e // 2 in allowed), key=lambda e: -scores[e])[:3]
        assert sorted(scores[e] for e in chosen) == sorted(scores[e] for e in best)


def test_a_masked_group_never_wins_even_where_all_biases_are_negative():
    router = make_router(n_group=4, topk_group=1, num_experts_per_tok=2)
    router.e_score_correction_bias.fill_(-5.0)
    experts, _ = router(inputs(200), None, None)
    assert (experts[:, 0] // 2 == experts[:, 1] // 2).all()


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_weights_sum_to_the_scaling_factor(factor):
    _, weights = make_router(routed_scaling_factor=factor)(inputs(30), None, None)
    torch.testing.assert_close(weights.sum(-1), torch.full((30,), factor))


def test_scores_that_all_vanish_give_finite_weights():
    router = make_router()
    torch.nn.init.constant_(router.weight, -100.0)
    _, weights = router(torch.ones(3, 32), None, None)
    assert weights.isfinite().all()


def test_routing_is_computed_in_float32_whatever_the_type_of_the_input():
    router = make_router()
    x = inputs(100).bfloat16()
    in_bfloat16, in_float32 = router(x, None, None), router(x.float(), None, None)
    assert torch.equal(in_bfloat16[0], in_float32[0]) and torch.equal(in_bfloat16[1], in_float32[1])


def test_loads_count_real_tokens_only():
    router, trace = make_router(), RouterTrace()
    packing = PackedSequences.of([30], pad=True)
    experts, _ = router(inputs(128), packing, trace)
    expected = [int((experts[:30] == e).sum()) for e in range(8)]
    assert trace.loads["router"].tolist() == expected and sum(expected) == 90


def test_the_bias_moves_by_the_sign_of_the_load_s_deviation():
    router = make_router()
    router.move_bias(torch.tensor([10, 20, 30, 20, 20, 20, 20, 20]), 0.01)
    torch.testing.assert_close(router.e_score_correction_bias, 0.01 * torch.tensor([1.0, 0, -1, 0, 0, 0, 0, 0]))


def test_moving_the_bias_evens_out_a_skewed_load():
    router = make_router(n_group=1, topk_group=1)
    x = inputs(400) + 12 * router.weight[0] / router.weight[0].norm() ** 2
    packing = PackedSequences.of([400])

    def load() -> torch.Tensor:
        trace = RouterTrace()
        router(x, packing, trace)
        return trace.loads["router"]

    assert load().max() > 2 * load().float().mean()
    for _ in range(300):
        router.move_bias(load(), 0.005)
    assert load().max() < 1.1 * load().float().mean()


# Balance loss

def balance_by_hand(scores, experts, lengths):
    """V3 eq. 17-20, one document and one expert at a time, averaged over documents."""
    losses, start = [], 0
    for length in lengths:
        s, chosen = scores[start:start + length], experts[start:start + length]
        total = 0.0
        for i in range(s.shape[1]):
            f = s.shape[1] / (chosen.shape[1] * length) * sum(i in row for row in chosen.tolist())
            p = sum(s[t, i] / s[t].sum() for t in range(length)) / length
            total = total + f * p
        losses.append(total)
        start += length
    return sum(losses) / len(losses)


def test_the_balance_loss_and_its_gradient_are_those_of_equations_17_to_20():
    lengths = [7, 1, 20]
    packing = PackedSequences.of(lengths, pad=True)
    scores = torch.rand(128, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    experts = scores.detach().topk(3).indices
    fast, slow = sequence_balance_loss(scores, experts, packing), balance_by_hand(scores, experts, lengths)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (fast, slow)))


def test_the_balance_loss_is_1_at_perfect_balance():
    experts = torch.tensor([[t % 8, (t + 1) % 8] for t in range(16)])
    loss = sequence_balance_loss(torch.full((16, 8), 0.3), experts, PackedSequences.of([8, 8]))
    torch.testing.assert_close(loss, torch.tensor(1.0))


def test_the_balance_loss_is_larger_where_one_expert_gets_all():
    scores = torch.full((10, 8), 0.01).index_fill(1, torch.tensor([0]), 1.0)
    loss = sequence_balance_loss(scores, torch.zeros(10, 1, dtype=torch.long), PackedSequences.of([10]))
    torch.testing.assert_close(loss, torch.tensor(8 * 1.0 / 1.07))


# Experts

def make_experts() -> Experts:
    experts = Experts(tiny.config(tiny.DEEPSEEK))
    generator = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return experts


@pytest.mark.parametrize("tokens, allowed", [(50, 8), (1, 8), (300, 8), (40, 3)],
                         ids=["some", "one token", "blocks of 64", "five experts without tokens"])
def test_grouped_experts_and_their_gradients_equal_the_plain_twin_s(tokens, allowed):
    experts = make_experts()
    generator = torch.Generator().manual_seed(tokens)
    chosen = torch.rand(tokens, allowed, generator=generator).topk(3).indices
    x = torch.randn(tokens, 32, generator=generator, requires_grad=True)
    weights = torch.rand(tokens, 3, generator=generator, requires_grad=True)
    fast, plain = experts(x, chosen, weights), experts.forward_plain(x, chosen, weights)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    upstream = torch.randn(fast.shape, generator=generator)
    inputs = [x, weights, *experts.parameters()]
    for a, b in zip(*(torch.autograd.grad(out, inputs, upstream) for out in (fast, plain)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_an_expert_without_tokens_has_no_gradient():
    experts = make_experts()
    chosen = torch.tensor([[0, 1, 2]] * 10)
    experts(inputs(10), chosen, torch.ones(10, 3)).sum().backward()
    assert experts.down_proj.grad[3:].abs().max() == 0
    assert experts.down_proj.grad[:3].abs().amax((1, 2)).min() > 0


@given(chosen=st.lists(st.lists(st.integers(0, 7), min_size=3, max_size=3, unique=True), min_size=1, max_size=60))
def test_the_layout_gives_every_choice_its_own_row_in_its_expert_s_block(chosen):
    layout = Layout.of(torch.tensor(chosen), 8, 16)
    ends = layout.counts.cumsum(0)
    block = torch.searchsorted(ends, layout.slots, right=True)
    assert block.tolist() == [e for row in chosen for e in row]
    assert len(set(layout.slots.tolist())) == len(layout.slots)
    assert layout.tokens[layout.slots].tolist() == [t for t in range(len(chosen)) for _ in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loop_equals_torch_s_grouped_product(dtype):
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([16, 0, 48, 32])
    x = torch.randn(96, 16, generator=generator).to(dtype).requires_grad_(True)
    w = torch.randn(4, 24, 16, generator=generator).to(dtype).requires_grad_(True)
    try:
        theirs = torch._grouped_mm(x, w.transpose(1, 2), offs=counts.cumsum(0, dtype=torch.int32))
    except RuntimeError as error:
        pytest.skip(f"this build of torch has no grouped product here: {error}")
    ours = grouped_linear(x, w, counts)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(ours.shape, generator=generator).to(dtype)
    for a, b in zip(*(torch.autograd.grad(out, [x, w], upstream) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)
