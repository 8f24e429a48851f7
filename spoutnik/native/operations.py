"""The native kernels as PyTorch operations, differentiable where training needs it. Each docstring names the plain twin.

The caller checks `supports` first: everything here assumes that there are kernels, and tensors on the CPU.
"""

import ctypes

import torch
from torch import Tensor

from spoutnik.native import kernels, library
from spoutnik.native.result_pool import empty
from spoutnik.native.structs import Attention

_TYPES = torch.float32, torch.bfloat16


def supports(x: Tensor) -> bool:
    """Whether the kernels take tensors like this one (rows of pairs, since bfloat16 is multiplied in pairs)."""
    return x.device.type == "cpu" and x.dtype in _TYPES and x.shape[-1] % 2 == 0 and library() is not None


def _call(name: str, dtype: torch.dtype | None, *arguments) -> int:
    return kernels.call(library(), name, dtype, *arguments)


def has_fast_matmul(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` and `grouped_matmul` are faster than torch for rows x (N, in) and weight (..., out, in): bfloat16 on a
    processor that multiplies it in vectors, and rows enough to be worth packing the weight."""
    return (x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.shape[-1] % 2 == 0
            and weight.shape[-2] % 2 == 0 and x.numel() // x.shape[-1] >= 64 and library() is not None
            and bool(library().spoutnik_has_fast_matmul()))


def has_float32_products(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear_float32` multiplies rows x (N, in) and weight (out, in) faster than torch multiplies them as float32:
    bfloat16 on a processor that has it, in vectors or in tiles."""
    return (x.dtype == weight.dtype == torch.bfloat16 and x.device.type == "cpu" and x.shape[-1] % 2 == 0
            and library() is not None and bool(library().spoutnik_has_float32_products()))


class _GroupedMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight, counts)
        y = empty((x.shape[0], weight.shape[1]), x.dtype)
        _call("grouped_matmul", None, x, weight, y, counts)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight, counts = ctx.saved_tensors
        grad = grad.contiguous()
        x_grad = grouped_matmul_input_grad(grad, weight, counts) if ctx.needs_input_grad[0] else None
        weight_grad = grouped_matmul_weight_grad(grad, x, counts) if ctx.needs_input_grad[1] else None
        return x_grad, weight_grad, None


def grouped_matmul_input_grad(grad: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """grad (N, out), blocks of rows, times weight (E, out, in): (N, in)."""
    result = empty((len(grad), weight.shape[2]), grad.dtype)
    _call("grouped_matmul_input_grad", None, grad, weight, result, counts)
    return result


def grouped_matmul_weight_grad(grad: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    """grad (N, out) transposed times x (N, in), block by block: (E, out, in)."""
    result = empty((len(counts), grad.shape[1], x.shape[1]), grad.dtype)
    _call("grouped_matmul_weight_grad", None, grad, x, result, counts)
    return result


def grouped_matmul(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Blocks of rows times each expert's weights: x (N, in), weight (E, out, in), counts (E,) int64 rows of each expert,
    together N; returns (N, out). Twin: model/grouped.py, the loop."""
    return _GroupedMatmul.apply(x, weight, counts)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., in) times weight (out, in) transposed. Twin: F.linear."""
    rows = x.reshape(-1, x.shape[-1])
    return grouped_matmul(rows, weight[None], torch.tensor([len(rows)])).view(*x.shape[:-1], weight.shape[0])


class _LinearPlus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, addend: Tensor) -> Tensor:
        ctx.weight = weight
        return linear_float32(x, weight).add_(addend).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        grad, rows = grad.contiguous(), torch.tensor([len(grad)])
        x_grad = grouped_matmul_input_grad(grad, ctx.weight[None], rows) if ctx.needs_input_grad[0] else None
        return x_grad, None, grad


def linear_plus(x: Tensor, weight: Tensor, addend: Tensor) -> Tensor:
    """x (N, in) times a frozen weight (out, in) transposed plus addend (N, out), rounded once. Twin: layers.linear_plus."""
    return _LinearPlus.apply(x.contiguous(), weight.contiguous(), addend)


def linear_float32(x: Tensor, weight: Tensor) -> Tensor:
    """`linear` with sums in float32: (N, out); not differentiable. Twin: F.linear of both as float32."""
    result = empty((len(x), len(weight)), torch.float32)
    _call("matmul_float32", None, x.contiguous(), weight.contiguous(), result)
    return result


def routed_experts(x: Tensor, experts: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The routed experts without gradients, in one call: x (T, D), experts (T, K), weights (T, K) float32, gate_up (E, 2I,
    D), down (E, D, I), the matrices bfloat16. Returns (T, D). Twin: model/moe.py Experts.forward_plain."""
    x = x.contiguous()
    y = empty(x.shape, x.dtype)
    _call("routed_experts", None, x, *(t.contiguous() for t in (experts, weights, gate_up, down)), y)
    return y


