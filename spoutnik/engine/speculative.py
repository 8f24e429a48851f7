"""Speculative decoding: drafts by the model's own MTP module (DeepSeek-V3, section 5.4.3), or by prompt lookup.

A step computes each row's last token and its drafts at once. A draft is kept if it is the very token that sampling chooses
in its place, so the output is exactly that of plain decoding. Since a token is a function of the logits and of a number hashed
from seed and position, the MTP module's draft is drawn with the same number, and the two agree as often as they can.

Drafts pay where a step is bound by reading weights: only up to `speculate_up_to` rows. In larger steps the MTP module does not
run over the decoding rows. Its cache then lacks some of their tokens, so they get no more of its drafts (unless they are
computed again). It always runs over prompts, so that cached prefixes are complete. The last entry of a cached prefix was
computed with the successor of its first user: drafts may be a little worse for it, the output never.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Tokens
from dataclasses import replace

import torch
from torch import Tensor

from spoutnik.engine.input_batch import InputBatch
from spoutnik.engine.request import Sample
from spoutnik.engine.runners.base import ForwardBatch, Runner
from spoutnik.engine.sampler import uniforms_of
from spoutnik.engine.step import StepState


class Drafter(ABC):
    """Drafts up to `num_speculative_tokens` tokens for each row, in batches of up to `speculate_up_to` rows."""

    extra_slots = 0  # slots that a row writes to beyond those of its drafts

    def __init__(self, num_speculative_tokens: int, speculate_up_to: int):
        self.num_speculative_tokens, self.speculate_up_to = num_speculative_tokens, speculate_up_to

    def schedule_drafts(self, input_batch: InputBatch) -> bool:
        """Before scheduling: sets the sequences' num_draft_tokens and num_lookahead_tokens. False: too many rows for drafts."""
        few = len(input_batch) <= self.speculate_up_to
        if few or any([s.num_lookahead_tokens for s in input_batch.sequences]):  # set when there were fewer rows
            for sequence in input_batch.sequences:
                sequence.num_draft_tokens = len(sequence.sample.drafts) if few else 0
                sequence.num_lookahead_tokens = sequence.num_draft_tokens + self.extra_slots if few else 0
        return few

    @abstractmethod
    def propose(self, input_batch: InputBatch, step: StepState, hidden: Tensor) -> None:
        """After a step: sets the samples' drafts for the next. hidden (T, D): states of the batch's tokens. Rows that have
        ended are still in the input batch; new rows follow those of the step."""

    def discard_drafts(self, input_batch: InputBatch) -> None:
        """Also where rows have generated tokens without the drafter."""
        for sequence in input_batch.sequences:
            sequence.sample.drafts = []

    def max_drafts(self, sample: Sample, num_generated: int) -> int:
        """How many drafts a sample can use: none where its logits depend on more than the model, none beyond its end."""
        if sample.finish_reason is not None or sample.logits_processors:
            return 0
        return max(min(self.num_speculative_tokens, sample.params.max_tokens - num_generated - 1), 0)


class NgramProposer(Drafter):
    """Prompt lookup: what followed the last few tokens where they last occurred in prompt or completion (Saxena 2023)."""

    max_ngram, min_ngram = 3, 2  # tokens that must agree

    def propose(self, input_batch: InputBatch, step: StepState, hidden: Tensor) -> None:
        if len(input_batch) > self.speculate_up_to:
            return
        for row, sequence in enumerate(input_batch.sequences):
            sample, prompt = sequence.sample, sequence.sample.request.prompt_token_ids
            count = self.max_drafts(sample, input_batch.count_generated(row))
            sample.drafts = []
            if count:
                if sample.ngrams is None:
                    sample.ngrams = NgramIndex(self.min_ngram, self.max_ngram, prompt)
                sample.ngrams.extend(input_batch.generated_tokens(row, len(sample.ngrams.tokens) - len(prompt))[0])
                sample.drafts = sample.ngrams.continuation(count)


class NgramIndex:
    """Where each n-gram of a sequence last occurred."""

    def __init__(self, min_ngram: int, max_ngram: int, tokens: Tokens[int]):
        self.min_ngram, self.max_ngram = min_ngram, max_ngram
        self.tokens: list[int] = []
        self._end_of: dict[tuple[int, ...], int] = {}
        self.extend(tokens)

    def extend(self, tokens: Tokens[int]) -> None:
        for token in tokens:
            for length in range(self.min_ngram, min(self.max_ngram, len(self.tokens)) + 1):
                self._end_of[tuple(self.tokens[-length:])] = len(self.tokens)  # not yet the n-gram at the very end
            self.tokens.append(token)

    def continuation(self, count: int) -> list[int]:
        """Up to `count` tokens that followed the longest n-gram at the end; empty where it is new."""
        for length in range(min(self.max_ngram, len(self.tokens)), self.min_ngram - 1, -1):
            end = self._end_of.get(tuple(self.tokens[-length:]))
            if end is not None:
                return self.tokens[end:end + count]
        return []


