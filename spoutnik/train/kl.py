"""The divergence of a policy from its base over the whole vocabulary. N positions, D hidden size, V vocabulary."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 128  # positions whose logits exist at once, in four matrices of chunk x vocabulary


class _ChunkedKL(torch.autograd.Function):
    """sum_n KL(base_n || policy_n). The gradient of the logits, softmax(policy) - softmax(base), is known in the forward pass:
    it becomes that of the hidden states at once, chunk by chunk, so that no logits are kept or computed again."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, base_hidden: Tensor, base_weight: Tensor, chunk: int) -> Tensor:
        head = weight.detach().to(hidden.dtype).float()
        base_head = head if base_weight is weight else base_weight.detach().to(base_hidden.dtype).float()
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None  # frozen: none
        total = torch.zeros((), device=hidden.device)
        for h, b, out in zip(hidden.split(chunk), base_hidden.split(chunk), grad_hidden.split(chunk)):
            base_log_p = F.linear(b.float(), base_head).log_softmax(-1)
            log_p = F.linear(h.float(), head).log_softmax(-1)
            base_p = base_log_p.exp()
            total += (base_p * base_log_p.sub_(log_p)).sum()
            grad_logits = log_p.exp_().sub_(base_p)
            out.copy_(grad_logits @ head)
            if grad_head is not None:
                grad_head += grad_logits.t() @ h.float()
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):
        grad_hidden, grad_head = ctx.saved_tensors
        grad_weight = None if grad_head is None else (grad_head * grad).to(ctx.weight_dtype)
        return grad_hidden * grad.to(grad_hidden.dtype), grad_weight, None, None, None


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
