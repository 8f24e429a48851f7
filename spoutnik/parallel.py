"""Data parallelism over the cores, one thread per core, every operation single-threaded; and over the processes of a run.

The products of a network of a few million parameters are too small to split: at 64 rows, two cores on one product take as
long as one, and ten times that on a shared machine where one of them sleeps. So the batch is split instead. torch releases
the interpreter's lock inside operations. On a GPU there is one worker and nothing changes.
"""

import ctypes
import gc
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from spoutnik.world import pulse, world

CPU = torch.device("cpu")
Item, Result = TypeVar("Item"), TypeVar("Result")


def cores() -> int:
    """Cores this process may use (an affinity mask or OMP_NUM_THREADS may leave fewer than the machine has)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(os.environ.get("OMP_NUM_THREADS", str(allowed)).split(",")[0])))


def physical_cores() -> int:
    """Of `cores()`, those that are not another's second thread (Linux says which; elsewhere all count)."""
    siblings = set()
    for cpu in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ():
        file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(file.read_text() if file.exists() else str(cpu))
    return min(len(siblings) or cores(), cores())


@cache
def keep_memory() -> None:
    """Makes glibc keep freed memory instead of returning it to the kernel, and Python's collector skip what was imported.

    A training step allocates and frees the same few hundred tensors again and again; by default each large one is mapped,
    faulted in page by page and unmapped (cost: docs/results.md).
    """
    gc.freeze()
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    m_trim_threshold, m_top_pad, m_mmap_threshold, m_arena_max = -1, -2, -3, -8  # malloc.h
    # Larger blocks go back to the kernel all the same: those that never fit again would pile up. Our own large results have
    # a pool (native/result_pool.py).
    mallopt(m_mmap_threshold, 32 << 20)
    mallopt(m_trim_threshold, 2**31 - 1)
    mallopt(m_top_pad, 64 << 20)
    mallopt(m_arena_max, 1)  # the arenas of other threads cannot grow past 64 MiB; the main one can


@cache
def _pool() -> ThreadPoolExecutor:
    keep_memory()
    torch.set_num_threads(1)
    # The thread count is a property of each thread in OpenMP, hence the initializer.
    return ThreadPoolExecutor(cores(), thread_name_prefix="core", initializer=torch.set_num_threads, initargs=(1,))


def on_all_cores(work: Callable[[Item], Result], items: Sequence[Item],
                 device: torch.device = CPU) -> list[Result]:
    """[work(item) for item in items], a thread per core, or one after another where a GPU computes (`device`). Results in
    order; the first exception is raised."""
    def one(item: Item) -> Result:
        result = work(item)
        pulse.beat()
        return result

    if device.type != "cpu":
        return [one(item) for item in items]
    keep_memory()
    if len(items) <= 1 or cores() == 1:
        torch.set_num_threads(1)
        return [one(item) for item in items]
    return list(_pool().map(one, items))


def on_all_ranks(work: Callable[[Item], Result], items: Sequence[Item], device: torch.device = CPU,
                 in_step: bool = False) -> list[Result]:
    """`on_all_cores` of all processes of the run, each of which has every result. Items are dealt one by one. in_step: the
    processes need each other for every item (weights that are divided among them): each works on as many as the others, one at
    a time."""
    here = world()
    if here.size == 1:
        return on_all_cores(work, items, device)
    if in_step:
        torch.set_num_threads(1)
        numbers = range(here.rank, -(-len(items) // here.size) * here.size, here.size)
        results = [work(items[min(number, len(items) - 1)]) for number in numbers]
        return here.gather_dealt(results[:len(range(here.rank, len(items), here.size))])
    return here.gather_dealt(on_all_cores(work, items[here.rank::here.size], device))


def parts(device: torch.device = CPU) -> int:
    """Into how many parts a batch is divided: a fixed number, where the recipe wants the same bytes on any machine, else one
    for each core of each process, or for each GPU."""
    here = world()
    return here.virtual_shards or here.size * ((here.cores or cores()) if device.type == "cpu" else 1)