class MTPProposer(Drafter):
    """The MTP module, one token further each time: over the step's own tokens for the first draft, then over its own states."""

    def __init__(self, runner: Runner, num_speculative_tokens: int, speculate_up_to: int):
        super().__init__(num_speculative_tokens, speculate_up_to)
        self.runner, self.extra_slots = runner, num_speculative_tokens - 1

    def propose(self, input_batch: InputBatch, step: StepState, hidden: Tensor) -> None:
        if len(input_batch) <= self.speculate_up_to or step.rows > self.speculate_up_to:
            super().discard_drafts(input_batch)
        if step.rows > self.speculate_up_to:
            input_batch.mtp_complete[:step.rows] = 0
        runs = [bool(c) for c in input_batch.mtp_complete[:step.rows].tolist()] + [True] * len(step.scheduled.chunks)
        if any(runs):
            drafted = self._drafted_rows(input_batch, step, runs)
            batch, hidden, next_tokens = self._mtp_batch(step, runs, hidden, [index for _, index in drafted])
            columns = self._sampling_columns(input_batch, [row for row, _ in drafted])
            drafts = self.runner.draft_multi_step(batch, hidden, next_tokens, columns)
            for (row, _), tokens in zip(drafted, drafts.T.tolist()):
                input_batch.sequences[row].sample.drafts = tokens[:self._num_drafts(input_batch, row)]

    def discard_drafts(self, input_batch: InputBatch) -> None:
        input_batch.mtp_complete.zero_()
        super().discard_drafts(input_batch)

    def _drafted_rows(self, input_batch: InputBatch, step: StepState, runs: list[bool]) -> list[tuple[int, int]]:
        """The rows that get drafts: (row, index in the step's batch of its last token that counts)."""
        if len(input_batch) > self.speculate_up_to:
            return []
        last = [(row, step.start_of(row) + (step.accepted[row] if step.accepted else 1) - 1)
                for row in range(step.rows) if runs[row]]
        end = step.num_decode_tokens
        for chunk in step.scheduled.chunks:
            end += chunk.count
            if chunk.sequence.row >= 0:
                last.append((chunk.sequence.row, end - 1))
        return [(row, index) for row, index in last if self._num_drafts(input_batch, row) > 0]

    def _num_drafts(self, input_batch: InputBatch, row: int) -> int:
        """From the second draft on, the module's own states are cached too, and need a slot."""
        sequence = input_batch.sequences[row]
        most = self.max_drafts(sequence.sample, input_batch.count_generated(row))
        return min(most, 1 + max(sequence.num_slots - sequence.num_tokens + 1, 0))

    def _mtp_batch(self, step: StepState, runs: list[bool], hidden: Tensor,
                   logits_indices: list[int]) -> tuple[ForwardBatch, Tensor, Tensor]:
        """The part of the step's batch that the module runs over, with logits for `logits_indices`; its tokens' states; the
        successor of each token."""
        batch, indices, next_tokens = step.batch, torch.tensor(logits_indices, dtype=torch.long), step.next_tokens
        if step.scheduled.chunks:
            after = [t for c in step.scheduled.chunks for t in c.sequence.token_ids[c.start + 1:c.start + c.count + 1]]
            next_tokens = torch.cat([next_tokens, torch.tensor(after)])
        if all(runs):
            return replace(batch, logits_indices=indices), hidden, next_tokens
        sequences = torch.tensor(runs)
        tokens = torch.tensor([run for run, count in zip(runs, batch.counts.tolist()) for _ in range(count)])
        indices = (tokens.cumsum(0) - 1)[indices]
        return (ForwardBatch(batch.tokens[tokens], batch.counts[sequences], batch.contexts[sequences],
                             batch.block_tables[sequences], indices, batch.prompt[sequences]),
                hidden[tokens], next_tokens[tokens])

    def _sampling_columns(self, input_batch: InputBatch, rows: list[int]) -> Tensor:
        """(drafts, 5, rows), with the random numbers that the tokens themselves will be drawn with. As many drafts as the row
        with the fewest slots can take."""
        count = min([self._num_drafts(input_batch, row) for row in rows], default=1)
        samples = [input_batch.sequences[row].sample for row in rows]
        u = uniforms_of((sample.seed, input_batch.count_generated(row) + number)
                        for number in range(count) for sample, row in zip(samples, rows))
        columns = input_batch.sampling if len(rows) == len(input_batch) else input_batch.sampling[:, rows]
        return torch.cat([columns.expand(count, -1, -1), u.view(count, 1, -1)], dim=1)
