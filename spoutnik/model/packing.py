"""Documents of mixed length side by side in one flat stream of tokens, without padding.

Every layer but attention works on the flat (T, ...) stream. Attention must not cross documents: here it gathers the
documents into a few rectangles of similar length and runs causal attention in each. Padding sits at the end of a
rectangle's rows, where causal masking already hides it, so no mask is ever built.

Shapes repeat on purpose: the stream is filled up to a multiple of 128, rectangles come in few sizes. oneDNN compiles a
kernel for every new shape, which takes ten times as long as running it (docs/results.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Up to this length plain products beat the fused kernel on a CPU, whose backward pass is made for long rows: 7 times at 50
# to 100 tokens (docs/results.md).
SHORT = 192

# A rectangle's shortest row may leave this share of it empty; below, a new rectangle starts.
MIN_FILL = 0.7
STREAM_MULTIPLE = 128
_ROWS = (32, 16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Packing:
    """Where the documents lie in a flat stream of T tokens.

    lengths: tokens of each document, in stream order. filler: tokens at the end that fill the stream up to a multiple of
        128; they are a last document of their own, whose number is len(lengths), and count in no statistic.
    position_ids (T,): position of each token in its document. document_ids (T,): which document it is in.
    gather (sum of rows x columns): stream index for every cell of all rectangles, row by row.
    scatter (T,): cell of every stream token, the inverse of `gather` on cells that are not padding.
    rectangles: (rows, columns) of each.
    """

    lengths: tuple[int, ...]
    filler: int
    position_ids: Tensor
    document_ids: Tensor
    gather: Tensor
    scatter: Tensor
    rectangles: tuple[tuple[int, int], ...]

    @property
    def last_tokens(self) -> Tensor:
        """(documents,) stream index of each document's last token."""
        return torch.tensor(self.lengths, device=self.position_ids.device).cumsum(0) - 1

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device | str = "cpu", fill: bool = False) -> "Packing":
        """The layout of documents of these lengths; with `fill`, the caller pads its stream by `filler` tokens."""
        assert lengths and min(lengths) > 0, "a packing needs documents, none of them empty"
        real = len(lengths)
        filler = -sum(lengths) % STREAM_MULTIPLE if fill else 0
        lengths = [*lengths, filler] if filler else list(lengths)
        size = torch.tensor(lengths)
        starts = size.cumsum(0) - size
        document_ids = torch.repeat_interleave(torch.arange(len(lengths)), size)
        position_ids = torch.arange(int(size.sum())) - starts[document_ids]
        gather, scatter, rectangles, cells = [], torch.empty_like(position_ids), [], 0
        for documents in _similar_lengths(lengths):
            rows, columns = len(documents), _rounded(lengths[documents[0]])
            chosen = torch.tensor(documents)
            offsets = torch.arange(columns)
            inside = offsets < size[chosen, None]
            index = starts[chosen, None] + offsets.minimum(size[chosen, None] - 1)
            gather.append(index.flatten())
            scatter[index[inside]] = cells + torch.arange(rows * columns).view(rows, columns)[inside]
            rectangles.append((rows, columns))
            cells += rows * columns
        return Packing(tuple(lengths[:real]), filler, position_ids.to(device), document_ids.to(device),
                       torch.cat(gather).to(device), scatter.to(device), tuple(rectangles))


