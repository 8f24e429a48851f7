"""Matrices packed for the native forward pass (native/packed_matrix.h): in panels, as floats (bfloat16 also in 12 bits without
loss: native/bf12.h) or quantized to 8 or 4 bits.
"""

import ctypes
import mmap
import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spoutnik.native import library
from spoutnik.native.kernels import address
from spoutnik.native.structs import KINDS, Matrix
from spoutnik.parallel import cores

_MAX_BF12_SHARE = 0.9  # of the bytes of bfloat16: weights that would take more are not packed as bf12
_BF12_RECORD = np.dtype([("index", np.uint32), ("value", np.uint16), ("unused", np.uint16)])
_HUGE_PAGE, _CHUNK = 2 << 20, 256 << 20
_chunk = np.empty(0, dtype=np.uint8)  # what is left of the last chunk of huge pages
_chunk_lock = threading.Lock()


@dataclass(frozen=True)
class PackedMatrices:
    """Matrices of one shape and kind: data (count, bytes) uint8; units (count,) float64, of the scales of each."""

    data: Tensor
    units: Tensor
    kind: int
    in_features: int
    out_features: int

    def __post_init__(self):
        """Raises ValueError: fewer bytes than the kernels read."""
        needed, count = _nbytes(self.kind, self.in_features, self.out_features), len(self.data)
        address("packed", "units", self.units, torch.float64, count)
        address("packed", "data", self.data, torch.uint8, count, max(self.data.shape[1], needed))

    def check_exceptions(self) -> None:
        """Raises ValueError: an exception of a bf12 matrix lies outside of it. Reads what follows the panels."""
        if self.kind == KINDS["bf12"]:
            for row in self.data:
                bf12_exceptions(row.numpy(), self.in_features, self.out_features)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def matrix(self, number: int = 0, bias: Tensor | None = None) -> Matrix:
        """The structure for the kernels. It holds addresses: its owner keeps `self` and `bias`."""
        bias = None if bias is None else address("packed", "bias", bias, torch.float32, self.out_features)
        return Matrix(self.data[number].data_ptr(), bias, self.kind, self.in_features, self.out_features,
                      float(self.units[number]))


def pack(weights: list[Tensor], kind: str) -> PackedMatrices:
    """Packs matrices (out, in) of one shape, float32 or bfloat16 (others are converted), as one of KINDS; "bf12" becomes
    "bfloat16" if the upper bytes of the weights take too many values."""
    weights = [(weight if weight.dtype in (torch.float32, torch.bfloat16) else weight.float()).detach().contiguous()
               for weight in weights]
    if kind == "bf12":
        return _pack_bf12(weights) or pack(weights, "bfloat16")
    out_features, in_features = weights[0].shape
    data = empty_in_huge_pages(len(weights), _nbytes(KINDS[kind], in_features, out_features))
    units = torch.tensor([_unit(weight, kind) for weight in weights], dtype=torch.float64)
    packed = PackedMatrices(data, units, KINDS[kind], in_features, out_features)
    for row, weight in enumerate(weights):
        library().spoutnik_pack_matrix(*_weight_arguments(weight, weights[0]), ctypes.byref(packed.matrix(row)),
                                       data[row].data_ptr(), cores())
    return packed


def _pack_bf12(weights: list[Tensor]) -> PackedMatrices | None:
    """None if one of them would save too little."""
    out_features, in_features = weights[0].shape
    capacity = int(_MAX_BF12_SHARE * _nbytes(KINDS["bfloat16"], in_features, out_features))
    buffer = torch.empty(capacity, dtype=torch.uint8)
    matrix, rows = Matrix(None, None, KINDS["bf12"], in_features, out_features, 1.0), []
    for weight in weights:
        size = library().spoutnik_pack_bf12(*_weight_arguments(weight, weights[0]), ctypes.byref(matrix), buffer.data_ptr(),
                                            capacity, cores())
        if not size:
            return None
        rows.append(buffer[:size].clone() if len(weights) > 1 else buffer[:size])
    data = empty_in_huge_pages(len(weights), max(map(len, rows)))
    for target, row in zip(data, rows):
        target[:len(row)] = row
    return PackedMatrices(data, torch.ones(len(weights), dtype=torch.float64), KINDS["bf12"], in_features, out_features)


def _weight_arguments(weight: Tensor, first: Tensor) -> tuple[int, bool]:
    """Address, and whether it is bfloat16, of a weight shaped like the first one."""
    half = weight.dtype == torch.bfloat16
    return address("pack", "weight", weight, torch.bfloat16 if half else torch.float32, *first.shape), half