def choose_experts(scores: Tensor, bias: Tensor | None, chosen: int, n_group: int, topk_group: int, normalize: bool,
                   scale: float) -> tuple[Tensor, Tensor]:
    """Experts (T, K) of each token, best first, and their weights (T, K), from scores (T, E) float32. With a bias (E,) a group
    counts with its two best experts, else with its best. Twin: model/moe.py Router.select."""
    experts, weights = torch.empty(len(scores), chosen, dtype=torch.long), torch.empty(len(scores), chosen)
    _call("choose_experts", None, scores.contiguous(), bias, experts, weights, n_group, topk_group, bias is not None,
          normalize, scale)
    return experts, weights


def layout(experts: Tensor, n_experts: int, multiple: int) -> tuple[Tensor, Tensor, Tensor]:
    """experts (T, K) to counts (E,), tokens (N,), slots (T * K,): see model/moe.py Layout, its twin."""
    if multiple < 1:
        raise ValueError(f"layout: multiple must be positive; it is {multiple}.")
    choices = experts.numel()
    counts, slots = (torch.empty(n, dtype=torch.long) for n in (n_experts, choices))
    tokens = torch.empty(choices + n_experts * (multiple - 1), dtype=torch.long)
    return counts, tokens[:_call("layout", None, experts.contiguous(), multiple, counts, tokens, slots)], slots


