"""How fast this machine reads memory: what bounds the speed of decoding, where every weight is read for every token."""

import ctypes
import time

import torch

from spoutnik.native import library
from spoutnik.parallel import cores

BYTES, RUNS = 2 << 30, 5  # far more than any cache holds


def read_bandwidth(size: int = BYTES, runs: int = RUNS) -> float:
    """Bytes per second: the fastest of `runs` reads of a block of `size` bytes by all cores. About a second.

    Without a compiler torch adds the numbers up, which is slower than the memory on some machines.
    """
    native = library()
    if native is not None:
        checksum = ctypes.c_uint64()
        return native.spoutnik_read_bandwidth(size, cores(), runs, ctypes.byref(checksum))
    block, fastest = torch.ones(size // 8, dtype=torch.int64), float("inf")
    for _ in range(runs):
        began = time.perf_counter()
        block.sum()
        fastest = min(fastest, time.perf_counter() - began)
    return size / fastest
