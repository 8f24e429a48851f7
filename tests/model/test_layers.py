"""The small parts against their definitions."""

import math

import pytest
import tiny
import torch

from spoutnik.model.layers import Linear, RMSNorm, SwiGLU, linear
from spoutnik.model.rope import rotary_table, rotate_halves, rotate_interleaved


def test_rms_norm_takes_its_statistics_in_float32():
    norm = RMSNorm(512, 1e-6)
    x = (torch.randn(64, 512, generator=torch.Generator().manual_seed(0)) * 30 + 100).bfloat16()
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    relative = ((norm(x).double() - exact) / exact).abs().max()
    assert relative < 2 ** -8  # the rounding of the result alone; statistics in bfloat16 would be off by more


def test_a_linear_map_computes_in_the_type_of_its_input_and_keeps_its_weights():
    layer = Linear(8, 4)
    out = layer(torch.ones(2, 8, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16 and layer.weight.dtype == torch.float32
    out.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_swiglu_is_down_of_silu_gate_times_up():
    generator = torch.Generator().manual_seed(0)
    block, x = SwiGLU(4, 6), torch.randn(3, 4, generator=generator)
    for weight in block.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    gate, up = x @ block.gate_proj.weight.T, x @ block.up_proj.weight.T
    expected = (gate / (1 + torch.exp(-gate)) * up) @ block.down_proj.weight.T
    torch.testing.assert_close(block(x), expected)


def test_interleaved_rotation_is_complex_multiplication_of_neighbours():
    config = tiny.config(tiny.DEEPSEEK, rope_scaling=None)
    x = torch.randn(10, 4, 8, generator=torch.Generator().manual_seed(0))
    angles = torch.outer(torch.arange(10.0), 10000.0 ** (-torch.arange(0, 8, 2) / 8))
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    expected = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous()) * turn)
    torch.testing.assert_close(rotate_interleaved(x, rotary_table(config, 10)), expected.flatten(-2))


def test_rotation_by_halves_pairs_i_with_i_plus_half():
    config = tiny.config(tiny.QWEN)
    x = torch.zeros(3, 1, 8)
    x[:, :, 1] = 1.0
    rotated = rotate_halves(x, rotary_table(config, 3))[2, 0]
    angle = 2 * 10000.0 ** (-2 / 8)
    expected = torch.zeros(8)
    expected[1], expected[5] = math.cos(angle), math.sin(angle)
    torch.testing.assert_close(rotated, expected)


def test_initial_weights_are_normal_with_the_residual_projections_smaller():
    model = tiny.model(tiny.DEEPSEEK, num_hidden_layers=2)
    model = type(model)(model.config)
    model.init_weights(torch.Generator().manual_seed(0))
    state = model.state_dict()
    assert abs(state["embed_tokens.weight"].std() / 0.2 - 1) < 0.1
    assert abs(state["layers.1.mlp.experts.down_proj"].std() / (0.2 / 2) - 1) < 0.1
    assert all((t == 1).all() for name, t in state.items() if "norm" in name)


def test_initial_weights_depend_on_the_seed_alone():
    first, same, other = (tiny.model(tiny.DEEPSEEK, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("bias", [None, "bias"], ids=["plain", "bias"])
def test_a_frozen_weight_of_a_narrower_type_is_not_kept_converted(bias):
    x, weight = torch.randn(6, 8, requires_grad=True), torch.randn(4, 8).bfloat16()
    bias, kept = None if bias is None else torch.randn(4).bfloat16(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = linear(x, weight, bias)
    expected = torch.nn.functional.linear(x, weight.float(), None if bias is None else bias.float())
    assert torch.equal(y, expected)
    assert [(tensor.dtype, tensor.data_ptr()) for tensor in kept] == [(torch.bfloat16, weight.data_ptr())]
    assert torch.equal(*(torch.autograd.grad(each.square().sum(), x)[0] for each in (y, expected)))