def _nbytes(kind: int, in_features: int, out_features: int) -> int:
    """Bytes of a packed matrix, without the exceptions of bf12."""
    return library().spoutnik_packed_nbytes(kind, in_features, out_features)


def _unit(weight: Tensor, kind: str) -> float:
    """Brings the largest scale (int8), or what the largest scale is a multiple of (int4: of a range of 15 steps, in 255ths), to
    about 1024, in the middle of the range of half precision."""
    divisor = {"int8": 127, "int4": 15 * 255 / 2}.get(kind)
    return 1.0 if divisor is None else float(weight.abs().amax()) / divisor / 1024 or 1.0


def multiply(packed: PackedMatrices, x: Tensor, number: int = 0, threads: int = 1) -> Tensor:
    """x (rows, in) float32 times a packed matrix transposed: (rows, out) float32. Twin: tests/packed_reference.py."""
    x, y = x.contiguous(), torch.empty(len(x), packed.out_features)  # a copy must outlive the call
    library().spoutnik_multiply_packed(ctypes.byref(packed.matrix(number)),
                                       address("multiply", "x", x, torch.float32, len(x), packed.in_features), y.data_ptr(),
                                       len(x), threads)
    return y


def panel_outputs() -> int:
    """Outputs of a whole panel."""
    return 4 * library().spoutnik_lanes()


def unpack_rows(packed: PackedMatrices, first: int, last: int, number: int = 0) -> Tensor:
    """Outputs [first, last) of a matrix of 8 or 4 bits as the numbers that they stand for: (last - first, in) float32. first
    begins a panel. Twin: tests/packed_reference.py."""
    width = panel_outputs()
    assert packed.kind in (KINDS["int8"], KINDS["int4"]) and first % width == 0 and first < last <= packed.out_features
    rows = torch.empty(min(-(-last // width) * width, packed.out_features) - first, packed.in_features)
    library().spoutnik_unpack_panels(ctypes.byref(packed.matrix(number)), first // width, -(-last // width), rows.data_ptr())
    return rows[:last - first]


def panel_widths(out_features: int) -> list[int]:
    """Outputs of each panel: four vectors, in the last one what is left, rounded up to a vector."""
    lanes = library().spoutnik_lanes()
    full, rest = divmod(-(-out_features // lanes), 4)
    return [4 * lanes] * full + [rest * lanes] * (rest > 0)


def bf12_exceptions(data: np.ndarray, in_features: int, out_features: int) -> list[np.ndarray]:
    """The exceptions of each panel of a bf12 matrix, which follow the panels. Raises ValueError: they lie outside of it."""
    widths, inputs = panel_widths(out_features), in_features + in_features % 2
    parts, tail = -(-inputs // 128), data[_nbytes(KINDS["bf12"], in_features, out_features):]
    count = len(widths) * parts + 1
    starts = np.frombuffer(tail[:8 * count].tobytes(), dtype=np.int64)
    if len(starts) != count or starts[0] or (np.diff(starts) < 0).any() or starts[-1] > len(tail) // 8 - count:
        raise ValueError("packed: a bf12 matrix ends before its exceptions do")
    exceptions = np.frombuffer(tail[8 * count:8 * (count + starts[-1])].tobytes(), dtype=_BF12_RECORD)
    panels = []
    for width, first in zip(widths, range(0, count - 1, parts)):
        begins = starts[first:first + parts + 1]
        panel = exceptions[begins[0]:begins[-1]]
        bounds, indices = np.append(np.arange(parts) * 128, inputs) * width, panel["index"].astype(np.int64)
        if (np.diff(indices) <= 0).any() or (indices.searchsorted(bounds) != begins - begins[0]).any():
            raise ValueError("packed: a bf12 matrix has exceptions outside of their part")
        panels.append(panel)
    return panels


def empty_in_huge_pages(count: int, size: int) -> Tensor:
    """(count, size or a little more) bytes. Large results lie in huge pages, which saves address translation every 4 KiB; they
    are cut from chunks, since a mapping of its own for each would waste the pages at its ends."""
    global _chunk
    size = -(-size // 64) * 64
    total = count * size
    if total < 1 << 20 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(total + 64, dtype=torch.uint8)[:total].view(count, size)
    with _chunk_lock:  # a server reads several models at once
        if total > len(_chunk):
            # Private: shared memory, Python's default, gets no huge pages.
            pages = mmap.mmap(-1, max(total, _CHUNK) + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            pages.madvise(mmap.MADV_HUGEPAGE)
            _chunk = np.frombuffer(pages, dtype=np.uint8)
            _chunk = _chunk[-_chunk.ctypes.data % _HUGE_PAGE:]
        block, _chunk = _chunk[:total], _chunk[total:]
    return torch.from_numpy(block).view(count, size)
