"""What DPO (`dpo.py`) and KTO (`kto.py`) share: documents to compare, the reference's log-probabilities, a step's gradient.

The reference policy is the model as the stage begins. Its log-probabilities never change, so they are computed once before the
first step, one number a reply, and no second set of weights is held: with an adapter, whose product is zero then, they are the
base's with the adapter off; without one, those of the copy that would else be kept frozen. A resumed stage computes them again
from the same weights, to the same bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from spoutnik.model.adapter_switches import dropout_from
from spoutnik.model.lora import can_share_prefixes
from spoutnik.model.moe import RouterTrace
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import parts
from spoutnik.train.batches import Document, PackedBatch, micro_batches, pack_documents, pack_sharing
from spoutnik.train.loop import AddedGradient, Checkpoints, Cost, Gradient, Progress, accumulate, train
from spoutnik.train.losses import token_log_probs
from spoutnik.train.monitor import Monitor, document_losses
from spoutnik.train.settings import TrainSettings

_AT_ONCE = 256  # documents whose log-probabilities are computed between two signs of progress


class PreferenceSettings(TrainSettings):
    """Of learning from preferences."""

    epochs: float = Field(default=1.0, gt=0, le=1000)
    """Passes over the preferences, from which the number of steps follows."""
    tokens_per_step: int = Field(default=8192, gt=0)
    """Packed tokens of one step, filled with whole preferences. With KTO a reply counts twice: its prompt is also read with
    another reply."""
    beta: float = Field(default=0.1, gt=0)
    """How dear it is to leave the model that the stage begins with: more keeps it nearer."""


@dataclass(frozen=True)
class Pair:
    """Two replies to one conversation, as documents of which the reply alone is compared."""

    chosen: Document
    rejected: Document

    @property
    def documents(self) -> tuple[Document, Document]:
        return self.chosen, self.rejected


@dataclass(frozen=True)
class Thumb:
    """A reply, and whether it is good."""

    document: Document
    good: bool

    @property
    def documents(self) -> tuple[Document]:
        return (self.document,)

    @property
    def prompt(self) -> list[int]:
        return list(self.document.ids[:self.document.loss_from])


def documents_of(examples: Sequence[Pair | Thumb]) -> list[Document]:
    """Theirs, one after another."""
    return [document for example in examples for document in example.documents]


def reply_log_probs(model: Transformer, documents: Sequence[Document], micro_batch_tokens: int,
                    progress: Progress | None = None) -> Tensor:
    """log pi(y|x) of each document's reply, (documents,) float32, without a gradient."""
    sums, tokens = [], 0
    for start in range(0, len(documents), _AT_ONCE):
        part = documents[start:start + _AT_ONCE]
        losses = document_losses(model, part, micro_batch_tokens)
        sums += [-loss * document.predicted for loss, document in zip(losses, part)]
        tokens += sum(len(document.ids) for document in part)
        if progress is not None:
            progress(len(sums), len(documents), tokens, "")
    return torch.tensor(sums)


def _sums(model: Transformer, documents: Sequence[Document], batch: PackedBatch, trace: RouterTrace) -> Tensor:
    """log pi(y|x) of the batch's replies, (documents of the batch,) float32."""
    hidden = model.hidden(batch.input_ids, batch.sequences, trace)
    log_probs, _ = token_log_probs(hidden[batch.positions], model.lm_head.weight, batch.targets)
    return torch.stack([part.sum() for part in log_probs.split([documents[i].predicted for i in batch.documents])])


LossOf = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, float]]]


def preference_gradient(model: Transformer, examples: Sequence[Pair | Thumb], references: Tensor, parameters: Sequence[Tensor],
                        settings: PreferenceSettings, step: int, loss_of: LossOf) -> tuple[Gradient, Cost]:
    """Gradient of one step, split into micro-batches of whole examples over the cores.

    Args:
        references: log pi_ref of all documents of the examples, in their order.
        loss_of: of the log-probabilities of some of them, the references of these and the examples' numbers, the part of the
            step's loss and of its metrics.
    """
    model.gradient_checkpointing = settings.gradient_checkpointing
    documents = documents_of(examples)
    width = len(documents) // len(examples)
    lengths = [sum(len(document.ids) for document in example.documents) for example in examples]
    groups = micro_batches(lengths, settings.micro_batch_tokens, parts(model.device))
    pack = pack_sharing if can_share_prefixes(model) else pack_documents  # a pair has one prompt
    micro = [pack(documents, [width * i + k for i in chosen for k in range(width)]) for chosen in groups]

    def of_batch(batch: PackedBatch, trace: RouterTrace) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator(model.device).manual_seed(step * len(documents) + batch.documents[0])
        with dropout_from(generator):
            sums = _sums(model, documents, batch, trace).cpu()  # one number a reply
        chosen = torch.tensor(batch.documents)
        loss, metrics = loss_of(sums, references[chosen], chosen[::width] // width)
        metrics["loss"] = float(loss.detach())
        if trace.balance_losses:
            part = len(batch.documents) / len(documents)
            loss = loss + settings.balance_loss_alpha * part * torch.stack(trace.balance_losses).sum().cpu()
        return loss, metrics

    return accumulate(parameters, micro, of_batch, settings.balance_loss_alpha > 0), Cost(tokens_trained=sum(lengths))


StepOf = Callable[[int, Sequence[Tensor]], tuple[Gradient, Cost]]  # a step's number and the trained parameters to its gradient


def train_preferences(model: Transformer, step_of: StepOf, steps: int, settings: PreferenceSettings, stage: str,
                      checkpoints: Checkpoints, progress: Progress, monitor: Monitor,
                      anchor: AddedGradient | None = None) -> tuple[list[dict], Cost]:
    """Trains in place. The module of multi-token prediction stays as it is, as in reinforcement learning."""
    if model.mtp is not None:
        model.mtp.requires_grad_(False)
    optimizer = settings.make_optimizer(model)

    def step_gradient(step: int) -> tuple[Gradient, dict[str, float], Cost]:
        gradient, cost = step_of(step, optimizer.parameters)
        return gradient, dict(gradient.metrics), cost

    return train(model, optimizer, settings.make_schedule(steps, stage), stage, step_gradient, checkpoints, progress,
                 settings.bias_update_speed, monitor.after_step, anchor)
