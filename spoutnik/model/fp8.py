"""FP8 weights as DeepSeek-V3 publishes them: e4m3 numbers, a float32 multiplier per block of 128 x 128 (V3, section 3.3.2).

Letters: O outputs, I inputs, E experts, T tokens, K experts per token, D hidden size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spoutnik.model.layers import swiglu
from spoutnik.model.layout import BLOCK


def dequantize(weight: Tensor, scale_inv: Tensor, out: Tensor) -> Tensor:
    """weight (O, I) float8_e4m3fn times its blocks' multipliers (ceil(O/128), ceil(I/128)), into `out` (O, I).

    `scale_inv` is multiplied, despite its name (docs/deepseek-pitfalls.md#scale_inv-is-multiplied); the last blocks may be
    smaller. Goes by rows of blocks: the whole never exists in float32.
    """
    columns = scale_inv.repeat_interleave(BLOCK, dim=1)[:, :weight.shape[1]]
    for rows, scales, into in zip(weight.split(BLOCK), columns, out.split(BLOCK)):
        into.copy_(rows.float() * scales)
    return out


class _Dequantized(nn.Module):
    """The parametrization of a weight held in 8 bits: reading `weight` gives it in the compute type."""

    def __init__(self, scale_inv: Tensor, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("scale_inv", scale_inv)
        self.dtype = dtype

    def forward(self, weight: Tensor) -> Tensor:
        return dequantize(weight, self.scale_inv, torch.empty(weight.shape, dtype=self.dtype, device=weight.device))


def keep(module: nn.Module, weight: Tensor, scale_inv: Tensor, dtype: torch.dtype) -> None:
    """Makes a linear map hold its weight in 8 bits: half of bfloat16's memory, a dequantization at each use, no training."""
    module.weight = nn.Parameter(weight, requires_grad=False)
    parametrize.register_parametrization(module, "weight", _Dequantized(scale_inv, dtype), unsafe=True)


class FP8Experts(nn.Module):
    """The routed experts of one layer in 8 bits, as the file holds them. Only chosen experts are dequantized."""

    def __init__(self, blocks: dict[str, list[tuple[Tensor, Tensor]]]):
        """blocks: gate_proj, up_proj (I, D) and down_proj (D, I) of each expert, each with its multipliers."""
        super().__init__()
        for name, pairs in blocks.items():
            weights, scales = zip(*pairs)
            self.register_buffer(name, torch.stack(weights))
            self.register_buffer(name + "_scale_inv", torch.stack(scales))

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """x (T, D), experts (T, K), weights (T, K) to (T, D)."""
        out = torch.zeros_like(x)
        for expert in experts.unique().tolist():
            rows, slots = (experts == expert).nonzero(as_tuple=True)
            gate, up, down = (self._weight(name, expert, x.dtype) for name in ("gate_proj", "up_proj", "down_proj"))
            y = F.linear(swiglu(F.linear(x[rows], torch.cat([gate, up]))), down)
            out.index_add_(0, rows, y * weights[rows, slots, None].to(y.dtype))
        return out

    def _weight(self, name: str, expert: int, dtype: torch.dtype) -> Tensor:
        weight = getattr(self, name)[expert]
        scale_inv = getattr(self, name + "_scale_inv")[expert]
        return dequantize(weight, scale_inv, torch.empty(weight.shape, dtype=dtype, device=weight.device))
