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
    """Whether this is right here: the head is frozen, and something is learned."""
    return torch.is_grad_enabled() and hidden.requires_grad and not weight.requires_grad


class FrozenHead:
    """The products with a head (V, D) as it is now, in the type of the activations, with float32 sums."""

    def __init__(self, weight: Tensor, dtype: torch.dtype):
        self.weight = weight.detach().to(dtype).contiguous()
        self._wide: Tensor | None = None  # as float32, where no kernel sums products of bfloat16 in it

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, D) to (N, V), float32."""
        if operations.has_float32_products(hidden, self.weight):
            return operations.linear_float32(hidden, self.weight)
        if self._wide is None:
            self._wide = self.weight.float()
        return F.linear(hidden.float(), self._wide)

    def hidden_gradient(self, logits_gradient: Tensor) -> Tensor:
        """(N, V) in the type of the activations to (N, D)."""
        if operations.has_fast_matmul(logits_gradient, self.weight.t()):
            rows = torch.tensor([len(logits_gradient)])
            return operations.grouped_matmul_input_grad(logits_gradient, self.weight[None], rows)
        return logits_gradient @ self.weight


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        head, compute = FrozenHead(weight, hidden.dtype), log_probs_of_logits
        if operations.supports(hidden):
            compute = operations.log_probs_of_logits
        results, slopes = torch.empty(2, len(hidden), device=hidden.device), torch.empty_like(hidden)
        for h, t, result, slope in zip(hidden.split(CHUNK), targets.split(CHUNK), results.split(CHUNK, dim=1),
                                       slopes.split(CHUNK)):
            *each, of_logits = compute(head.logits(h), t, temperature, hidden.dtype)
            torch.stack(each, out=result)
            slope.copy_(head.hidden_gradient(of_logits))
        ctx.save_for_backward(slopes)
        log_probs, entropy = results
        ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        (slopes,) = ctx.saved_tensors
        return grad[:, None].to(slopes.dtype) * slopes, None, None, None


def log_probs_of_logits(logits: Tensor, targets: Tensor, temperature: float,
                        dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The plain twin of `operations.log_probs_of_logits`; overwrites the logits."""
    if temperature != 1.0:
        logits.div_(temperature)
    normalizers = logits.logsumexp(-1)
    log_probs = logits.gather(1, targets[:, None])[:, 0] - normalizers
    p = logits.sub(normalizers[:, None]).exp_()
    entropies = normalizers - torch.linalg.vecdot(p, logits)
    slopes = p.neg_().scatter_(1, targets[:, None], -torch.expm1(log_probs)[:, None]).div_(temperature)
    return log_probs, entropies, slopes.to(dtype)


def frozen_head_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability of each target (N,) and the entropy of each distribution (N,), in nats, float32; hidden (N, D), weight
    (V, D), targets (N,). Twin: losses.token_log_probs_plain."""
    return _LogProbs.apply(hidden, weight, targets, temperature)
