"""The losses, pure functions of tensors, each with its equation and source.

N tokens that are predicted, D hidden size, V vocabulary, R rollouts (completions), G group size.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from spoutnik.native import operations
from spoutnik.train.frozen_head import frozen_head_log_probs, suits
from spoutnik.train.settings import Settings

CHUNK = 2048  # tokens whose logits exist at once: the loss's memory is chunk x vocabulary, whatever the batch


class _ChunkedLogProbs(torch.autograd.Function):
    """log softmax(hidden @ weight^T / temperature)[target], chunk by chunk; backward computes the logits again.

    Logits are float32 sums of products of the activations' type, in the sampler too: rounding the logits themselves to
    bfloat16 is where sampler and trainer usually drift apart.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, chunk: int) -> tuple[Tensor, Tensor]:
        hidden, rounded = hidden.contiguous(), weight.detach().to(hidden.dtype)
        compute = operations.log_probs if operations.supports(hidden) else partial(_log_probs, chunk=chunk)
        log_probs, entropy, normalizers = compute(hidden, rounded, targets, temperature)
        ctx.save_for_backward(hidden, rounded, targets, normalizers)
        ctx.temperature, ctx.weight_dtype, ctx.chunk = temperature, weight.dtype, chunk
        ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        hidden, weight, targets, normalizers = ctx.saved_tensors
        compute = operations.logits_gradient if operations.supports(hidden) else _logits_gradient
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None  # frozen: none
        pieces = (t.split(ctx.chunk) for t in (grad.contiguous(), hidden, targets, normalizers, grad_hidden))
        for g, h, t, n, out in zip(*pieces):
            grad_logits = compute(g, h, weight, t, n, ctx.temperature)
            if operations.has_fast_matmul(grad_logits, weight.t()):
                rows = torch.tensor([len(h)])
                out.copy_(operations.grouped_matmul_input_grad(grad_logits, weight[None], rows))
                if grad_weight is not None:
                    grad_weight += operations.grouped_matmul_weight_grad(grad_logits, h, rows)[0]
            else:
                torch.mm(grad_logits, weight, out=out)
                if grad_weight is not None:
                    grad_weight += grad_logits.t() @ h
        return grad_hidden, None if grad_weight is None else grad_weight.to(ctx.weight_dtype), None, None, None


def _log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float,
               chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and normalizers (N,) float32, chunk by chunk, by torch alone."""
    rows = []
    for h, t in zip(hidden.split(chunk), targets.split(chunk)):
        logits = F.linear(h.float(), weight.float()).div_(temperature)
        normalizers = logits.logsumexp(-1)
        log_p = logits.sub_(normalizers[:, None])
        rows.append(torch.stack([log_p.gather(1, t[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1), normalizers]))
    return tuple(torch.cat(rows, dim=1))


def _logits_gradient(grad: Tensor, hidden: Tensor, weight: Tensor, targets: Tensor, normalizers: Tensor,
                     temperature: float) -> Tensor:
    """(onehot - softmax) x grad / temperature: (N, V) in hidden's type."""
    result = F.linear(hidden.float(), weight.float()).div_(temperature).sub_(normalizers[:, None]).exp_().neg_()
    result.scatter_add_(1, targets[:, None], torch.ones_like(grad)[:, None])
    return result.mul_(grad[:, None] / temperature).to(hidden.dtype)


def token_log_probs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0,
                    chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Log-probability of each target (N,) and the entropy of each distribution (N,), in nats, float32.

    hidden (N, D), weight (V, D) of the head, targets (N,). Peak memory is chunk x V floats, not N x V.
    """
    if suits(hidden, weight):
        return frozen_head_log_probs(hidden, weight, targets, temperature)
    return _ChunkedLogProbs.apply(hidden, weight, targets, temperature, chunk)


def token_log_probs_plain(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """The plain twin of `token_log_probs`: all logits at once."""
    log_p = (F.linear(hidden.float(), weight.to(hidden.dtype).float()) / temperature).log_softmax(-1)
    return log_p.gather(1, targets[:, None])[:, 0]


OffPolicyCorrection = Literal["tis", "mask"]  # of rollouts by older weights; see `importance_weights`


class PolicyLoss(Settings):
    """Every choice of the policy-gradient loss, under the name its paper gives it."""

    length_normalisation: Literal["token", "sequence", "constant"] = "token"
    """"token" divides the sum over tokens by the batch's token count (DAPO, arXiv 2503.14476 eq. 8); "sequence" averages each
    completion over its own tokens first (GRPO, arXiv 2402.03300 eq. 3), which favours short right and long wrong answers;
    "constant" divides by completions x max_tokens (Dr. GRPO, arXiv 2503.20783)."""
    std_normalisation: bool = False
    """Divide advantages by the group's standard deviation (GRPO) or not (Dr. GRPO)."""
    clip_epsilon: float = Field(default=0.2, gt=0)
    """The ratio's range is [1 - clip_epsilon, 1 + clip_epsilon_high]. R1 used 10 for both, which only ever cuts ratios above
    11."""
    clip_epsilon_high: float = Field(default=0.28, gt=0)
    """Higher than clip_epsilon: DAPO's clip-higher."""
    zero_variance: Literal["drop", "keep", "refill"] = "drop"
    """"drop" takes groups whose rewards are all equal out of the batch and its token count (DAPO's dynamic sampling without
    the refill); "keep" leaves them in the count; "refill" draws other prompts in their place, up to refill_rounds times, and
    counts what they cost as waste."""
    kl_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the penalty towards the reference model, the one that the stage begins with."""
    kl_estimator: Literal["k2", "k3"] = "k3"
    """"k3" is R1's (Schulman 2020), unbiased in value; "k2" has the right gradient when put in the loss (arXiv
    2510.01555)."""


@dataclass(frozen=True)
class Staleness:
    """How far behind the policy its sampler may be, and what corrects for it. steps: 0 is on-policy."""

    steps: int = 0
    correction: OffPolicyCorrection = "tis"
    correction_cap: float = 2.0


def group_advantages(rewards: Tensor, std_normalisation: bool) -> Tensor:
    """A_i = r_i - mean(r), over the group's std where asked. rewards (groups, G) to advantages (groups, G).

    GRPO (R1 eq. 3). The std is the population's; a group without variance has advantage 0 either way.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if not std_normalisation:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True, unbiased=False) + 1e-6)


