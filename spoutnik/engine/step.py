"""One step of the engine: the batch that the runner computes, and what comes of it."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.engine.input_batch import InputBatch
from spoutnik.engine.request import Sample
from spoutnik.engine.runners.base import ForwardBatch
from spoutnik.engine.scheduler import Chunk, SchedulerOutput

FEW_ROWS = 8  # up to so many rows are handled one by one


@dataclass
class EngineStats:
    """Totals since the start. prompt_tokens: computed ones, not those found in the cache; recomputed_tokens: generated ones,
    after preemptions. drafted, accepted: speculative tokens, and those that were right."""

    steps: int = 0
    prompt_tokens: int = 0
    recomputed_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass
class StepOutput:
    """tokens: how many were generated. ended: samples that ended."""

    tokens: int
    ended: list[Sample]


@dataclass
class StepState:
    """A step under way: the decoding rows' tokens first, then the chunks'.

    rows: how many rows decode. starts: where in the batch each row's tokens (its last one and its drafts) begin; None if each
        has one. num_decode_tokens: tokens of all rows.
    next_tokens (num_decode_tokens,): the token sampled after each of them. accepted: how many of these each row keeps; None
        for one each.
    block_copies: (source, target). ended: samples that ended. num_generated: tokens generated.
    """

    scheduled: SchedulerOutput
    batch: ForwardBatch
    rows: int
    starts: list[int] | None
    num_decode_tokens: int
    next_tokens: Tensor = torch.empty(0, dtype=torch.long)
    accepted: list[int] | None = None
    block_copies: list[tuple[int, int]] = field(default_factory=list)
    ended: list[Sample] = field(default_factory=list)
    num_generated: int = 0

    @staticmethod
    def of(scheduled: SchedulerOutput, input_batch: InputBatch, drafting: bool) -> "StepState":
        batch, starts = _decode_part(input_batch, drafting)
        step = StepState(scheduled, batch, len(input_batch), starts, len(batch.tokens))
        if scheduled.chunks:
            step.batch = _with_chunks(batch, scheduled.chunks)
        return step

    def start_of(self, row: int) -> int:
        return row if self.starts is None else self.starts[row]


def _decode_part(input_batch: InputBatch, drafting: bool) -> tuple[ForwardBatch, list[int] | None]:
    """The batch of the decoding rows, and `StepState.starts`."""
    prompt, indices = torch.zeros(len(input_batch), dtype=torch.bool), input_batch.indices
    # Drafting needs the contexts as they are before this step's tokens are counted.
    contexts = input_batch.num_computed.clone() if drafting else input_batch.num_computed
    if not drafting or not any([s.num_draft_tokens for s in input_batch.sequences]):
        return ForwardBatch(input_batch.last_tokens, torch.ones_like(indices), contexts, input_batch.block_tables, indices,
                            prompt, input_batch.adapters), None
    tokens, starts = [], []
    for last, sequence in zip(input_batch.last_tokens.tolist(), input_batch.sequences):
        starts.append(len(tokens))
        tokens += [last, *sequence.sample.drafts[:sequence.num_draft_tokens]]
    counts = torch.tensor([1 + s.num_draft_tokens for s in input_batch.sequences])
    return ForwardBatch(torch.tensor(tokens), counts, contexts, input_batch.block_tables, torch.arange(len(tokens)),
                        prompt, input_batch.adapters), starts


def logits_range(chunk: Chunk) -> range:
    """The tokens of a chunk whose logits are needed: all for prompt log-probabilities, else the last of a whole prompt."""
    if not chunk.sequence.prompt_only:
        return range(0)
    if chunk.sequence.sample.params.prompt_logprobs is not None:
        return range(chunk.count)
    return range(chunk.count - 1, chunk.count) if chunk.is_last else range(0)


def _with_chunks(batch: ForwardBatch, chunks: list[Chunk]) -> ForwardBatch:
    tokens = [token for c in chunks for token in c.sequence.token_ids[c.start:c.start + c.count]]
    logits_indices, start = [], len(batch.tokens)
    for chunk in chunks:
        logits_indices += [start + index for index in logits_range(chunk)]
        start += chunk.count
    width = max(batch.block_tables.shape[1], max(len(c.sequence.blocks) for c in chunks))
    tables = torch.tensor([c.sequence.blocks + [0] * (width - len(c.sequence.blocks)) for c in chunks])
    return ForwardBatch(torch.cat([batch.tokens, torch.tensor(tokens)]),
                        torch.cat([batch.counts, torch.tensor([c.count for c in chunks])]),
                        torch.cat([batch.contexts, torch.tensor([c.start for c in chunks])]),
                        torch.cat([F.pad(batch.block_tables, (0, width - batch.block_tables.shape[1])), tables]),
                        torch.cat([batch.logits_indices, torch.tensor(logits_indices, dtype=torch.long)]),
                        torch.cat([batch.prompt, torch.tensor([c.is_prompt for c in chunks])]),
                        _adapters_with_chunks(batch, chunks))


def _adapters_with_chunks(batch: ForwardBatch, chunks: list[Chunk]) -> Tensor | None:
    numbers = [chunk.sequence.sample.request.adapter_number for chunk in chunks]
    if batch.adapters is None and max(numbers) < 0:
        return None
    rows = torch.full_like(batch.counts, -1) if batch.adapters is None else batch.adapters
    return torch.cat([rows, torch.tensor(numbers)])