def combine(rows: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """Each token's rows (N, D), weighted (T, K) and summed: (T, D). Twin: model/moe.py Combine."""
    result = empty((len(weights), rows.shape[1]), rows.dtype)
    _call("combine", rows.dtype, rows, slots, weights, result)
    return result


def combine_backward(grad: Tensor, rows: Tensor, slots: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `combine` for rows (N, D) and weights (T, K)."""
    rows_grad, weights_grad = empty(rows.shape, rows.dtype), torch.empty_like(weights)
    _call("combine_backward", rows.dtype, grad, rows, slots, weights, rows_grad, weights_grad)
    return rows_grad, weights_grad


def gather_sum(rows: Tensor, slots: Tensor, tokens: int) -> Tensor:
    """Each token's rows (N, D) summed: (T, D). Twin: model/moe.py Dispatch."""
    result = empty((tokens, rows.shape[1]), rows.dtype)
    _call("gather_sum", rows.dtype, rows, slots.view(tokens, -1), result)
    return result


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        # A slice of wider rows is read in place.
        rows = x if x.dim() == 2 and x.stride(1) == 1 else x.reshape(-1, x.shape[-1])
        rounded = weight.detach().to(x.dtype).float()
        y, scales = empty(rows.shape, x.dtype), torch.empty(len(rows))
        _call("norm_forward", x.dtype, rows, rounded, y, scales, eps)
        ctx.save_for_backward(rows, rounded, scales)
        ctx.weight_dtype = weight.dtype
        return y.view(x.shape)

    @staticmethod
    def backward(ctx, grad: Tensor):
        rows, weight, scales = ctx.saved_tensors
        grad = grad.contiguous()
        x_grad, weight_grad = empty(rows.shape, rows.dtype), torch.zeros_like(weight)
        _call("norm_backward", rows.dtype, grad.view(rows.shape), rows, weight, scales, x_grad, weight_grad)
        return x_grad.view(grad.shape), weight_grad.to(ctx.weight_dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., D) / rms(x) * weight (D,). Twin: F.rms_norm."""
    return _RMSNorm.apply(x, weight, eps)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        width = gate_up.shape[-1] // 2
        y = empty((*gate_up.shape[:-1], width), gate_up.dtype)
        _call("swiglu_forward", gate_up.dtype, gate_up, y)
        ctx.save_for_backward(gate_up)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        (gate_up,) = ctx.saved_tensors
        grad, gate_up_grad = grad.contiguous(), empty(gate_up.shape, gate_up.dtype)
        _call("swiglu_backward", grad.dtype, grad, gate_up, gate_up_grad)
        return gate_up_grad


def swiglu(gate_up: Tensor) -> Tensor:
    """gate_up (..., 2I) to silu(gate) * up (..., I). Twin: layers.swiglu_plain."""
    return _SwiGLU.apply(gate_up)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k_nope: Tensor | None, k_rope: Tensor, v: Tensor, rotary: Tensor, lengths: Tensor,
                before: Tensor | None, scale: float, interleaved: bool) -> Tensor:
        k_nope, k_rope, v = (t if t is None or t.stride(-1) == 1 and t.stride(1) else t.contiguous()
                             for t in (k_nope, k_rope, v))
        inputs = q.contiguous(), k_nope, k_rope, v, rotary.float().contiguous(), lengths, before
        out, normalizers = empty((*q.shape[:2], v.shape[2]), q.dtype), torch.empty(q.shape[:2])
        ctx.save_for_backward(*inputs, out, normalizers)
        ctx.options = scale, interleaved
        _call("attention_forward", q.dtype, _attention(*inputs, *ctx.options), out, normalizers)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        *inputs, out, normalizers = ctx.saved_tensors
        grads = [None if t is None else empty(t.shape, t.dtype) for t in inputs[:4]]
        _call("attention_backward", grad.dtype, _attention(*inputs, *ctx.options), grad.contiguous(), out, normalizers, *grads)
        return *grads, None, None, None, None, None


def _attention(q: Tensor, k_nope: Tensor | None, k_rope: Tensor, v: Tensor, rotary: Tensor, lengths: Tensor,
               before: Tensor | None, scale: float, interleaved: bool):
    """The structure for C++, by reference. It holds addresses: the caller keeps the tensors."""
    sizes = kernels.sizes(library(), "attention", q.dtype, q, k_nope, k_rope, v, rotary, lengths, before)
    nope = sizes.get("nope", 0)
    if (sizes["head"], sizes["rope"]) != (nope + sizes["rope"], 2 * sizes["half"]) \
            or sizes["shared"] not in (1, sizes["groups"]) or sizes["heads"] % sizes["groups"]:
        raise ValueError(f"attention: the shapes of q, k_nope, k_rope, v and rotary do not belong together: {sizes}.")
    k_nope_address, k_nope_strides = (None, (0, 0)) if k_nope is None else (k_nope.data_ptr(), k_nope.stride()[:2])
    return ctypes.byref(Attention(
        q.data_ptr(), k_nope_address, k_rope.data_ptr(), v.data_ptr(), q.stride(0), *k_nope_strides, k_rope.stride(0),
        0 if k_rope.shape[1] < v.shape[1] else k_rope.stride(1), *v.stride()[:2], q.shape[1], v.shape[1], nope,
        sizes["rope"], v.shape[2], len(lengths), interleaved, lengths.data_ptr(),
        None if before is None else before.data_ptr(), rotary.data_ptr(), scale))


def packed_attention(q: Tensor, k_nope: Tensor | None, k_rope: Tensor, v: Tensor, rotary: Tensor, lengths: Tensor,
                     scale: float, interleaved: bool, before: Tensor | None = None) -> Tensor:
    """Causal attention within each document, rotary embedding included.

    q (T, H, nope + rope), not rotated; k_nope (T, G, nope) or None; k_rope (T, G or 1, rope), not rotated; v (T, G, e);
    rotary (T, 2, rope/2) float32; lengths (documents,) int64, together T. before
    (documents,) int64: the number of the document that each one sees before itself, its own where none; that one sees none, and
    all that see it stand right behind it. Returns (T, H, e). Twin: model/attention.py rotary_attention_plain.

    Raises:
        ValueError: shapes that do not belong together, or such a document elsewhere.
    """
    if before is not None:
        own = torch.arange(len(before))
        if not torch.equal(before, torch.where(before == own, own, 0).cummax(0).values):
            raise ValueError(f"attention: what follows a document must stand right behind it; before is {before.tolist()}.")
    return _PackedAttention.apply(q, k_nope, k_rope, v, rotary, lengths, before, scale, interleaved)


def log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of each target, entropy and log of the normalizer (N,), float32; hidden (N, D), weight (V, D) of one
    type. Twin: losses.token_log_probs_plain."""
    hidden, weight, targets = (t.contiguous() for t in (hidden, weight, targets))
    results = torch.empty(3, len(hidden))
    _call("log_probs_forward", hidden.dtype, hidden, weight, targets, temperature, *results)
    return tuple(results)


def logits_gradient(grad: Tensor, hidden: Tensor, weight: Tensor, targets: Tensor, normalizers: Tensor,
                    temperature: float) -> Tensor:
    """Gradient of the logits (N, V), in hidden's type, from that of the log-probabilities (N,)."""
    grad, hidden, weight, targets = (t.contiguous() for t in (grad, hidden, weight, targets))
    result = empty((len(hidden), len(weight)), hidden.dtype)
    _call("log_probs_backward", hidden.dtype, grad, hidden, weight, targets, normalizers, temperature, result)
    return result


def log_probs_of_logits(logits: Tensor, targets: Tensor, temperature: float,
                        dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits (N, V) in float32: log-probability of each target, entropy (N,), and the gradient of the former for what was
    divided by the temperature, (onehot - softmax) / temperature (N, V) in `dtype`. Twin: losses.token_log_probs_plain."""
    log_probs, entropies = torch.empty(2, len(logits))
    slopes = empty(tuple(logits.shape), dtype)
    _call("logits_log_probs", dtype, logits, targets.contiguous(), temperature, log_probs, entropies, slopes)
    return log_probs, entropies, slopes


def divergences_of_logits(base: Tensor, policy: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """KL(base || policy) (N,) of logits (N, V) in float32, and its gradient for the policy's, softmax(policy) - softmax(base)
    (N, V) in `dtype`. Twin: kl.kl_to_base_plain."""
    divergences, slopes = torch.empty(len(base)), empty(tuple(base.shape), dtype)
    _call("logits_divergence", dtype, base, policy, divergences, slopes)
    return divergences, slopes
