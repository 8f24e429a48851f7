"""How fast this machine reads memory, in GB/s: the limit in the benchmarks of decoding. By our compiled loop on one core and
on all (spoutnik/native/bandwidth.cpp), and as numpy and torch read the same amount. Seconds.

    python benchmarks/memory_bandwidth.py
"""

import ctypes
import time

import numpy as np
import torch
from common import machine, print_result

from spoutnik.native import library
from spoutnik.native.bandwidth import BYTES, RUNS, read_bandwidth


def fastest(work) -> float:
    """GB/s of the best of RUNS calls."""
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return BYTES / min(seconds) / 1e9


def main() -> None:
    print(machine())
    one_core = None
    if library() is not None:
        one_core = library().spoutnik_read_bandwidth(BYTES, 1, RUNS, ctypes.byref(ctypes.c_uint64())) / 1e9
    ours, block = read_bandwidth() / 1e9, np.ones(BYTES // 8, dtype=np.int64)
    tensor = torch.from_numpy(block)
    print_result({"name": "memory_bandwidth", "ours": ours, "unit": "GB/s", "one_core": one_core,
                  "torch": fastest(tensor.sum), "numpy": fastest(block.sum)})


if __name__ == "__main__":
    main()
