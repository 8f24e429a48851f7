"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290): a policy learns from pairs of a better and a worse
reply that one is to be likelier than the other, measured against the model that the stage begins with."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.model.transformer import Transformer
from spoutnik.train.health import Comparison
from spoutnik.train.loop import AddedGradient, Checkpoints, Cost, Gradient, Progress, Stopwatch
from spoutnik.train.monitor import COMPARED_DOCUMENTS, Monitor
from spoutnik.train.preference_losses import chosen_nll, dpo_losses
from spoutnik.train.preferences import (
    Pair,
    PreferenceSettings,
    documents_of,
    preference_gradient,
    reply_log_probs,
    train_preferences,
)
from spoutnik.train.sft import plan_steps


class DPOSettings(PreferenceSettings):
    """Of direct preference optimization (DPO)."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The share of pairs that is taken to be the wrong way round, where opinions are noisy (conservative DPO)."""
    nll_weight: float = Field(default=0.0, ge=0)
    """Weight of the chosen replies' negative log-likelihood, in nats a token: it keeps them likely, where DPO alone may make
    both replies of a pair less likely."""


def dpo_gradient(model: Transformer, pairs: Sequence[Pair], references: Tensor, parameters: Sequence[Tensor],
                 settings: DPOSettings, step: int = 0) -> tuple[Gradient, Cost]:
    """The mean over pairs of the DPO loss, and its metrics. references: (2 P,), of chosen and rejected in turn."""
    tokens = torch.tensor([pair.chosen.predicted for pair in pairs])

    def loss_of(sums: Tensor, reference: Tensor, numbers: Tensor) -> tuple[Tensor, dict[str, float]]:
        ratios = sums - reference
        loss = dpo_losses(ratios[0::2], ratios[1::2], settings.beta, settings.label_smoothing).sum() / len(pairs)
        if settings.nll_weight:
            loss = loss + settings.nll_weight * chosen_nll(sums[0::2], int(tokens.sum()))
        chosen, rejected, lengths = ratios.detach()[0::2], ratios.detach()[1::2], tokens[numbers]
        values = {"accuracy": (chosen > rejected).float(), "margin": settings.beta * (chosen - rejected),
                  "chosen_reward": settings.beta * chosen, "rejected_reward": settings.beta * rejected,
                  "chosen_log_prob": sums.detach()[0::2] / lengths, "chosen_change": chosen / lengths}
        return loss, {name: float(value.sum()) / len(pairs) for name, value in values.items()}

    return preference_gradient(model, pairs, references, parameters, settings, step, loss_of)


def dpo(model: Transformer, pairs: Sequence[Pair], settings: DPOSettings, seed: int, stage: str, checkpoints: Checkpoints,
        progress: Progress, reference_progress: Progress | None = None,
        monitor: Monitor | None = None, anchor: AddedGradient | None = None) -> tuple[list[dict], Cost]:
    """Trains in place. Every epoch is a new order; a step takes the next pairs until tokens_per_step is reached.

    Raises:
        UserError: there is no pair.
    """
    if not pairs:
        raise UserError(f"{stage}: no pair fits the model's {model.config.max_position_embeddings} positions. Shorten them.")
    monitor, watch = monitor or Monitor(stage), Stopwatch()
    references = reply_log_probs(model, documents_of(pairs), settings.micro_batch_tokens, reference_progress).view(-1, 2)
    before = watch.lap()
    lengths = [sum(len(document.ids) for document in pair.documents) for pair in pairs]
    plan = plan_steps(lengths, settings.tokens_per_step, settings.epochs, seed)

    def step_of(step: int, parameters: Sequence[Tensor]) -> tuple[Gradient, Cost]:
        chosen = plan[step]
        return dpo_gradient(model, [pairs[i] for i in chosen], references[chosen].flatten(), parameters, settings, step)

    log, cost = train_preferences(model, step_of, len(plan), settings, stage, checkpoints, progress, monitor, anchor)
    watch.lap()
    last = list(dict.fromkeys(i for step in reversed(plan) for i in step))[:COMPARED_DOCUMENTS]
    compared = documents_of([pairs[i] for i in last])
    monitor.comparisons.append(Comparison("loss", *(
        pair_losses(policy, references[last].flatten(), settings).tolist() for policy in (
            references[last].flatten(), reply_log_probs(model, compared, settings.micro_batch_tokens)))))
    return log, cost + before + watch.lap()


def pair_losses(policy: Tensor, reference: Tensor, settings: DPOSettings) -> Tensor:
    """The DPO loss of each pair, (P,), of log-probabilities (2 P,) of chosen and rejected in turn."""
    ratios = policy - reference
    return dpo_losses(ratios[0::2], ratios[1::2], settings.beta, settings.label_smoothing)


def measured_pairs(pairs: Sequence[Pair], before: Tensor, after: Tensor, settings: DPOSettings) -> dict[str, float]:
    """What became of pairs, of their log-probabilities (2 P,) before and after: which share is ordered right and by how much,
    by the implicit rewards, of which the start has none; and of how many the better reply is the likelier one per token."""
    tokens = torch.tensor([document.predicted for document in documents_of(pairs)])
    change = (after - before).view(-1, 2)
    likelier = [float((each[:, 0] > each[:, 1]).float().mean()) for each in ((before / tokens).view(-1, 2),
                                                                            (after / tokens).view(-1, 2))]
    return {"accuracy": float((change[:, 0] > change[:, 1]).float().mean()),
            "margin": settings.beta * float((change[:, 0] - change[:, 1]).mean()),
            "loss": float(pair_losses(after, before, settings).mean()),
            "likelier_before": likelier[0], "likelier": likelier[1],
            "chosen_change": float((change[:, 0] / tokens.view(-1, 2)[:, 0]).mean())}
