"""Log-probabilities under a head that is not trained, as of every model with an adapter.

Their gradient for the hidden states is known as soon as the logits are: d log p(t) / d h = (W_t - sum_v p_v W_v) / temperature,
one row for each token, whatever the loss makes of it. So it is computed with the logits, and the backward pass multiplies by a
number for each row: no logits are computed twice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.native import operations

CHUNK = 256  # tokens whose logits and probabilities exist at once


def suits(hidden: Tensor, weight: Tensor) -> bool:
    """Whether this is right and faster here: the head is frozen, something is learned, and torch multiplies (where we have
    faster products of bfloat16, `losses.token_log_probs` has kernels of its own)."""
    return (torch.is_grad_enabled() and hidden.requires_grad and not weight.requires_grad
            and not operations.has_fast_matmul(hidden, weight))


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        head = weight.to(hidden.dtype).float()
        log_probs, entropy = (torch.empty(len(hidden), device=hidden.device) for _ in range(2))
        slopes = torch.empty_like(hidden)
        for h, t, log_p, out, slope in zip(*(each.split(CHUNK) for each in (hidden, targets, log_probs, entropy, slopes))):
            logits = F.linear(h.float(), head)
            if temperature != 1.0:
                logits.div_(temperature)
            normalizers = logits.logsumexp(-1)
            torch.sub(logits.gather(1, t[:, None])[:, 0], normalizers, out=log_p)
            p = logits.sub(normalizers[:, None]).exp_()
            torch.sub(normalizers, torch.linalg.vecdot(p, logits), out=out)
            slope.copy_((head[t] - p @ head).div_(temperature))
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        (slopes,) = ctx.saved_tensors
        return grad[:, None].to(slopes.dtype) * slopes, None, None, None


def frozen_head_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability of each target (N,) and the entropy of each distribution (N,), in nats, float32; hidden (N, D), weight
    (V, D), targets (N,). Twin: losses.token_log_probs_plain."""
    return _LogProbs.apply(hidden, weight, targets, temperature)
