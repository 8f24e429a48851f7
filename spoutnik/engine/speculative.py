"""Guessing tokens ahead: by the model's own MTP module (DeepSeek-V3, section 5.4.3), or by what was said before.

A step computes each row's last token and its drafts at once. A draft is kept if it is the very token that sampling chooses
in its place: what comes out is exactly what plain decoding gives, only sooner. Our sampler makes this simple: a token is a
function of the logits and of a number hashed from seed and position, so the module's draft is drawn with the same number, and
the two agree as often as they can.

Drafts pay where a step is bound by reading weights: only up to `up_to` rows. In larger steps the module does not run over the
decoding rows. The rows in them have then a gap in the module's cache, so they get no more of its drafts (unless they are
computed anew); it always runs over prompts, so that what is shared between requests is complete. The entry at the end of a
shared beginning was made with another successor than each reader's own: drafts may be a little worse for it, never the output.
"""

from collections.abc import Sequence as Tokens
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from spoutnik.engine.input_batch import InputBatch
from spoutnik.engine.request import Sample
from spoutnik.engine.runners.base import ForwardBatch, Runner
from spoutnik.engine.sampler import uniforms_of
from spoutnik.engine.step import Step


class Drafter(Protocol):
    def announce(self, rows: InputBatch) -> bool:
        """Before a step is scheduled: tells the sequences how many drafts they bring. False where none does."""

    def draft(self, rows: InputBatch, step: Step, hidden: Tensor) -> None:
        """After a step: the samples' drafts for the next one. hidden (T, D): states of the batch's tokens. Rows that have ended
        are still there, new ones are behind them."""

    def pass_over(self, rows: InputBatch) -> None:
        """The rows have gone on without it."""


def _announce(rows: InputBatch, up_to: int, places: int) -> bool:
    """places: how many more than its drafts a row writes to."""
    few = len(rows) <= up_to
    if few or any([s.ahead for s in rows.sequences]):  # they may have had drafts when they were fewer
        for sequence in rows.sequences:
            sequence.drafts = len(sequence.owner.drafts) if few else 0
            sequence.ahead = sequence.drafts + places if few else 0
    return few


def _forget(rows: InputBatch) -> None:
    for sequence in rows.sequences:
        sequence.owner.drafts = []


def _wanted(made: Sample, generated: int, most: int) -> int:
    """How many drafts a sample can use: none where its logits depend on more than the model, none beyond its end."""
    if made.finish_reason is not None or made.logits_processors:
        return 0
    return max(min(most, made.params.max_tokens - generated - 1), 0)


class PromptLookup:
    """What followed the last few tokens where they stood before, in prompt or completion (Saxena 2023)."""

    longest, shortest = 3, 2  # tokens that must agree

    def __init__(self, most: int, up_to: int):
        self.most, self.up_to = most, up_to

    def announce(self, rows: InputBatch) -> bool:
        return _announce(rows, self.up_to, 0)

    def draft(self, rows: InputBatch, step: Step, hidden: Tensor) -> None:
        if len(rows) > self.up_to:
            return
        for row, sequence in enumerate(rows.sequences):
            made = sequence.owner
            prompt, wanted = made.request.prompt_token_ids, _wanted(made, rows.count(row), self.most)
            made.drafts = []
            if wanted:
                if made.places is None:
                    made.places = _Places(self.shortest, self.longest, prompt)
                made.places.extend(rows.made(row, len(made.places.tokens) - len(prompt))[0])
                made.drafts = made.places.following(wanted)

    def pass_over(self, rows: InputBatch) -> None:
        _forget(rows)  # what they have made is read when it is looked up


class _Places:
    """Where each few tokens of a text stood last."""

    def __init__(self, shortest: int, longest: int, tokens: Tokens[int]):
        self.shortest, self.longest = shortest, longest
        self.tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self.extend(tokens)

    def extend(self, tokens: Tokens[int]) -> None:
        for token in tokens:
            for length in range(self.shortest, min(self.longest, len(self.tokens)) + 1):
                self._after[tuple(self.tokens[-length:])] = len(self.tokens)  # the text's own end is not among them
            self.tokens.append(token)

    def following(self, count: int) -> list[int]:
        for length in range(min(self.longest, len(self.tokens)), self.shortest - 1, -1):
            place = self._after.get(tuple(self.tokens[-length:]))
            if place is not None:
                return self.tokens[place:place + count]
        return []


