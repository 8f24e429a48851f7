"""Tensors of a GGUF file in memory: blocks dequantized by the `gguf` package, rows put into the published order."""

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from spoutnik.model.gguf_header import TYPES, Placed
from spoutnik.model.stored import Encoding
from spoutnik.model.weight_file import WeightFile

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PIECE = 1 << 15  # numbers decoded at a time: what stays in a cache, and torch converts without waking its threads


def decode(file: WeightFile, encoding: Encoding, target: Tensor) -> None:
    """Reads a tensor into `target` (of the published shape). Of rows as they are, only a piece is in memory twice."""
    if encoding.order == "rows" and target.is_contiguous():
        flat, placed = target.view(-1), encoding.pieces[0]
        step = max(1, _PIECE // placed.shape[-1]) * placed.shape[-1]
        for start in range(0, len(flat), step):
            part = flat[start:start + step]
            part.copy_(_numbers(file, placed, start, len(part)))
        return
    pieces = [_numbers(file, placed, 0, -1).view(placed.shape) for placed in encoding.pieces]
    if encoding.order == "pairs":
        target.copy_(halves(pieces[0], encoding.heads))
    elif encoding.order == "latent":
        keys, values = (piece.float() for piece in pieces)
        target.copy_(torch.cat([keys.transpose(1, 2), values], dim=1).flatten(0, 1))
    else:
        target.copy_(pieces[0])


def halves(projection: Tensor, heads: int) -> Tensor:
    """Rows (or biases) of rotated heads, from llama.cpp's adjacent pairs to the published halves (i, i + width/2)."""
    pairs = projection.unflatten(0, (heads, -1, 2))
    return pairs.transpose(1, 2).reshape(projection.shape)


def _numbers(file: WeightFile, placed: Placed, start: int, count: int) -> Tensor:
    """Numbers `start` to `start + count` (whole blocks; -1: all) of a tensor, flat: float32, or as they are stored."""
    _, block, nbytes = TYPES[placed.kind]
    size = placed.size if count < 0 else count // block * nbytes
    content = np.empty(size, np.uint8)
    file.read_into(placed.start + start // block * nbytes, memoryview(content))
    if placed.kind in _PLAIN:
        return torch.from_numpy(content).view(_PLAIN[placed.kind])
    return torch.from_numpy(gguf.quants.dequantize(content, GGMLQuantizationType[placed.kind]))
