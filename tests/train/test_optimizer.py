"""Muon and AdamW as torch makes them, experts one by one, and a state that continues."""

import math

import pytest
import tiny
import torch

from spoutnik.train.optimizer import Optimizer, Schedule


def gradients(optimizer, seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=g) for p in optimizer.parameters]


def make(model, name="muon", max_grad_norm=1e9, weight_decay=0.1):
    return Optimizer(model, name, 0.02, weight_decay, max_grad_norm)


def test_muon_on_stacked_experts_equals_muon_on_each_matrix():
    model = tiny.model(tiny.DEEPSEEK)
    optimizer = make(model)
    name = "layers.1.mlp.experts.gate_up_proj"
    index = [n for n, _ in model.named_parameters()].index(name)
    matrices = [torch.nn.Parameter(m.clone()) for m in dict(model.named_parameters())[name].data]
    separate = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        step = gradients(optimizer, seed)
        for matrix, gradient in zip(matrices, step[index], strict=True):
            matrix.grad = gradient.clone()
        optimizer.step(step, 1.0)
        separate.step()
    stacked = dict(model.named_parameters())[name]
    torch.testing.assert_close(stacked.data, torch.stack(list(matrices)).data, rtol=0, atol=3e-3)  # theirs is in bfloat16


def plain_muon(matrix, gradients):
    """The same by the singular values: each iteration of Newton-Schulz is a polynomial of them."""
    matrix, momentum = matrix.double(), torch.zeros_like(matrix).double()
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient
        left, values, right = torch.linalg.svd(0.05 * gradient + 0.95 * momentum, full_matrices=False)
        values = values / values.norm()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        matrix = matrix * (1 - 0.02 * 0.1) - 0.02 * 0.2 * math.sqrt(max(matrix.shape)) * (left * values) @ right
    return matrix


def test_muon_equals_its_formula_on_wide_tall_and_stacked_matrices():
    model = tiny.model(tiny.DEEPSEEK)
    optimizer = make(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    steps = [gradients(optimizer, seed) for seed in range(3)]
    for step in steps:
        optimizer.step([gradient.clone() for gradient in step], 1.0)
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if any(parameter is p for part, of in optimizer.parts.items() if part != "adamw"
               for group in of.param_groups for p in group["params"]):
            matrices = before[name].reshape(-1, *parameter.shape[-2:])
            expected = [plain_muon(matrix, [step[index].reshape(matrices.shape)[i].double() for step in steps])
                        for i, matrix in enumerate(matrices)]
            torch.testing.assert_close(parameter.data, torch.stack(expected).view_as(parameter).float(), rtol=0, atol=2e-5)


def test_muon_takes_the_matrices_inside_and_adamw_the_rest():
    model = tiny.model(tiny.DEEPSEEK)
    optimizer = make(model)
    rest = {id(p) for group in optimizer.parts["adamw"].param_groups for p in group["params"]}
    by_adamw = {name for name, p in model.named_parameters() if id(p) in rest}
    matrices = {name for name in by_adamw if model.get_parameter(name).dim() >= 2}
    assert matrices == {"embed_tokens.weight", "lm_head.weight", "layers.1.mlp.gate.weight", "layers.2.mlp.gate.weight",
                        "mtp.mlp.gate.weight"}
    muon = [part for name, part in optimizer.parts.items() if name != "adamw"]
    assert all(p.dim() in (2, 3) for part in muon for group in part.param_groups for p in group["params"])


def test_adamw_is_torch_s_and_spares_norms_from_decay():
    model, twin = tiny.model(tiny.QWEN), tiny.model(tiny.QWEN)
    optimizer = make(model, "adamw")
    matrices, vectors = ([p for p in twin.parameters() if (p.dim() >= 2) == is_matrix] for is_matrix in (True, False))
    theirs = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                               lr=0.02, betas=(0.9, 0.95), eps=1e-10)
    for seed in range(3):
        for p, gradient in zip(twin.parameters(), gradients(optimizer, seed), strict=True):
            p.grad = gradient
        optimizer.step(gradients(optimizer, seed), 1.0)
        theirs.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_clipped_together_and_the_norm_before_is_returned():
    model = tiny.model(tiny.QWEN)
    optimizer = make(model, max_grad_norm=0.5)
    step = gradients(optimizer, 0)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in step))
    before = [g.clone() for g in step]
    assert optimizer.step(step, 1.0) == pytest.approx(norm, rel=1e-5)
    for a, b in zip(step, before, strict=True):
        torch.testing.assert_close(a, b * 0.5 / norm, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_saved_state_continues_to_the_bit(name):
    straight, broken = tiny.model(tiny.DEEPSEEK), tiny.model(tiny.DEEPSEEK)
    first, second = make(straight, name), make(broken, name)
    for seed in range(4):
        first.step(gradients(first, seed), 1 / (seed + 1))
        if seed == 2:  # the process dies here and another begins
            weights = {key: value.clone() for key, value in broken.state_dict().items()}
            state = {key: value.clone() for key, value in second.tensors().items()}
            broken = tiny.model(tiny.DEEPSEEK, seed=5)
            second = make(broken, name)
            broken.load_state_dict(weights)
            second.load_tensors(state)
        second.step(gradients(second, seed), 1 / (seed + 1))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), broken.parameters(), strict=True))
    assert all(torch.equal(first.tensors()[key], second.tensors()[key]) for key in first.tensors())


@pytest.mark.parametrize("shape", ["constant", "cosine", "wsd"])
def test_the_rate_warms_up_linearly_to_its_peak(shape):
    schedule = Schedule(shape, 100, 10)
    assert [schedule.factor(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert schedule.factor(10) == pytest.approx(1.0)


def test_the_constant_schedule_stays():
    assert {Schedule("constant", 100, 0).factor(step) for step in range(100)} == {1.0}


def test_the_cosine_falls_to_a_tenth():
    factors = [Schedule("cosine", 110, 10).factor(step) for step in range(10, 111)]
    assert factors == sorted(factors, reverse=True)
    assert factors[50] == pytest.approx(0.55) and factors[100] == pytest.approx(0.1)


def test_wsd_is_flat_until_its_last_fifth_then_falls_linearly():
    factors = [Schedule("wsd", 100, 10).factor(step) for step in range(101)]
    assert factors[10:81] == pytest.approx([1.0] * 71)
    assert factors[90] == pytest.approx(0.55) and factors[100] == pytest.approx(0.1)


@pytest.mark.parametrize("shape", ["constant", "cosine", "wsd"])
def test_a_stage_shorter_than_its_warm_up_has_finite_rates(shape):
    assert all(0 < Schedule(shape, 3, 10).factor(step) <= 1 for step in range(3))
