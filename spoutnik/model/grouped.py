"""Grouped matrix products: row blocks of x, each with its own expert's weights. N rows, E experts."""

import torch
from torch import Tensor


class _LoopedProducts(torch.autograd.Function):
    """The loop-over-experts twin of `torch._grouped_mm`, written into preallocated results.

    On CPU it is what runs: it needs no second layout of the weights, and its shapes are those that oneDNN has compiled.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        out = x.new_empty(x.shape[0], weight.shape[1])
        for rows, out_rows, w in zip(x.split(counts), out.split(counts), weight):
            torch.mm(rows, w.t(), out=out_rows)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        blocks = zip(x.split(ctx.counts), grad.split(ctx.counts), grad_x.split(ctx.counts), weight, grad_weight)
        for rows, grad_rows, grad_x_rows, w, grad_w in blocks:
            torch.mm(grad_rows, w, out=grad_x_rows)
            torch.mm(grad_rows.t(), rows, out=grad_w)
        return grad_x, grad_weight, None


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """x (N, in) sorted by expert, weight (E, out, in), counts (E,) rows of each expert; returns (N, out)."""
    weight = weight.to(x.dtype)
    if x.is_cuda and x.dtype == torch.bfloat16:
        offsets = counts.cumsum(0, dtype=torch.int32)
        return torch._grouped_mm(x, weight.transpose(1, 2), offs=offsets)
    return _LoopedProducts.apply(x, weight, tuple(counts.tolist()))