def has_variance(rewards: Tensor) -> Tensor:
    """(groups,) whether a group can teach anything: its rewards are not all equal."""
    return (rewards - rewards[:, :1]).abs().amax(dim=1) > 1e-8


def token_weights(lengths: Tensor, how: str, max_tokens: int) -> Tensor:
    """(R,) the weight of each token of a completion, such that the loss is a plain sum over the *global* batch.

    Computed once over all completions of an optimizer step and handed to every micro-batch, so that the split into
    micro-batches changes nothing.
    """
    count = max(len(lengths), 1)
    if how == "token":
        return torch.full_like(lengths, 1.0 / max(float(lengths.sum()), 1.0), dtype=torch.float32)
    if how == "sequence":
        return 1.0 / (lengths.float() * count)
    return torch.full_like(lengths, 1.0 / (count * max_tokens), dtype=torch.float32)


def policy_loss(log_probs: Tensor, sampler_log_probs: Tensor, advantages: Tensor, weights: Tensor, options: PolicyLoss,
                reference_log_probs: Tensor | None = None, staleness: Staleness | None = None) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (PPO eq. 7 on tokens, GRPO) plus the KL penalty, summed over tokens.

    All (N,), one entry per completion token. log_probs carries the gradient; sampler_log_probs are what the sampler
    recorded, so the ratio also corrects what the sampler computed differently. staleness: of rollouts by older weights, whose
    ratio is corrected instead (`importance_weights`): the one step that is taken on them begins at the policy of now, where
    PPO's own ratio is 1. Returns (loss, share of the weight that was clipped, truncated or masked).
    """
    if staleness is None:
        ratio = (log_probs - sampler_log_probs).exp()
        clipped = ratio.clamp(1 - options.clip_epsilon, 1 + options.clip_epsilon_high)
        surrogate = torch.minimum(ratio * advantages, clipped * advantages)
        bound = (clipped * advantages < ratio * advantages).float()
    else:
        importance, bound = importance_weights(log_probs, sampler_log_probs, staleness)
        surrogate = importance * (log_probs - log_probs.detach()).exp() * advantages
    loss = -(surrogate * weights).sum()
    if options.kl_coefficient:
        kl = kl_penalty(log_probs, reference_log_probs, options.kl_estimator)
        loss = loss + options.kl_coefficient * (kl * weights).sum()
    return loss, ((bound * weights).sum() / weights.sum().clamp_min(1e-12)).detach()


def importance_weights(log_probs: Tensor, sampler_log_probs: Tensor, staleness: Staleness) -> tuple[Tensor, Tensor]:
    """Of tokens that older weights sampled: the policy's probability over the sampler's, and where it was cut (1.0 or 0.0).

    "tis" cuts it at the cap (truncated importance sampling; Espeholt et al. 2018, eq. 1, with rho-bar); "mask" drops tokens
    outside of [1 / cap, cap] (IcePop). All (N,), without gradient.
    """
    ratio = (log_probs.detach() - sampler_log_probs).exp()
    cap = staleness.correction_cap
    if staleness.correction == "tis":
        return ratio.clamp(max=cap), (ratio > cap).float()
    outside = ((ratio > cap) | (ratio < 1 / cap)).float()
    return ratio * (1 - outside), outside


def kl_penalty(log_probs: Tensor, reference_log_probs: Tensor, estimator: str) -> Tensor:
    """Per-token estimate of KL(policy || reference) from samples of the policy (Schulman 2020, approximating KL)."""
    difference = reference_log_probs - log_probs
    if estimator == "k2":
        return 0.5 * difference.square()
    return difference.exp() - difference - 1


def mismatch_kl(sampler_log_probs: Tensor, trainer_log_probs: Tensor) -> Tensor:
    """KL(sampler || trainer) in nats per token, k3 estimate over the sampler's tokens: 0 when both compute alike."""
    return kl_penalty(sampler_log_probs, trainer_log_probs, "k3").mean()


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Bradley-Terry (Christiano et al. 2017; R1 section 3.1): -log sigmoid(r_chosen - r_rejected). Scores (pairs,)."""
    return -F.logsigmoid(chosen - rejected).mean()
