"""Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv 2402.01306): a policy learns from replies that are good or bad,
without pairs, measured against the model that the stage begins with and against how far the policy has moved as a whole.

That distance z is estimated on each prompt of a step with the reply to another one. So steps are composed once, each with at
least two prompts, and epochs change their order alone: the mismatched replies and their reference log-probabilities stay.
"""

import random
from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.model.transformer import Transformer
from spoutnik.train.batches import Document
from spoutnik.train.health import Comparison
from spoutnik.train.loop import AddedGradient, Checkpoints, Cost, Gradient, Progress, Stopwatch
from spoutnik.train.monitor import COMPARED_DOCUMENTS, Monitor
from spoutnik.train.preference_losses import Weights, balanced_weights, kto_losses, kto_reference
from spoutnik.train.preferences import (
    PreferenceSettings,
    Thumb,
    documents_of,
    preference_gradient,
    reply_log_probs,
    train_preferences,
)
from spoutnik.train.sft import plan_steps


class KTOSettings(PreferenceSettings):
    """Of Kahneman-Tversky optimization (KTO)."""

    desirable_weight: float | None = Field(default=None, gt=0)
    """Lambda_D, of good replies. Where it is not given it follows from the data: good replies are to weigh 1 to 1.33 times the
    bad ones in all."""
    undesirable_weight: float | None = Field(default=None, gt=0)
    """Lambda_U, of bad replies; the same."""

    def weights_of(self, thumbs: Sequence[Thumb]) -> Weights:
        good = sum(thumb.good for thumb in thumbs)
        return balanced_weights(good, len(thumbs) - good, self.desirable_weight, self.undesirable_weight)


def kto_gradient(model: Transformer, thumbs: Sequence[Thumb], references: Tensor, kl: Tensor, parameters: Sequence[Tensor],
                 settings: KTOSettings, weights: Weights, step: int = 0) -> tuple[Gradient, Cost]:
    """The mean over replies of the KTO loss, and its metrics. references: (R,); kl: z of the step, a scalar."""
    labels = torch.tensor([thumb.good for thumb in thumbs])
    tokens = torch.tensor([thumb.document.predicted for thumb in thumbs])
    counts = {True: int(labels.sum()), False: int((~labels).sum())}

    def loss_of(sums: Tensor, reference: Tensor, numbers: Tensor) -> tuple[Tensor, dict[str, float]]:
        ratios, good = sums - reference, labels[numbers]
        losses = kto_losses(ratios, good, kl, settings.beta, weights.desirable, weights.undesirable)
        change = ratios.detach()
        right = (change > kl) == good
        metrics = {"accuracy": float(right.sum()) / len(thumbs)}
        if counts[True]:
            values = {"chosen_reward": settings.beta * change, "chosen_log_prob": sums.detach() / tokens[numbers],
                      "chosen_change": change / tokens[numbers]}
            metrics |= {name: float(value[good].sum()) / counts[True] for name, value in values.items()}
        if counts[False]:
            metrics["rejected_reward"] = settings.beta * float(change[~good].sum()) / counts[False]
        return losses.sum() / len(thumbs), metrics

    gradient, cost = preference_gradient(model, thumbs, references, parameters, settings, step, loss_of)
    gradient.metrics["kl"] = float(kl)
    if counts[True] and counts[False]:
        gradient.metrics["margin"] = gradient.metrics["chosen_reward"] - gradient.metrics["rejected_reward"]
    return gradient, cost


def compose_steps(thumbs: Sequence[Thumb], tokens_per_step: int, seed: int) -> list[list[int]]:
    """The replies of each step, by number: in random order, until a step is full, and each with at least two prompts. A reply
    counts twice: its prompt is read again with the reply to another one."""
    order = list(range(len(thumbs)))
    random.Random(f"{seed} steps").shuffle(order)
    steps: list[list[int]] = [[]]
    filled = 0
    for i in order:
        tokens = 2 * len(thumbs[i].document.ids)
        if filled + tokens > tokens_per_step and has_two_prompts([thumbs[j] for j in steps[-1]]):
            steps.append([])
            filled = 0
        steps[-1].append(i)
        filled += tokens
    if len(steps) > 1 and not has_two_prompts([thumbs[j] for j in steps[-1]]):
        last = steps.pop()
        steps[-1] += last
    return steps


def has_two_prompts(thumbs: Sequence[Thumb]) -> bool:
    """Whether they are replies to at least two prompts."""
    return any(thumb.prompt != thumbs[0].prompt for thumb in thumbs)


def mismatched(thumbs: Sequence[Thumb], positions: int) -> list[Document]:
    """Of each reply's prompt a document with the reply that follows in the step, around its end, to the next other prompt. It
    is cut where it would pass the model's positions."""
    documents = []
    for i, thumb in enumerate(thumbs):
        following = (thumbs[(i + k) % len(thumbs)] for k in range(1, len(thumbs)))
        other = next(each for each in following if each.prompt != thumb.prompt).document
        ids = [*thumb.prompt, *other.ids[other.loss_from:]][:positions]
        documents.append(Document(ids, loss_from=thumb.document.loss_from))
    return documents