def _rounded(length: int) -> int:
    """The next of few widths: steps of 16 up to 128, then of 32, then of 64."""
    step = 16 if length <= 128 else 32 if length <= 256 else 64
    return -(-length // step) * step


def _similar_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Document numbers in groups of 32, 16, 8, 4, 2 or 1, longest first, none below MIN_FILL of its group's width."""
    order = sorted(range(len(lengths)), key=lambda d: (-lengths[d], d))
    groups, start = [], 0
    while start < len(order):
        width = _rounded(lengths[order[start]])
        end = start + 1
        while end < len(order) and lengths[order[end]] >= MIN_FILL * width - 4:
            end += 1
        for rows in _ROWS:
            while end - start >= rows:
                groups.append(order[start:start + rows])
                start += rows
    return groups


class _ToCells(torch.autograd.Function):
    """Stream (T, W) to cells; the gradient comes back by `scatter` alone, since padding cells receive none."""

    @staticmethod
    def forward(ctx, stream: Tensor, gather: Tensor, scatter: Tensor) -> Tensor:
        ctx.save_for_backward(scatter)
        return stream.index_select(0, gather)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (scatter,) = ctx.saved_tensors
        return grad.contiguous().index_select(0, scatter), None, None


class _ToStream(torch.autograd.Function):
    """Cells to stream (T, W): the adjoint of `_ToCells` on real tokens, zero on padding."""

    @staticmethod
    def forward(ctx, cells: Tensor, scatter: Tensor) -> Tensor:
        ctx.save_for_backward(scatter)
        ctx.cells = cells.shape[0]
        return cells.index_select(0, scatter)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (scatter,) = ctx.saved_tensors
        return grad.new_zeros(ctx.cells, grad.shape[1]).index_copy_(0, scatter, grad.contiguous()), None


class _ShortAttention(torch.autograd.Function):
    """Causal attention by four batched products, for rows short enough that all scores fit the cache.

    q, k (rows, H, L, d), v (rows, H, L, e); the softmax is float32.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        rows, heads, length, _ = q.shape
        q, k, v = (t.reshape(rows * heads, length, -1) for t in (q, k, v))
        future = torch.full((length, length), float("-inf"), device=q.device).triu_(1)
        p = torch.bmm(q, k.transpose(1, 2)).float().mul_(scale).add_(future).softmax(-1).to(q.dtype)
        ctx.save_for_backward(q, k, v, p)
        ctx.scale = scale
        return torch.bmm(p, v).view(rows, heads, length, -1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        q, k, v, p = ctx.saved_tensors
        rows, heads, length, _ = grad.shape
        grad = grad.reshape(rows * heads, length, -1)
        grad_v = torch.bmm(p.transpose(1, 2), grad)
        grad_p = torch.bmm(grad, v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(ctx.scale)
        grads = torch.bmm(grad_scores, k), torch.bmm(grad_scores.transpose(1, 2), q), grad_v
        return *(g.view(rows, heads, length, -1) for g in grads), None


def packed_attention(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float) -> Tensor:
    """Causal attention inside each document. q (T, H, d), k (T, G, d), v (T, G, e), G dividing H; returns (T, H, e)."""
    tokens, heads, width = q.shape
    groups, value_width = v.shape[1:]
    stream = torch.cat([q.flatten(1), k.flatten(1), v.flatten(1)], dim=1)
    cells = _ToCells.apply(stream, packing.gather, packing.scatter)
    outputs = []
    for rectangle, (rows, columns) in zip(cells.split([r * c for r, c in packing.rectangles]), packing.rectangles):
        parts = rectangle.view(rows, columns, -1).split([heads * width, groups * width, groups * value_width], dim=-1)
        q_, k_, v_ = (part.unflatten(-1, (n, -1)).transpose(1, 2) for part, n in zip(parts, (heads, groups, groups)))
        if columns <= SHORT and not q.is_cuda:
            k_, v_ = (t if groups == heads else t.repeat_interleave(heads // groups, dim=1) for t in (k_, v_))
            out = _ShortAttention.apply(q_, k_, v_, scale)
        else:
            out = F.scaled_dot_product_attention(q_, k_, v_, is_causal=True, scale=scale, enable_gqa=groups != heads)
        outputs.append(out.transpose(1, 2).reshape(rows * columns, heads * value_width))
    return _ToStream.apply(torch.cat(outputs), packing.scatter).view(tokens, heads, value_width)


def packed_attention_plain(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float) -> Tensor:
    """The plain twin of `packed_attention`: one (T, T) mask over the whole stream."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    index = torch.arange(q.shape[0], device=q.device)
    visible = (packing.document_ids[:, None] == packing.document_ids) & (index[:, None] >= index)
    return torch.einsum("hqk,khe->qhe", scores.masked_fill(~visible, float("-inf")).softmax(-1), v)
