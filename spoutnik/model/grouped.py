"""Grouped matrix products: row blocks of x, each with its own expert's weights. N rows, E experts."""

import torch
from torch import Tensor

from spoutnik.native import operations


class _LoopedProducts(torch.autograd.Function):
    """The loop-over-experts twin of `torch._grouped_mm` and of our own kernel, written into preallocated results. It runs
    where neither does: in float32, and on processors that we have no kernel for."""

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
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        blocks = zip(x.split(ctx.counts), grad.split(ctx.counts), grad_x.split(ctx.counts), weight)
        for expert, (rows, grad_rows, grad_x_rows, w) in enumerate(blocks):
            torch.mm(grad_rows, w, out=grad_x_rows)
            if grad_weight is not None:
                torch.mm(grad_rows.t(), rows, out=grad_weight[expert])
        return grad_x, grad_weight, None


def row_multiple(x: Tensor, weight: Tensor, rows: int) -> int:
    """What blocks of x (., in) for weight (E, out, in) are best rounded up to: whole tiles for our kernel (8) and a GPU's
    (16), shapes that repeat for oneDNN, which compiles each new one (see packing.py)."""
    if operations.has_fast_matmul(x, weight):
        return 8
    return 64 if rows > 64 * len(weight) and not x.is_cuda else 16


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """x (N, in) sorted by expert, weight (E, out, in), counts (E,) rows of each expert; returns (N, out)."""
    weight = weight.to(x.dtype)
    if x.is_cuda and x.dtype == torch.bfloat16:
        offsets = counts.cumsum(0, dtype=torch.int32)
        return torch._grouped_mm(x, weight.transpose(1, 2), offs=offsets)
    if operations.has_fast_matmul(x, weight):
        return operations.grouped_matmul(x, weight, counts)
    return _LoopedProducts.apply(x, weight, tuple(counts.tolist()))
