"""Next-token training on packed documents, with V3's two companions: the MTP loss and the balance loss.

Shared by pretraining, both SFT stages and distillation: they differ in where documents come from.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from spoutnik.model.adapter_switches import dropout_from
from spoutnik.model.lora import can_share_prefixes
from spoutnik.model.moe import RouterTrace
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import parts
from spoutnik.train.anchor import Anchor
from spoutnik.train.batches import Document, PackedBatch, micro_batches, pack_documents, pack_sharing
from spoutnik.train.health import Comparison
from spoutnik.train.loop import Checkpoints, Cost, Gradient, Progress, Stopwatch, accumulate, train
from spoutnik.train.losses import token_log_probs
from spoutnik.train.monitor import Monitor, compared_documents, document_losses
from spoutnik.train.settings import LanguageModelSettings


def next_token_loss(model: Transformer, batch: PackedBatch, trace: RouterTrace, tokens: int, documents: int,
                    settings: LanguageModelSettings) -> tuple[Tensor, dict[str, float]]:
    """This micro-batch's part of the batch's loss: sums over its tokens / `tokens` of the whole step (V3 eq. 24-25)."""
    hidden = model.hidden(batch.input_ids, batch.sequences, trace)
    log_probs, _ = token_log_probs(hidden[batch.positions], model.lm_head.weight, batch.targets)
    loss = -log_probs.sum() / tokens
    metrics = {"loss": float(loss.detach())}
    if model.mtp is not None and settings.mtp_loss_weight:
        # The token two ahead exists where the next position belongs to the same document and is itself predicted.
        same = batch.sequences.document_ids[batch.positions[:-1]] == batch.sequences.document_ids[batch.positions[1:]]
        where = batch.positions[:-1][same]
        ahead = model.mtp_hidden(hidden, batch.input_ids, batch.sequences, trace)
        mtp_log_probs, _ = token_log_probs(ahead[where], model.lm_head.weight, batch.input_ids[where + 2])
        mtp_loss = -mtp_log_probs.sum() / tokens
        metrics["mtp_loss"] = float(mtp_loss.detach())
        loss = loss + settings.mtp_loss_weight * mtp_loss
    if trace.balance_losses:
        balance = torch.stack(trace.balance_losses).sum() * len(batch.documents) / documents
        metrics["balance_loss"] = float(balance.detach()) / len(trace.balance_losses)
        loss = loss + settings.balance_loss_alpha * balance
    return loss, metrics


def language_model_gradient(model: Transformer, documents: Sequence[Document], parameters: Sequence[Tensor],
                            settings: LanguageModelSettings, step: int = 0) -> tuple[Gradient, Cost]:
    """Gradient of one step over `documents`, split into micro-batches over the cores. step: with a micro-batch's first document
    it decides the masks of the adapters' dropout, so that a resumed stage repeats them."""
    model.gradient_checkpointing = settings.gradient_checkpointing
    lengths = [len(d.ids) for d in documents]
    pack = pack_sharing if can_share_prefixes(model) else pack_documents
    micro = [pack(documents, chosen) for chosen in micro_batches(lengths, settings.micro_batch_tokens, parts(model.device))]
    tokens = sum(d.predicted for d in documents)

    def loss_of(batch: PackedBatch, trace: RouterTrace) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator(model.device).manual_seed(step * len(documents) + batch.documents[0])
        with dropout_from(generator):
            return next_token_loss(model, batch, trace, tokens, len(documents), settings)

    return accumulate(parameters, micro, loss_of, settings.balance_loss_alpha > 0), Cost(tokens_trained=sum(lengths))


def train_language_model(model: Transformer, documents_of: Callable[[int], Sequence[Document]],
                         settings: LanguageModelSettings, steps: int, stage: str, checkpoints: Checkpoints,
                         progress: Progress, monitor: Monitor | None = None,
                         anchor: Anchor | None = None) -> tuple[list[dict], Cost]:
    """documents_of(step) gives a step's documents and must depend on nothing but the step. monitor: gets the losses of some of
    them before and after. anchor: what every step learns beside them."""
    schedule, optimizer = settings.make_schedule(steps, stage), settings.make_optimizer(model)
    monitor, watch, compared = monitor or Monitor(stage), Stopwatch(), compared_documents(documents_of, steps)
    before, comparing = document_losses(model, compared, settings.micro_batch_tokens), watch.lap()

    def step_gradient(step: int) -> tuple[Gradient, dict[str, float], Cost]:
        documents = documents_of(step)
        gradient, cost = language_model_gradient(model, documents, optimizer.parameters, settings, step)
        return gradient, gradient.metrics | cut_metrics(documents), cost

    log, cost = train(model, optimizer, schedule, stage, step_gradient, checkpoints, progress, settings.bias_update_speed,
                      monitor.after_step, anchor)
    watch.lap()
    monitor.comparisons.append(Comparison("loss", before, document_losses(model, compared, settings.micro_batch_tokens)))
    return log, cost + comparing + watch.lap()


def take_tokens(documents: Iterable[Document], tokens: int, max_length: int) -> list[Document]:
    """Documents from an iterator until they hold `tokens` tokens; longer ones than `max_length` are cut, and say how much."""
    taken, total = [], 0
    for document in documents:
        ids = document.ids[:max_length]
        if len(ids) <= document.loss_from:
            continue
        taken.append(Document(ids, document.loss_from, len(document.ids) - len(ids)))
        total += len(ids)
        if total >= tokens:
            break
    return taken


def cut_metrics(documents: Sequence[Document]) -> dict[str, float]:
    """Of a step's documents that were cut: how many, and the share of all tokens that was lost; nothing where none was."""
    lost = sum(document.cut for document in documents)
    if not lost:
        return {}
    return {"cut_documents": sum(document.cut > 0 for document in documents),
            "cut_tokens": lost / (lost + sum(len(document.ids) for document in documents))}