def refuse_one_sided(labels: Sequence[tuple[bool, object]], source: str) -> None:
    """Raises UserError where there is nothing to set good replies against, or no other prompt to estimate z with. labels: of
    each reply whether it is good, and its prompt."""
    for good, name, label in ((True, "good", "true"), (False, "bad", "false")):
        if not any(is_good is good for is_good, _ in labels):
            raise UserError(f"{source}: has no {name} reply (label {label}) to train on, and KTO learns from both kinds. Add "
                            "some; of good replies alone, a stage of kind sft learns.")
    if all(prompt == labels[0][1] for _, prompt in labels):
        raise UserError(f"{source}: all replies that are trained on answer the same question, and KTO measures each against "
                        "replies to others. Add other questions, or learn from pairs (kind: dpo).")


def kto(model: Transformer, thumbs: Sequence[Thumb], settings: KTOSettings, seed: int, stage: str, checkpoints: Checkpoints,
        progress: Progress, reference_progress: Progress | None = None,
        monitor: Monitor | None = None, anchor: AddedGradient | None = None) -> tuple[list[dict], Cost]:
    """Trains in place.

    Raises:
        UserError: there is no reply, or all are of one kind or to one question.
    """
    if not thumbs:
        raise UserError(f"{stage}: no reply fits the model's {model.config.max_position_embeddings} positions. Shorten them.")
    refuse_one_sided([(thumb.good, thumb.prompt) for thumb in thumbs], stage)
    monitor, watch = monitor or Monitor(stage), Stopwatch()
    steps, weights = compose_steps(thumbs, settings.tokens_per_step, seed), settings.weights_of(thumbs)
    groups = [[thumbs[i] for i in numbers] for numbers in steps]
    others = [mismatched(group, model.config.max_position_embeddings) for group in groups]
    sizes = [len(group) for group in groups]
    every = [*documents_of([thumb for group in groups for thumb in group]), *(d for documents in others for d in documents)]
    known = reply_log_probs(model, every, settings.micro_batch_tokens, reference_progress)
    references, other_references = (part.split(sizes) for part in known.chunk(2))
    before = watch.lap()
    plan = [number for step in plan_steps([1] * len(steps), 1, settings.epochs, seed) for number in step]

    def kl_of(number: int) -> Tensor:
        now = reply_log_probs(model, others[number], settings.micro_batch_tokens)
        return kto_reference(now - other_references[number])

    def step_of(step: int, parameters: Sequence[Tensor]) -> tuple[Gradient, Cost]:
        n = plan[step]
        gradient, cost = kto_gradient(model, groups[n], references[n], kl_of(n), parameters, settings, weights, step)
        return gradient, cost + Cost(tokens_trained=sum(len(document.ids) for document in others[n]))

    log, cost = train_preferences(model, step_of, len(plan), settings, stage, checkpoints, progress, monitor, anchor)
    watch.lap()
    monitor.comparisons.append(_comparison(model, list(dict.fromkeys(reversed(plan))), groups, references, kl_of, settings,
                                           weights))
    return log, cost + before + watch.lap()


def _comparison(model: Transformer, steps: Sequence[int], groups: Sequence[Sequence[Thumb]], references: Sequence[Tensor],
                kl_of: Callable[[int], Tensor], settings: KTOSettings, weights: Weights) -> Comparison:
    """The losses of the replies of the last steps before, when nothing had changed, and after."""
    before, after = [], []
    for number in steps:
        now = reply_log_probs(model, documents_of(groups[number]), settings.micro_batch_tokens) - references[number]
        for losses, ratios, kl in ((before, torch.zeros_like(now), torch.tensor(0.0)), (after, now, kl_of(number))):
            labels = torch.tensor([thumb.good for thumb in groups[number]])
            losses += kto_losses(ratios, labels, kl, settings.beta, weights.desirable, weights.undesirable).tolist()
        if len(before) >= COMPARED_DOCUMENTS:
            break
    return Comparison("loss", before, after)


def measured_thumbs(thumbs: Sequence[Thumb], before: Tensor, after: Tensor, kl: Tensor, settings: KTOSettings
                    ) -> dict[str, float]:
    """What became of replies, of their log-probabilities (R,) before and after: which share is on its side of z, by how much
    good ones are rewarded more than bad ones, and of how many couples of both the good one is the likelier per token."""
    good = torch.tensor([thumb.good for thumb in thumbs])
    tokens = torch.tensor([thumb.document.predicted for thumb in thumbs])
    change = after - before
    measured = {"accuracy": float(((change > kl) == good).float().mean()), "kl": float(kl)}
    if bool(good.any()):
        measured["chosen_change"] = float((change / tokens)[good].mean())
    if bool(good.any()) and not bool(good.all()):
        measured["margin"] = settings.beta * float(change[good].mean() - change[~good].mean())
        for name, values in (("likelier_before", before / tokens), ("likelier", after / tokens)):
            measured[name] = float((values[good][:, None] > values[~good][None]).float().mean())
    return measured
