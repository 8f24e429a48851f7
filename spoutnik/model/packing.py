"""Sequence packing: documents of mixed length side by side in one flat stream of tokens.

Every layer but attention works on the flat (T, ...) stream. Attention must not cross documents: it goes through them one by
one (the native kernel), or gathers them into a few rectangles of similar length (attention.py).

Shapes repeat on purpose: the stream is filled up to a multiple of 128, rectangles come in few sizes. oneDNN compiles a
kernel for every new shape, which takes ten times as long as running it (docs/results.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

# A rectangle's shortest row may leave this share of it empty; below, a new rectangle starts.
MIN_FILL = 0.7
STREAM_MULTIPLE = 128
_ROWS = (32, 16, 8, 4, 2, 1)

Value = TypeVar("Value")


def on_device(value: Value, device: torch.device) -> Value:
    """A tensor on the device, or a dataclass or dictionary with all tensors that it holds there. What is made on a CPU is there
    already."""
    if device.type == "cpu":
        return value
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: on_device(each, device) for key, each in value.items()}
    if is_dataclass(value):
        return replace(value, **{field.name: on_device(getattr(value, field.name), device) for field in fields(value)})
    return value


@dataclass(frozen=True)
class Rectangles:
    """The same tokens laid out for batched products. shapes: (rows, columns) of each rectangle; gather (sum of
    rows x columns): stream index for every cell, row by row; scatter (T,): cell of every stream token, the inverse on
    cells that are not padding."""

    shapes: tuple[tuple[int, int], ...]
    gather: Tensor
    scatter: Tensor


@dataclass(frozen=True)
class PackedSequences:
    """Where the documents lie in a flat stream of T tokens.

    lengths: tokens of each document, in stream order. padding: tokens at the end, up to a multiple of 128; they are a last
        document of their own, whose number is len(lengths), and count in no statistic.
    position_ids (T,): position of each token in its document. document_ids (T,): which document it is in.
    """

    lengths: tuple[int, ...]
    padding: int
    position_ids: Tensor
    document_ids: Tensor

    @property
    def last_tokens(self) -> Tensor:
        """(documents,) stream index of each document's last token."""
        return torch.tensor(self.lengths, device=self.position_ids.device).cumsum(0) - 1

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(self.lengths)

    @cached_property
    def sizes(self) -> Tensor:
        """Lengths of all documents, the padding included; together T."""
        return torch.tensor([*self.lengths, self.padding] if self.padding else self.lengths)

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device | str = "cpu", pad: bool = False) -> "PackedSequences":
        """The layout of documents of these lengths; with `pad`, the caller appends `padding` tokens to its stream."""
        assert lengths and min(lengths) > 0, "there must be documents, none of them empty"
        padding = -sum(lengths) % STREAM_MULTIPLE if pad else 0
        size = torch.tensor([*lengths, padding] if padding else list(lengths))
        document_ids = torch.repeat_interleave(torch.arange(len(size)), size)
        position_ids = torch.arange(int(size.sum())) - (size.cumsum(0) - size)[document_ids]
        return PackedSequences(tuple(lengths), padding, position_ids.to(device), document_ids.to(device))

    @cached_property
    def rectangles(self) -> Rectangles:
        size, device = self.sizes, self.position_ids.device
        lengths, starts = size.tolist(), size.cumsum(0) - size
        gather, scatter, shapes, cells = [], torch.empty(int(size.sum()), dtype=torch.long), [], 0
        for documents in similar_lengths(lengths):
            rows, columns = len(documents), rounded(lengths[documents[0]])
            chosen = torch.tensor(documents)
            offsets = torch.arange(columns)
            inside = offsets < size[chosen, None]
            index = starts[chosen, None] + offsets.minimum(size[chosen, None] - 1)
            gather.append(index.flatten())
            scatter[index[inside]] = cells + torch.arange(rows * columns).view(rows, columns)[inside]
            shapes.append((rows, columns))
            cells += rows * columns
        return Rectangles(tuple(shapes), torch.cat(gather).to(device), scatter.to(device))


def rounded(length: int) -> int:
    """The next of few widths: steps of 16 up to 128, then of 32, then of 64."""
    step = 16 if length <= 128 else 32 if length <= 256 else 64
    return -(-length // step) * step


def similar_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Document numbers in groups of 32, 16, 8, 4, 2 or 1, longest first, none below MIN_FILL of its group's width."""
    order = sorted(range(len(lengths)), key=lambda d: (-lengths[d], d))
    groups, start = [], 0
    while start < len(order):
        width = rounded(lengths[order[start]])
        end = start + 1
        while end < len(order) and lengths[order[end]] >= MIN_FILL * width - 4:
            end += 1
        for rows in _ROWS:
            while end - start >= rows:
                groups.append(order[start:start + rows])
                start += rows
    return groups
