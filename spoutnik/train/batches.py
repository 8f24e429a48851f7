"""From token lists to packed micro-batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.model.packing import PackedSequences
from spoutnik.model.shared_prefixes import LEAST_SAVED, Segment, SharedPrefixes, common_beginnings


@dataclass(frozen=True)
class Document:
    """One training sequence. Only tokens from `loss_from` on are predicted (a prompt is read, not learned). cut: tokens that it
    had beyond the model's positions."""

    ids: Sequence[int]
    loss_from: int = 1
    cut: int = 0

    @property
    def predicted(self) -> int:
        return len(self.ids) - self.loss_from


@dataclass(frozen=True)
class PackedBatch:
    """T tokens of several documents. `positions` (N,) are the stream positions whose *next* token is predicted,
    `targets` (N,) those next tokens; `documents` are the packed documents' numbers in the caller's list."""

    input_ids: Tensor
    sequences: PackedSequences
    positions: Tensor
    targets: Tensor
    documents: tuple[int, ...]


def pack_documents(documents: Sequence[Document], chosen: Sequence[int]) -> PackedBatch:
    """Lays the chosen documents end to end."""
    flat, positions, start = [], [], 0
    for document in (documents[i] for i in chosen):
        flat += document.ids
        positions.append(torch.arange(start + document.loss_from - 1, start + len(document.ids) - 1))
        start += len(document.ids)
    sequences = PackedSequences.of([len(documents[i].ids) for i in chosen], pad=True)
    input_ids, where = torch.tensor(flat + [0] * sequences.padding), torch.cat(positions)
    return PackedBatch(input_ids, sequences, where, input_ids[where + 1], tuple(chosen))


def pack_sharing(documents: Sequence[Document], chosen: Sequence[int]) -> PackedBatch:
    """`pack_documents`, in which tokens that several documents begin with are computed once, where that saves enough. What a
    document predicts from is its own, so that positions and targets are the same documents' in the same order."""
    ids = [documents[i].ids for i in chosen]
    groups = common_beginnings(ids, [documents[i].loss_from - 1 for i in chosen])
    saved = sum(shared * (len(members) - 1) for members, shared in groups)
    if saved < LEAST_SAVED * sum(map(len, ids)):
        return pack_documents(documents, chosen)
    flat, segments, suffixes = [], [], {}
    for members, shared in groups:
        begin = len(flat)
        if shared:
            segments.append(Segment(begin, shared))
            flat += ids[members[0]][:shared]
        for i in members:
            suffixes[i] = Segment(len(flat), len(ids[i]) - shared, begin, shared)
            segments.append(suffixes[i])
            flat += ids[i][shared:]
    sequences = SharedPrefixes.of_segments(segments)
    where = [torch.arange(s.start + documents[chosen[i]].loss_from - 1 - s.prefix, s.start + s.length - 1)
             for i, s in sorted(suffixes.items())]
    input_ids, positions = torch.tensor(flat + [0] * sequences.padding), torch.cat(where)
    return PackedBatch(input_ids, sequences, positions, input_ids[positions + 1], tuple(chosen))


def micro_batches(lengths: Sequence[int], max_tokens: int, parts: int = 1) -> list[list[int]]:
    """Document numbers in groups of at most `max_tokens` tokens (a longer document gets a group of its own).

    Groups hold documents of similar length, so attention's rectangles fill well, and their number is a multiple of
    `parts` (the cores) where there are documents enough, so that no core waits for another's last group.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    count = min(-(-sum(lengths) // (max_tokens * parts)) * parts, len(order))
    target = min(max_tokens, -(-sum(lengths) // max(count, 1)))
    groups: list[list[int]] = []
    filled = 0
    for i in order:
        # A group closes once it is nearer to its share without the next document than with it.
        if not groups or filled + lengths[i] > max_tokens or filled + lengths[i] / 2 > target:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += lengths[i]
    return groups
