"""Memory for large results that come and go with every step.

glibc (before 2.38) never finds a freed aligned block again for a request of the same size, so the heap grows and each new
block is faulted in page by page, which on a virtual machine takes longer than filling it. Blocks here go back to a list when
their tensor dies, and the next result of that size takes one from it.
"""

import ctypes
import threading
import weakref
from math import prod

import torch
from torch import Tensor

SMALLEST = 1 << 20  # bytes; below, the allocator's own lists serve
_ALIGNMENT = 64
_free: dict[int, list[int]] = {}
_lock = threading.Lock()
_libc = ctypes.CDLL(None)
_libc.aligned_alloc.restype = ctypes.c_void_p
_libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty` on the CPU, from a block that an earlier result of about this size has left."""
    size = prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return torch.empty(shape, dtype=dtype)
    room = _rounded(size)
    with _lock:
        blocks = _free.setdefault(room, [])
        address = blocks.pop() if blocks else _libc.aligned_alloc(_ALIGNMENT, room)
    if not address:
        raise MemoryError(f"{room:,} bytes")
    block = (ctypes.c_char * room).from_address(address)
    weakref.finalize(block, blocks.append, address).atexit = False
    return torch.frombuffer(block, dtype=dtype, count=prod(shape)).view(shape)


def _rounded(size: int) -> int:
    """The next of eight sizes per doubling, so that results of like size share blocks."""
    step = 1 << max(size.bit_length() - 4, 16)
    return -(-size // step) * step
