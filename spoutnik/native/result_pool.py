"""A pool of blocks for large results, which come and go with every training step.

glibc (before 2.38) never reuses a freed aligned block for a request of the same size, so the heap grows and each new block is
faulted in page by page, which on a virtual machine takes longer than filling it. Blocks here return to the pool when their
tensor dies. A result for which there is none frees those unused the longest, so that the pool never exceeds what was in use.
"""

import ctypes
import threading
import weakref
from collections import OrderedDict, deque
from functools import cache
from math import prod

import torch
from torch import Tensor

_SMALLEST = 1 << 20  # bytes; below, the allocator's own free lists serve
_MAX_RATIO = 1.5  # of a block to the result in it
_free: OrderedDict[int, int] = OrderedDict()  # address -> bytes, unused the longest first
_returned: deque[tuple[int, int]] = deque()  # by tensors that died, in any thread at any moment: lock-free
_lock = threading.Lock()


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.aligned_alloc.restype, libc.aligned_alloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t, ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty` on the CPU, in a block of the pool where one fits."""
    size = prod(shape) * dtype.itemsize
    if size < _SMALLEST:
        return torch.empty(shape, dtype=dtype)
    address, capacity = _allocate(size)
    block = (ctypes.c_char * capacity).from_address(address)
    weakref.finalize(block, _returned.append, (address, capacity)).atexit = False
    return torch.frombuffer(block, dtype=dtype, count=prod(shape)).view(shape)


def free_bytes() -> int:
    """What the pool holds for next results."""
    return sum(_free.values()) + sum(capacity for _, capacity in list(_returned))


def _allocate(size: int) -> tuple[int, int]:
    """(address, bytes) of a block for `size` bytes."""
    with _lock:
        while _returned:
            address, capacity = _returned.popleft()
            _free[address] = capacity
        best = min(((capacity, address) for address, capacity in _free.items() if size <= capacity <= _MAX_RATIO * size),
                   default=None)
        if best is not None:
            return best[1], _free.pop(best[1])
        excess = capacity = -(-size // 4096) * 4096
        while _free and excess > 0:
            address, freed = _free.popitem(last=False)
            _libc().free(address)
            excess -= freed
        address = _libc().aligned_alloc(4096, capacity)
    if not address:
        raise MemoryError(f"{capacity:,} bytes")
    return address, capacity
