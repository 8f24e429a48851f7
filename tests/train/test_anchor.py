"""The anchor: its loss against one written out, its teacher, and that its snippets depend on seed and step alone."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from spoutnik.errors import UserError
from spoutnik.model.adapter_switches import adapters_off
from spoutnik.model.lora import LoraConfig, adapters_of, add_lora
from spoutnik.model.transformer import Transformer
from spoutnik.train.anchor import Anchor, AnchorSettings
from spoutnik.train.kl import kl_to_base, kl_to_base_plain
from spoutnik.train.loop import Gradient

TEXTS = [tiny.tokens(40, seed=1).tolist(), tiny.tokens(7, seed=2).tolist(), tiny.tokens(90, seed=3).tolist()]


def adapted(base=tiny.LLAMA, dora: bool = False) -> Transformer:
    """A model whose adapters have learned something."""
    model = add_lora(tiny.model(base), LoraConfig(4, 8.0, use_dora=dora), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in adapters_of(model).values():
            part.lora_B.normal_(0, 0.3, generator=generator)
    return model


def anchor(base=None, **settings) -> Anchor:
    return Anchor(AnchorSettings(**{"snippets": 3, "tokens": 16} | settings), TEXTS, 5, "mine", base)


def states(seed: int, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(37, 16, generator=generator).to(dtype), torch.randn(50, 16, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_divergence_and_its_gradients_are_those_of_the_plain_twin_and_of_torch(dtype):
    (hidden, head), (base_hidden, base_head) = states(0, dtype), states(1, dtype)
    hidden.requires_grad_(True), head.requires_grad_(True)
    results = []
    for compute in (lambda *given: kl_to_base(*given, chunk=10), kl_to_base_plain):
        kl = compute(hidden, head, base_hidden, base_head)
        results.append((kl.detach(), *torch.autograd.grad(3 * kl, (hidden, head))))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for ours, plain in zip(*results):
        torch.testing.assert_close(ours, plain, **tolerance)
    log_p = [F.linear(h.float(), w.to(dtype).float()).log_softmax(-1) for h, w in ((hidden, head), (base_hidden, base_head))]
    by_torch = F.kl_div(*log_p, reduction="sum", log_target=True).detach()
    torch.testing.assert_close(results[0][0], by_torch, rtol=1e-4, atol=1e-4)


def test_of_a_shared_head_only_the_policy_s_use_is_learned_and_a_frozen_one_costs_nothing():
    (hidden, head), (base_hidden, _) = states(0), states(1)
    hidden.requires_grad_(True), head.requires_grad_(True)
    grads = torch.autograd.grad(kl_to_base(hidden, head, base_hidden, head), (hidden, head))
    plain = torch.autograd.grad(kl_to_base_plain(hidden, head, base_hidden, head), (hidden, head))
    for ours, expected in zip(grads, plain):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    kl = kl_to_base(hidden, head.detach(), base_hidden, head.detach())
    assert kl.grad_fn.next_functions[1][0] is None
    torch.testing.assert_close(torch.autograd.grad(kl, hidden)[0], grads[0])


@pytest.mark.parametrize("base", [tiny.LLAMA, tiny.DEEPSEEK], ids=["llama", "deepseek_v3"])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_with_adapters_off_a_model_computes_what_its_base_does(base, dora):
    model, ids = adapted(base, dora), tiny.tokens(2, 20, seed=4)
    with adapters_off():
        torch.testing.assert_close(model(ids), tiny.model(base)(ids))
    assert (model(ids) - tiny.model(base)(ids)).abs().max() > 0.1


def test_the_gradient_is_that_of_the_weighted_mean_divergence_over_the_snippets_one_by_one():
    model, base = adapted(), tiny.model(tiny.LLAMA)
    parameters = [p for p in model.parameters() if p.requires_grad]
    step = anchor(weight=2.0).gradient(model, parameters, step=3)
    total, tokens = torch.zeros(()), 0
    for ids in anchor().snippets(3):
        log_p, base_log_p = (each(torch.tensor([ids])).log_softmax(-1) for each in (model, base))
        total, tokens = total + F.kl_div(log_p, base_log_p, reduction="sum", log_target=True), tokens + len(ids)
    assert step.metrics["anchor_kl"] == pytest.approx(float(total.detach()) / tokens, rel=1e-4) and tokens == 48
    for ours, expected in zip(step.gradients, torch.autograd.grad(2.0 * total / tokens, parameters), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


def test_full_training_is_held_to_a_frozen_copy_and_costs_nothing_before_it_moves():
    model, base = tiny.model(tiny.DEEPSEEK), tiny.model(tiny.DEEPSEEK).requires_grad_(False)
    parameters = list(model.parameters())
    assert anchor(base).gradient(model, parameters, 0).metrics["anchor_kl"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        model.embed_tokens.weight += 0.1
    moved = anchor(base).gradient(model, parameters, 0)
    assert moved.metrics["anchor_kl"] > 1e-3 and len(moved.gradients) == len(parameters)
    difference = (model.embed_tokens.weight - base.embed_tokens.weight).detach()
    assert float(difference.min()) > 0.05 and not moved.loads


def test_following_the_gradient_brings_the_model_back_to_its_base():
    model = adapted()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, values = torch.optim.Adam(parameters, lr=0.02), []
    for step in range(25):
        gradient = anchor().gradient(model, parameters, step)
        values.append(gradient.metrics["anchor_kl"])
        for parameter, grad in zip(parameters, gradient.gradients):
            parameter.grad = grad
        optimizer.step()
    assert sum(values[-5:]) < 0.6 * sum(values[:5])


def test_a_step_that_taught_nothing_is_not_anchored_and_others_get_the_sum():
    model = adapted()
    parameters = [p for p in model.parameters() if p.requires_grad]
    nothing, metrics = Gradient([]), {"loss": 0.0}
    anchor().add_to(nothing, metrics, model, parameters, 0)
    assert not nothing.gradients and metrics == {"loss": 0.0}
    gradient = Gradient([torch.ones_like(p) for p in parameters])
    anchor().add_to(gradient, metrics, model, parameters, 0)
    alone = anchor().gradient(model, parameters, 0)
    assert metrics == {"loss": 0.0} | alone.metrics
    for summed, own in zip(gradient.gradients, alone.gradients):
        torch.testing.assert_close(summed, own + 1)


def test_snippets_depend_on_seed_stage_and_step_and_lie_in_one_text():
    assert anchor().snippets(3) == anchor().snippets(3) != anchor().snippets(4)
    others = [Anchor(AnchorSettings(snippets=3, tokens=16), TEXTS, seed, stage).snippets(3)
              for seed, stage in ((6, "mine"), (5, "other"))]
    assert anchor().snippets(3) not in others
    inside = {tuple(text[i:i + 16]) for text in TEXTS for i in range(max(1, len(text) - 15))}
    seen = {tuple(ids) for step in range(200) for ids in anchor().snippets(step)}
    assert seen <= inside and len(seen) > 80 and tuple(TEXTS[1]) in seen  # the short text as a whole


def test_texts_shorter_than_one_step_s_snippets_are_refused():
    with pytest.raises(UserError, match="mine: anchor: the shipped sample holds 137 tokens, fewer .* .3 x 64"):
        anchor(tokens=64).snippets(0)
