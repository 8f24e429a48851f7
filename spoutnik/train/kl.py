"""The divergence of a policy from its base over the whole vocabulary. N positions, D hidden size, V vocabulary."""

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.native import operations
from spoutnik.train.frozen_head import FrozenHead

CHUNK = 128  # positions whose logits exist at once, in four matrices of chunk x vocabulary


class _ChunkedKL(torch.autograd.Function):
    """sum_n KL(base_n || policy_n). The gradient of the logits, softmax(policy) - softmax(base), is known in the forward pass:
    it becomes that of the hidden states at once, chunk by chunk, so that no logits are kept or computed again."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, base_hidden: Tensor, base_weight: Tensor, chunk: int) -> Tensor:
        head = FrozenHead(weight, hidden.dtype)
        base_head = head if base_weight is weight else FrozenHead(base_weight, base_hidden.dtype)
        compute = operations.divergences_of_logits if operations.supports(hidden) else divergences_of_logits
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros(weight.shape, device=weight.device) if ctx.needs_input_grad[1] else None  # frozen: none
        total = torch.zeros((), device=hidden.device)
        for h, b, out in zip(hidden.split(chunk), base_hidden.split(chunk), grad_hidden.split(chunk)):
            divergences, grad_logits = compute(base_head.logits(b), head.logits(h), hidden.dtype)
            total += divergences.sum()
            out.copy_(head.hidden_gradient(grad_logits))
            if grad_head is not None:
                grad_head += grad_logits.t().float() @ h.float()
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):
        grad_hidden, grad_head = ctx.saved_tensors
        grad_weight = None if grad_head is None else (grad_head * grad).to(ctx.weight_dtype)
        return grad_hidden * grad.to(grad_hidden.dtype), grad_weight, None, None, None


def divergences_of_logits(base: Tensor, policy: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The plain twin of `operations.divergences_of_logits`."""
    base_log_p, log_p = base.log_softmax(-1), policy.log_softmax(-1)
    base_p = base_log_p.exp()
    divergences = (base_p * base_log_p.sub_(log_p)).sum(-1)
    return divergences, log_p.exp_().sub_(base_p).to(dtype)


def kl_to_base(hidden: Tensor, weight: Tensor, base_hidden: Tensor, base_weight: Tensor, chunk: int = CHUNK) -> Tensor:
    """KL(base || policy) of the next token, summed over N positions, in nats: what it costs more to encode by the policy what
    the base would write. The gradient goes to the policy.

        sum_n sum_v p_base(v | n) (log p_base(v | n) - log p_policy(v | n))

    hidden (N, D) and weight (V, D) of the policy's head; base_hidden, base_weight of the base's, which may be the same head. No
    more than chunk x V logits of each exist at once.
    """
    return _ChunkedKL.apply(hidden, weight, base_hidden, base_weight, chunk)


def kl_to_base_plain(hidden: Tensor, weight: Tensor, base_hidden: Tensor, base_weight: Tensor) -> Tensor:
    """The plain twin of `kl_to_base`: all logits at once."""
    log_p = F.linear(hidden.float(), weight.to(hidden.dtype).float()).log_softmax(-1)
    base_log_p = F.linear(base_hidden.float(), base_weight.to(base_hidden.dtype).float()).log_softmax(-1).detach()
    return (base_log_p.exp() * (base_log_p - log_p)).sum()
