"""The small parts every block shares. T tokens, D hidden size, I intermediate size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spoutnik.native import operations


class Linear(nn.Linear):
    """A linear map that computes in the type of its input: weights stay float32 for the optimizer, activations choose.

    Explicit on purpose: autocast would do the same, where nobody can see it.
    """

    is_packed = False  # whether `weight` is made at each use, of frozen numbers in 8 or 4 bits (engine/quantization)

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        self.adapter: nn.Module | None = None  # a LowRank (lora.py), or RowAdapters (row_adapters.py)

    def reset_parameters(self) -> None:
        """Nothing: weights come from Transformer.init_weights or from a file."""

    def forward(self, x: Tensor) -> Tensor:
        if self.adapter is None:
            return linear(x, self.weight, self.bias)
        y = self.adapter.mapped(x, self.weight)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight, (out, in), without reading it."""
        return self.out_features, self.in_features

    def first_row(self) -> Tensor:
        """Of the weight as the model's files hold it."""
        return self.weight[0]

    def effective_weight(self) -> Tensor:
        """The weight with the adapter, if there is one, in it."""
        return self.weight if self.adapter is None else self.adapter.merged(self.weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) times weight (out, in) transposed, plus bias, in the type of x."""
    is_frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
    if is_frozen and weight.element_size() < x.element_size() and x.requires_grad and torch.is_grad_enabled():
        return _FrozenProduct.apply(x, weight, bias)
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    if not operations.has_fast_matmul(x, weight):
        return F.linear(x, weight, bias)
    y = operations.linear(x, weight)
    return y if bias is None else y + bias


def linear_plus(x: Tensor, weight: Tensor, addend: Tensor) -> Tensor:
    """x (..., in) times weight (out, in) transposed, plus addend (..., out), in the type of x: the sum is rounded
    once, where `linear(x, weight) + addend` rounds twice. Twin: that in float32."""
    rows, weight, added = x.flatten(0, -2), weight.to(x.dtype), addend.flatten(0, -2)
    fast = not weight.requires_grad and operations.has_fast_matmul(rows, weight)  # ours is of frozen weights
    y = operations.linear_plus(rows, weight, added) if fast else torch.addmm(added, rows, weight.t())
    return y.view(addend.shape)


class _FrozenProduct(torch.autograd.Function):
    """`linear` with a frozen weight of a narrower type than x, converted in both directions: autograd would keep the converted
    copy, and so all of the base in the type of x. Twin: `linear` of the converted weight."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor):
        weight, = ctx.saved_tensors
        return grad @ weight.to(grad.dtype), None, None


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the statistics in float32 (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if operations.supports(x):
            return operations.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


def swiglu(gate_up: Tensor) -> Tensor:
    """gate_up (..., 2I), the gate's half first, to silu(gate) * up (..., I) (Shazeer 2020)."""
    return operations.swiglu(gate_up) if operations.supports(gate_up) else swiglu_plain(gate_up)


def swiglu_plain(gate_up: Tensor) -> Tensor:
    """The plain twin of `swiglu`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): the dense feed-forward block, and the shared experts as one."""

    def __init__(self, hidden_size: int, intermediate_size: int, bias: bool = False):
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias)
        self.up_proj = Linear(hidden_size, intermediate_size, bias)
        self.down_proj = Linear(intermediate_size, hidden_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        if any(part.adapter is not None or part.is_packed for part in (self.gate_proj, self.up_proj)):
            return self.down_proj(swiglu(torch.cat([self.gate_proj(x), self.up_proj(x)], dim=-1)))
        # One product instead of two.
        gate_up = torch.cat([self.gate_proj.weight, self.up_proj.weight])
        bias = None if self.gate_proj.bias is None else torch.cat([self.gate_proj.bias, self.up_proj.bias])
        return self.down_proj(swiglu(linear(x, gate_up, bias)))
