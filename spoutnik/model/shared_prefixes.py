"""Sequence packing in which common beginnings are computed once.

Conversations begin alike: with the template's system text, and the completions of one prompt with the whole of it. Causal
attention makes the states of a beginning the same in all of them, so the stream holds it once, before the tokens in which they
differ, and these attend to it as if it stood before each. Gradients add up in it.

A stream is a row of segments. A segment is a beginning, or what follows one in one document; a document without a common
beginning is a segment that follows nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spoutnik.model.packing import STREAM_MULTIPLE, PackedSequences, rounded, similar_lengths

LEAST_SAVED = 0.125  # of the tokens: below, documents one by one are faster (they have a kernel)


@dataclass(frozen=True)
class Segment:
    """Stream tokens start to start + length, which follow those from prefix_start to prefix_start + prefix."""

    start: int
    length: int
    prefix_start: int = 0
    prefix: int = 0


@dataclass(frozen=True)
class Block:
    """Segments that follow the same beginning, as a rectangle of rows x columns for batched products."""

    rows: int
    columns: int
    prefix_start: int
    prefix: int


@dataclass(frozen=True)
class SharedPrefixes(PackedSequences):
    """`lengths` and `document_ids` are of segments. Positions go on where the beginning ends."""

    segments: tuple[Segment, ...] = ()

    @staticmethod
    def of_segments(segments: Sequence[Segment]) -> "SharedPrefixes":
        """Of segments that lie end to end. The stream is filled up with a last segment of padding, up to a 16th of it: few
        lengths, as packing.py explains."""
        total = segments[-1].start + segments[-1].length
        padding = -total % min(STREAM_MULTIPLE, max(16, (1 << total.bit_length()) >> 5))
        every = [*segments, *([Segment(total, padding)] if padding else [])]
        positions = torch.cat([torch.arange(s.prefix, s.prefix + s.length) for s in every])
        numbers = torch.repeat_interleave(torch.arange(len(every)), torch.tensor([s.length for s in every]))
        return SharedPrefixes(tuple(s.length for s in segments), padding, positions, numbers, tuple(every))

    @cached_property
    def before(self) -> Tensor:
        """(segments,) the number of the segment that each follows, its own where it follows none; the padding included."""
        number = {segment.start: i for i, segment in enumerate(self.segments)}
        return torch.tensor([number[s.prefix_start] if s.prefix else i for i, s in enumerate(self.segments)])

    @cached_property
    def longest(self) -> int:
        return max(segment.prefix + segment.length for segment in self.segments)

    @cached_property
    def _followed(self) -> tuple[Tensor, Tensor]:
        """documents (D,): the segments that are a document or its end; before (D,): the segment of the beginning that each
        follows, or one beyond the last, of none."""
        count = len(self.lengths)
        number = {s.start: i for i, s in enumerate(self.segments[:count])}
        begins = {number[s.prefix_start] for s in self.segments[:count] if s.prefix}
        documents = [i for i in range(count) if i not in begins]
        before = [number[self.segments[i].prefix_start] if self.segments[i].prefix else count for i in documents]
        return tuple(torch.tensor(numbers, device=self.position_ids.device) for numbers in (documents, before))

    @cached_property
    def multiplicity(self) -> Tensor:
        """(T,) in how many documents each stream token stands, padding left out."""
        documents, before = self._followed
        count = len(self.lengths)
        times = before.new_zeros(count + 1).index_add_(0, before, torch.ones_like(before))
        times[documents] = 1
        return times[:count].repeat_interleave(before.new_tensor(self.lengths))

    def per_document(self, sums: Tensor) -> Tensor:
        """Sums over segments (S, W) as sums over whole documents (D, W)."""
        documents, before = self._followed
        return sums[documents] + torch.cat([sums, torch.zeros_like(sums[:1])])[before]

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], Tensor, Tensor]:
        """The rectangles; gather (all cells,): the stream index of each; scatter (T,): the cell of each stream token, the
        inverse on cells that are not padding (see `packing.Rectangles`)."""
        followers: dict[tuple[int, int], list[Segment]] = {}
        for segment in self.segments:
            followers.setdefault((segment.prefix_start, segment.prefix) if segment.prefix else (0, 0), []).append(segment)
        blocks, gather, scatter, cells = [], [], torch.empty(len(self.position_ids), dtype=torch.long), 0
        for (prefix_start, prefix), segments in followers.items():
            for chosen in similar_lengths([s.length for s in segments]):
                starts = torch.tensor([segments[i].start for i in chosen])[:, None]
                lengths = torch.tensor([segments[i].length for i in chosen])[:, None]
                rows, columns = len(chosen), rounded(int(lengths.max()))
                offsets = torch.arange(columns)
                inside, index = offsets < lengths, starts + offsets.minimum(lengths - 1)
                gather.append(index.flatten())
                scatter[index[inside]] = cells + torch.arange(rows * columns).view(rows, columns)[inside]
                blocks.append(Block(rows, columns, prefix_start, prefix))
                cells += rows * columns
        device = self.position_ids.device
        return tuple(blocks), torch.cat(gather).to(device), scatter.to(device)


def common_beginnings(ids: Sequence[Sequence[int]], at_most: Sequence[int]) -> list[tuple[list[int], int]]:
    """Documents in groups, and how many first tokens those of a group share: the groups that save most, found greedily among
    neighbors in the order of their tokens.

    Args:
        at_most: of each document, the most that may be shared.
    """
    order = sorted(range(len(ids)), key=lambda i: list(ids[i]))
    groups: list[tuple[list[int], int]] = []
    for i in order:
        if groups:
            members, shared = groups[-1]
            both = min(shared, at_most[i], _common(ids[members[-1]], ids[i], shared))
            if both * len(members) >= shared * (len(members) - 1) and both > 0:
                groups[-1] = ([*members, i], both)
                continue
        groups.append(([i], at_most[i]))
    return [(members, shared if len(members) > 1 else 0) for members, shared in groups]


def _common(one: Sequence[int], other: Sequence[int], most: int) -> int:
    return next((n for n in range(min(most, len(one), len(other))) if one[n] != other[n]), min(most, len(one), len(other)))