class MTPDrafts:
    """The MTP module, one token further each time it is run: over a step's own tokens for the first draft, then over its own
    states."""

    def __init__(self, runner: Runner, most: int, up_to: int):
        self.runner, self.most, self.up_to = runner, most, up_to

    def announce(self, rows: InputBatch) -> bool:
        return _announce(rows, self.up_to, self.most - 1)

    def draft(self, rows: InputBatch, step: Step, hidden: Tensor) -> None:
        if len(rows) <= self.up_to or step.rows > self.up_to:
            _forget(rows)
        if step.rows > self.up_to:
            rows.complete[:step.rows] = 0
        over = [bool(c) for c in rows.complete[:step.rows].tolist()] + [True] * len(step.plan.chunks)
        if any(over):
            readers = self._readers(rows, step, over)
            part, hidden, next_tokens = self._part(step, over, hidden, [place for _, place in readers])
            drawn = self.runner.draft_multi_step(part, hidden, next_tokens, self._settings(rows, [row for row, _ in readers]))
            for (row, _), tokens in zip(readers, drawn.T.tolist()):
                rows.sequences[row].owner.drafts = tokens[:self._most(rows, row)]

    def pass_over(self, rows: InputBatch) -> None:
        rows.complete.zero_()
        _forget(rows)

    def _readers(self, rows: InputBatch, step: Step, over: list[bool]) -> list[tuple[int, int]]:
        """The rows that get drafts: (row, place in the batch of its last token that counts)."""
        if len(rows) > self.up_to:
            return []
        places = [(row, step.place(row) + (step.kept[row] if step.kept else 1) - 1) for row in range(step.rows) if over[row]]
        end = step.decoded
        for chunk in step.plan.chunks:
            end += chunk.count
            if chunk.sequence.row >= 0:
                places.append((chunk.sequence.row, end - 1))
        return [(row, place) for row, place in places if self._most(rows, row) > 0]

    def _most(self, rows: InputBatch, row: int) -> int:
        """How many drafts a row gets. From the second on, the module's own states are stored too, and need a place."""
        sequence = rows.sequences[row]
        return min(_wanted(sequence.owner, rows.count(row), self.most), 1 + max(sequence.room - sequence.length + 1, 0))

    def _part(self, step: Step, over: list[bool], hidden: Tensor, places: list[int]) -> tuple[ForwardBatch, Tensor, Tensor]:
        """The sequences that the module runs over, as a batch whose wanted tokens are `places`; their states; the successor of
        each token."""
        batch, wanted, next_tokens = step.batch, torch.tensor(places, dtype=torch.long), step.chosen
        if step.plan.chunks:
            after = [t for c in step.plan.chunks for t in c.sequence.tokens[c.start + 1:c.start + c.count + 1]]
            next_tokens = torch.cat([next_tokens, torch.tensor(after)])
        if all(over):
            return replace(batch, wanted=wanted), hidden, next_tokens
        kept = torch.tensor(over)
        inside = torch.tensor([run for run, count in zip(over, batch.counts.tolist()) for _ in range(count)])
        wanted = (inside.cumsum(0) - 1)[wanted]
        return (ForwardBatch(batch.tokens[inside], batch.counts[kept], batch.contexts[kept], batch.block_tables[kept], wanted,
                             batch.prompt[kept]), hidden[inside], next_tokens[inside])

    def _settings(self, rows: InputBatch, readers: list[int]) -> Tensor:
        """(ahead, 5, readers): with the very numbers that the tokens themselves will be drawn with. As many ahead as the row
        with the least room has place for."""
        ahead = min([self._most(rows, row) for row in readers], default=1)
        samples = [rows.sequences[row].owner for row in readers]
        u = uniforms_of((made.seed, rows.count(row) + number) for number in range(ahead) for made, row in zip(samples, readers))
        columns = rows.reals if len(readers) == len(rows) else rows.reals[:, readers]
        return torch.cat([columns.expand(ahead, -1, -1), u.view(ahead, 1, -1)], dim=1)
