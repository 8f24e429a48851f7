"""Memory for large results that come and go with every step.

glibc (before 2.38) never finds a freed aligned block again for a request of the same size, so the heap grows and each new
block is faulted in page by page, which on a virtual machine takes longer than filling it. Blocks here come back when their
tensor dies, and the next result of about that size takes one. A result that finds none pays for its new block with those
unused the longest: what is kept never exceeds what was once in use.
"""

import ctypes
import threading
import weakref
from collections import OrderedDict, deque
from functools import cache
from math import prod

import torch
from torch import Tensor

SMALLEST = 1 << 20  # bytes; below, the allocator's own lists serve
_LOOSEST = 1.5  # a block may be larger than its result by this
_free: OrderedDict[int, int] = OrderedDict()  # address -> bytes, unused the longest first
_returned: deque[tuple[int, int]] = deque()  # by tensors that died, at any moment and in any thread: hence no lock there
_lock = threading.Lock()


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.aligned_alloc.restype = ctypes.c_void_p
    libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty` on the CPU, in a block that an earlier result has left where there is one."""
    size = prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return torch.empty(shape, dtype=dtype)
    address, room = _block(size)
    block = (ctypes.c_char * room).from_address(address)
    weakref.finalize(block, _returned.append, (address, room)).atexit = False
    return torch.frombuffer(block, dtype=dtype, count=prod(shape)).view(shape)


def kept_bytes() -> int:
    """What waits for a next result."""
    return sum(_free.values()) + sum(room for _, room in list(_returned))


def _block(size: int) -> tuple[int, int]:
    """(address, bytes) of a block for `size` bytes."""
    with _lock:
        while _returned:
            address, room = _returned.popleft()
            _free[address] = room
        fitting = min(((room, address) for address, room in _free.items() if size <= room <= _LOOSEST * size), default=None)
        if fitting is not None:
            del _free[fitting[1]]
            return fitting[1], fitting[0]
        room = -(-size // 4096) * 4096
        debt = room
        while _free and debt > 0:
            address, old = _free.popitem(last=False)
            _libc().free(address)
            debt -= old
        address = _libc().aligned_alloc(4096, room)
    if not address:
        raise MemoryError(f"{room:,} bytes")
    return address, room
