"""One step's batch: which tokens are computed, and which of them are asked for logits."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.engine.input_batch import InputBatch
from spoutnik.engine.request import Request, Sample
from spoutnik.engine.runners.base import ForwardBatch
from spoutnik.engine.scheduler import Chunk, SchedulerOutput

FEW = 8  # up to so many rows are looked at one by one


@dataclass
class EngineStats:
    """What the engine has done so far. prompt_tokens: computed, those found in the cache not among them; recomputed_tokens:
    generated ones whose place in the cache was given up. drafted, accepted: guesses, and those that were right."""

    steps: int = 0
    prompt_tokens: int = 0
    recomputed_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass
class StepOutput:
    """What a step made: tokens, samples that ended, requests all of whose samples have."""

    tokens: int
    ended: list[Sample]
    requests: list[Request]


@dataclass
class Step:
    """A step being made: the decoding rows first, then the chunks.

    rows: how many decode. starts: where in the batch each one's tokens begin, its last one and its drafts; None: one token
        each. decoded: tokens of them all. chosen (decoded,): what was chosen after each of them; kept: how many of those count
        for each row, where not one for each.
    copies: (from, to) blocks to be copied at its end. ended: samples that leave then. made: tokens that count.
    """

    plan: SchedulerOutput
    batch: ForwardBatch
    rows: int
    starts: list[int] | None
    decoded: int
    chosen: Tensor = torch.empty(0, dtype=torch.long)
    kept: list[int] | None = None
    copies: list[tuple[int, int]] = field(default_factory=list)
    ended: list[Sample] = field(default_factory=list)
    made: int = 0

    @staticmethod
    def of(plan: SchedulerOutput, rows: InputBatch, drafting: bool) -> "Step":
        batch, starts = _decoding(rows, drafting)
        made = Step(plan, batch, len(rows), starts, len(batch.tokens))
        if plan.chunks:
            made.batch = _with_chunks(batch, plan.chunks)
        return made

    def place(self, row: int) -> int:
        """Where a row's tokens begin."""
        return row if self.starts is None else self.starts[row]


def _decoding(rows: InputBatch, drafting: bool) -> tuple[ForwardBatch, list[int] | None]:
    count = len(rows)
    alone = torch.zeros(count, dtype=torch.bool)
    if not drafting or not any([s.drafts for s in rows.sequences]):
        # Contexts are counted up before drafts are made, which still need them.
        contexts = rows.contexts.clone() if drafting else rows.contexts
        return ForwardBatch(rows.tokens, torch.ones_like(rows.each), contexts, rows.tables, rows.each, alone), None
    tokens, starts = [], []
    for last, sequence in zip(rows.tokens.tolist(), rows.sequences):
        starts.append(len(tokens))
        tokens += [last, *sequence.owner.drafts[:sequence.drafts]]
    counts = torch.tensor([1 + s.drafts for s in rows.sequences])
    return ForwardBatch(torch.tensor(tokens), counts, rows.contexts.clone(), rows.tables, torch.arange(len(tokens)),
                        alone), starts


def wanted_of(chunk: Chunk) -> range:
    """Which of a chunk's tokens are asked for logits: all where the prompt's log-probabilities are, else the last of a whole
    prompt."""
    if not chunk.sequence.fresh:
        return range(0)
    if chunk.sequence.owner.params.prompt_logprobs is not None:
        return range(chunk.count)
    return range(chunk.count - 1, chunk.count) if chunk.last else range(0)


def _with_chunks(batch: ForwardBatch, chunks: list[Chunk]) -> ForwardBatch:
    tokens = [token for c in chunks for token in c.sequence.tokens[c.start:c.start + c.count]]
    wanted, start = [], len(batch.tokens)
    for chunk in chunks:
        wanted += [start + place for place in wanted_of(chunk)]
        start += chunk.count
    width = max(batch.block_tables.shape[1], max(len(c.sequence.blocks) for c in chunks))
    tables = torch.tensor([c.sequence.blocks + [0] * (width - len(c.sequence.blocks)) for c in chunks])
    return ForwardBatch(torch.cat([batch.tokens, torch.tensor(tokens)]),
                        torch.cat([batch.counts, torch.tensor([c.count for c in chunks])]),
                        torch.cat([batch.contexts, torch.tensor([c.start for c in chunks])]),
                        torch.cat([F.pad(batch.block_tables, (0, width - batch.block_tables.shape[1])), tables]),
                        torch.cat([batch.wanted, torch.tensor(wanted, dtype=torch.long)]),
                        torch.cat([batch.prompt, torch.tensor([c.prompt for c in chunks])]))
