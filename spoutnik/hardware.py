"""Facts about this machine: processor, memory, the type to compute in."""

import os
import platform
import re
import resource
import sys
from pathlib import Path

import torch

from spoutnik.native import library
from spoutnik.parallel import cores


def compute_dtype(setting: str) -> torch.dtype:
    """"auto" is bfloat16 where the processor multiplies it in hardware, float32 elsewhere."""
    if setting != "auto":
        return getattr(torch, setting)
    return torch.bfloat16 if torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def peak_memory() -> int:
    """Peak resident bytes of this process so far (Linux counts KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int:
    """Bytes that Linux says are available without swapping; elsewhere half of the machine's memory."""
    info = Path("/proc/meminfo")
    match = re.search(r"MemAvailable:\s+(\d+) kB", info.read_text()) if info.exists() else None
    if match is not None:
        return int(match[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def machine() -> dict[str, str | int]:
    """The `machine` entry of a stage's manifest."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:(.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return {"cores": cores(), "cpu": name[1].strip() if name else model, "system": platform.system(),
            "kernels": "plain" if library() is None else "native"}
