"""The losses of preferences, pure functions of summed log-probabilities, each with its equation and source.

log pi(y|x) is the sum over a reply's tokens, its end among them. Of each reply the log-ratio is log pi(y|x) / pi_ref(y|x), and
the implicit reward beta times that (DPO, equation 5, without the term of the prompt alone). P pairs, R replies, all float32.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# KTO, section 4.2: the good replies' weight in all against the bad ones'. 1 is balance.
BALANCED = (1.0, 4 / 3)


def dpo_losses(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta (h_w - h_l)), (P,): DPO, arXiv 2305.18290, equation 7.

    Args:
        chosen: log-ratios h_w of the better replies, (P,).
        rejected: log-ratios h_l of the worse ones, (P,).
        beta: how dear it is to leave the reference.
        label_smoothing: epsilon, the share of pairs taken to be the wrong way round: their loss is
            -(1 - epsilon) log sigmoid(beta m) - epsilon log sigmoid(-beta m) for the margin m (conservative DPO, Mitchell
            2023).
    """
    margins = beta * (chosen - rejected)
    return -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins)


def kto_reference(mismatched: Tensor) -> Tensor:
    """z, a scalar without gradient: max(0, mean of the log-ratios (R,) of replies to other prompts), the estimate of
    KL(pi || pi_ref) of KTO, arXiv 2402.01306, section 4.1. It does not go below zero, as a KL does not."""
    return mismatched.detach().mean().clamp(min=0)


def kto_losses(ratios: Tensor, good: Tensor, reference: Tensor, beta: float, desirable_weight: float,
               undesirable_weight: float) -> Tensor:
    """lambda_y - v(x, y), (R,), without the constant: KTO, arXiv 2402.01306, equation 7.

    lambda_D (1 - sigmoid(beta (h - z))) for good replies, lambda_U (1 - sigmoid(beta (z - h))) for bad ones.

    Args:
        ratios: log-ratios h, (R,).
        good: which of them are desirable, (R,) bool.
        reference: z of `kto_reference`, a scalar.
    """
    sign = torch.where(good, 1.0, -1.0)
    weight = torch.where(good, desirable_weight, undesirable_weight)
    return weight * torch.sigmoid(-beta * sign * (ratios - reference))


@dataclass(frozen=True)
class Weights:
    """lambda_D and lambda_U, and how many replies of each kind they weigh."""

    desirable: float
    undesirable: float
    good: int
    bad: int

    @property
    def ratio(self) -> float:
        """lambda_D n_D / (lambda_U n_U)."""
        return self.desirable * self.good / (self.undesirable * self.bad)

    def sentence(self) -> str:
        return (f"{self.good:,} good replies of weight {self.desirable:.3g} against {self.bad:,} bad ones of weight "
                f"{self.undesirable:.3g}: {self.ratio:.3g} to 1 in all (balanced: 1 to 1.33)")


def balanced_weights(good: int, bad: int, desirable: float | None = None, undesirable: float | None = None) -> Weights:
    """The weights with which neither kind outweighs the other: lambda_D n_D / (lambda_U n_U) in [1, 4/3] (KTO, section 4.2).

    Args:
        good, bad: n_D and n_U, both above 0.
        desirable, undesirable: a weight that is given stays. Where none is, the rarer kind's is raised above 1.
    """
    weights = [desirable or 1.0, undesirable or 1.0]
    ratio = weights[0] * good / (weights[1] * bad)
    target = min(max(ratio, BALANCED[0]), BALANCED[1])
    if not math.isclose(ratio, target):
        if desirable is None and (undesirable is not None or ratio < target):
            weights[0] *= target / ratio
        elif undesirable is None:
            weights[1] *= ratio / target
    return Weights(*weights, good, bad)


def chosen_nll(log_probs: Tensor, tokens: int) -> Tensor:
    """-sum log pi / tokens, a scalar: the negative log-likelihood of the better replies' tokens, which keeps them likely where
    DPO only has to keep them likelier than the others (Pang et al. 2024, arXiv 2404.19733, equation 2, with one mean over all
    tokens in place of one for each reply). log_probs: sums over replies, (P,); tokens: of all better replies of the step."""
    return -log_probs.sum() / tokens
