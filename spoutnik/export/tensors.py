"""A checkpoint's tensors on their way into another file: dequantized, converted, and never a whole model in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from spoutnik.errors import RunError
from spoutnik.model.layout import SCALE
from spoutnik.model.weights import Reader

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_PIECE = 8 << 20  # numbers that are converted at a time: 32 MB in float32


def weight(reader: Reader, name: str) -> Tensor:
    """A published tensor as it is stored; float32 where it is stored in FP8 blocks."""
    stored = reader.checkpoint.tensors[name]
    if name + SCALE in reader.checkpoint.tensors:
        return reader.tensor([(name, ())], torch.Size(stored.shape), torch.float32)
    return reader.read(name)


def rows(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor as matrices (n, width of its last axis) that are small enough to convert one by one."""
    flat = tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() else tensor.reshape(1, 1)
    yield from flat.split(max(1, _PIECE // max(1, flat.shape[1])))


def converted(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """The same numbers rounded to `dtype`.

    Raises:
        RunError: some are too large for float16.
    """
    result = tensor.to(dtype)
    if dtype == torch.float16 and tensor.dtype != dtype and not result.isfinite().all() and tensor.isfinite().all():
        raise RunError(f"{name}: holds numbers up to {tensor.abs().max():.3g}, and float16 ends at 65504. Choose bf16.")
    return result


def raw(tensor: Tensor) -> memoryview:
    """The tensor's bytes as they lie in memory."""
    return memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy())
