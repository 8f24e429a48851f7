"""Tensors of a GGUF file in memory: blocks dequantized, rows put into the published order.

The native kernel reads and decodes in one pass on all cores; its plain twin is the `gguf` package's dequantization.
"""

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from spoutnik.model.gguf_header import TYPES, Placed
from spoutnik.model.stored import Encoding
from spoutnik.model.weight_file import WeightFile
from spoutnik.native import kernels, library
from spoutnik.parallel import cores

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # types that are not blocks
_PIECE = 1 << 15  # numbers decoded at a time: what stays in a cache, and torch converts without waking its threads
# The kernel for a type, and its T.
_KERNELS = {torch.float32: ("read_numbers", torch.float32), torch.bfloat16: ("read_numbers", torch.bfloat16),
            torch.float16: ("read_numbers_float16", None)}


def decode(file: WeightFile, encoding: Encoding, target: Tensor) -> None:
    """Reads a tensor into `target` (of the published shape). Of rows as they are, no more than a piece is in memory twice."""
    if encoding.order == "rows" and target.is_contiguous():
        read_numbers(file, encoding.pieces[0], target.view(-1))
        return
    pieces = [torch.empty(placed.shape, dtype=target.dtype) for placed in encoding.pieces]
    for piece, placed in zip(pieces, encoding.pieces):
        read_numbers(file, placed, piece.view(-1))
    if encoding.order == "pairs" and target.is_contiguous() and target.device.type == "cpu":
        _bytes(target)[:] = halves(_bytes(pieces[0]), encoding.heads)  # by numpy: torch would wake its threads for each
    elif encoding.order == "pairs":
        target.copy_(torch.from_numpy(halves(_bytes(pieces[0]), encoding.heads)).view(target.dtype).view(target.shape))
    elif encoding.order == "latent":
        keys, values = pieces
        target.copy_(torch.cat([keys.transpose(1, 2), values], dim=1).flatten(0, 1))
    else:
        target.copy_(pieces[0])


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows (or biases) of rotated heads, from llama.cpp's adjacent pairs to the published halves (i, i + width/2)."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _bytes(tensor: Tensor) -> np.ndarray:
    """The bytes of each row, in place."""
    return tensor.view(len(tensor), -1).view(torch.uint8).numpy()


def read_numbers(file: WeightFile, placed: Placed, target: Tensor) -> None:
    """All numbers of a tensor of the file, in their order, into `target` (contiguous, flat, of any type)."""
    if target.device.type != "cpu":
        on_cpu = torch.empty(target.shape, dtype=target.dtype)
        read_numbers(file, placed, on_cpu)
        target.copy_(on_cpu)
    elif (kernel := _KERNELS.get(target.dtype)) is None or library() is None:
        read_numbers_plain(file, placed, target)
    else:
        file.check_read(kernels.call(library(), *kernel, file.fileno(), placed.start, TYPES[placed.kind][0], target, cores()))


def read_numbers_plain(file: WeightFile, placed: Placed, target: Tensor) -> None:
    """The plain twin of `read_numbers`, for any target."""
    _, block, nbytes = TYPES[placed.kind]
    for start in range(0, len(target), _PIECE):  # whole blocks
        part = target[start:start + _PIECE]
        content = np.empty(len(part) * nbytes // block, np.uint8)
        file.read_into(placed.start + start // block * nbytes, memoryview(content))
        if placed.kind in PLAIN:
            part.copy_(torch.from_numpy(content).view(PLAIN[placed.kind]))
        else:
            part.copy_(torch.from_numpy(gguf.quants.dequantize(content, GGMLQuantizationType[placed.kind])))
