"""Causal attention inside each document of a packed stream, rotary embedding included.

Three ways to the same numbers: the native kernel (training on a CPU), batched products over rectangles (GPU, long documents,
no compiler), and one mask over the whole stream (the plain twin, for tests).

Letters: T tokens of the stream, H heads, G groups of keys and values, d = nope + rope width of a query, e width of a value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.model.packing import PackedSequences
from spoutnik.model.rope import rotate_halves, rotate_interleaved
from spoutnik.model.shared_prefixes import SharedPrefixes
from spoutnik.native import operations

# Up to this length plain products beat the CPU's fused kernel: 7 times at 50 to 100 tokens (docs/results.md).
SHORT = 192
NATIVE_LONGEST = 1024  # the native backward pass holds a document's whole score matrix: up to here it fits the cache


def rotary_attention(q: Tensor, k_nope: Tensor | None, k_rope: Tensor, v: Tensor, rotary: Tensor, sequences: PackedSequences,
                     scale: float, interleaved: bool) -> Tensor:
    """q (T, H, d) and k_rope (T, G or 1, rope), neither rotated yet; k_nope (T, G, nope), None where everything is rotated;
    v (T, G, e); rotary (T, 2, rope/2) for the tokens' positions. Returns (T, H, e)."""
    shared = isinstance(sequences, SharedPrefixes)
    if operations.supports(q) and all(t is None or t.shape[-1] % 2 == 0 for t in (k_nope, k_rope, v)) \
            and sequences.longest <= NATIVE_LONGEST:
        before = sequences.before if shared else None
        return operations.packed_attention(q, k_nope, k_rope, v, rotary, sequences.sizes, scale, interleaved, before)
    attend = shared_prefix_attention if shared else packed_attention
    return attend(*rotated(q, k_nope, k_rope, v, rotary, interleaved), sequences, scale)


def rotary_attention_plain(q: Tensor, k_nope: Tensor | None, k_rope: Tensor, v: Tensor, rotary: Tensor,
                           sequences: PackedSequences, scale: float, interleaved: bool) -> Tensor:
    """The plain twin of `rotary_attention`."""
    return packed_attention_plain(*rotated(q, k_nope, k_rope, v, rotary, interleaved), sequences, scale)


def rotated(q: Tensor, k_nope: Tensor | None, k_rope: Tensor, v: Tensor, rotary: Tensor,
            interleaved: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries (T, H, d), whole rotated keys (T, G, d), and the values."""
    rotate = rotate_interleaved if interleaved else rotate_halves
    k_rope = rotate(k_rope, rotary).expand(-1, v.shape[1], -1)
    q_nope, q_rope = q.split([q.shape[-1] - k_rope.shape[-1], k_rope.shape[-1]], dim=-1)
    q = torch.cat([q_nope, rotate(q_rope, rotary)], dim=-1)
    return q, k_rope if k_nope is None else torch.cat([k_nope, k_rope], dim=-1), v


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

    q (rows, H, L, d), k (rows, H, K, d), v (rows, H, K, e): the queries are of the last L of K tokens. The softmax is float32.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        rows, heads, length, _ = q.shape
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        keys = k.shape[1]
        future = torch.full((length, keys), float("-inf"), device=q.device).triu_(1 + keys - length)
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
        return *(g.view(rows, heads, g.shape[1], -1) for g in grads), None


def packed_attention(q: Tensor, k: Tensor, v: Tensor, sequences: PackedSequences, scale: float) -> Tensor:
    """Causal attention inside each document. q (T, H, d), k (T, G, d), v (T, G, e), G dividing H; returns (T, H, e)."""
    tokens, heads, width = q.shape
    groups, value_width = v.shape[1:]
    rectangles = sequences.rectangles
    stream = torch.cat([q.flatten(1), k.flatten(1), v.flatten(1)], dim=1)
    cells = _ToCells.apply(stream, rectangles.gather, rectangles.scatter)
    outputs = []
    for rectangle, (rows, columns) in zip(cells.split([r * c for r, c in rectangles.shapes]), rectangles.shapes):
        parts = rectangle.view(rows, columns, -1).split([heads * width, groups * width, groups * value_width], dim=-1)
        q_, k_, v_ = (part.unflatten(-1, (n, -1)).transpose(1, 2) for part, n in zip(parts, (heads, groups, groups)))
        if columns <= SHORT and not q.is_cuda:
            k_, v_ = (t if groups == heads else t.repeat_interleave(heads // groups, dim=1) for t in (k_, v_))
            out = _ShortAttention.apply(q_, k_, v_, scale)
        else:
            out = F.scaled_dot_product_attention(q_, k_, v_, is_causal=True, scale=scale, enable_gqa=groups != heads)
        outputs.append(out.transpose(1, 2).reshape(rows * columns, heads * value_width))
    return _ToStream.apply(torch.cat(outputs), rectangles.scatter).view(tokens, heads, value_width)


def shared_prefix_attention(q: Tensor, k: Tensor, v: Tensor, sequences: SharedPrefixes, scale: float) -> Tensor:
    """Causal attention inside each document of a stream that holds common beginnings once. q (T, H, d), k (T, G, d),
    v (T, G, e), rotated; returns (T, H, e). Twin: `packed_attention_plain` of the documents one by one."""
    heads, (groups, value_width) = q.shape[1], v.shape[1:]
    blocks, gather, scatter = sequences.blocks
    stream = torch.cat([q.flatten(1), k.flatten(1), v.flatten(1)], dim=1)
    cells, widths = _ToCells.apply(stream, gather, scatter), [q[0].numel(), k[0].numel(), v[0].numel()]
    outputs = []
    for part, block in zip(cells.split([b.rows * b.columns for b in blocks]), blocks):
        q_, k_, v_ = (each.unflatten(-1, (n, -1)).transpose(1, 2) for each, n in zip(
            part.view(block.rows, block.columns, -1).split(widths, dim=-1), (heads, groups, groups)))
        if block.prefix:
            end = block.prefix_start + block.prefix
            k_, v_ = (torch.cat([before[block.prefix_start:end].transpose(0, 1).expand(block.rows, -1, -1, -1), own], dim=2)
                      for before, own in ((k, k_), (v, v_)))
        if block.columns + block.prefix <= SHORT and not q.is_cuda:
            k_, v_ = (t if groups == heads else t.repeat_interleave(heads // groups, dim=1) for t in (k_, v_))
            out = _ShortAttention.apply(q_, k_, v_, scale)
        else:
            keys = block.prefix + block.columns
            seen = torch.ones(block.columns, keys, dtype=torch.bool, device=q.device).tril_(block.prefix)
            out = F.scaled_dot_product_attention(q_, k_, v_, attn_mask=seen, scale=scale, enable_gqa=groups != heads)
        outputs.append(out.transpose(1, 2).reshape(block.rows * block.columns, heads * value_width))
    return _ToStream.apply(torch.cat(outputs), scatter).view(len(q), heads, value_width)


def packed_attention_plain(q: Tensor, k: Tensor, v: Tensor, sequences: PackedSequences, scale: float) -> Tensor:
    """The plain twin of `packed_attention`: one (T, T) mask over the whole stream."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    index = torch.arange(q.shape[0], device=q.device)
    visible = (sequences.document_ids[:, None] == sequences.document_ids) & (index[:, None] >= index)
    return torch.einsum("hqk,khe->qhe", scores.masked_fill(~visible, float("-inf")).softmax(-1), v)
