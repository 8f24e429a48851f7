"""Facts about this machine: processor, memory, the type to compute in."""

import os
import platform
import re
import resource
import sys
from pathlib import Path

import torch

from spoutnik.errors import UserError
from spoutnik.native import library
from spoutnik.parallel import CPU, cores

_FIRST_WITH_BFLOAT16 = (8, 0)  # compute capability: Ampere


def compute_dtype(setting: str, device: torch.device | None = None) -> torch.dtype:
    """"auto" is bfloat16 where the device (None: that of "auto") multiplies it in hardware, float32 elsewhere."""
    if setting != "auto":
        return getattr(torch, setting)
    if (device or compute_device("auto")).type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= _FIRST_WITH_BFLOAT16 else torch.float32
    return torch.bfloat16 if _processor_multiplies_bfloat16() else torch.float32


def _processor_multiplies_bfloat16() -> bool:
    """oneDNN's own answer is yes on every x86 processor with AVX-512: where there is no instruction for it, it emulates, at a
    third of float32's speed."""
    has = torch.cpu.get_capabilities()
    if has.get("architecture") == "x86_64":
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def compute_device(setting: str, source: str = "") -> torch.device:
    """"auto" is the GPU where there is one that torch can use, else the processor.

    Args:
        source: what asked, with a colon and a space, for the error.
    Raises:
        UserError: the setting names a GPU, and there is none.
    """
    if setting == "auto":
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(setting)
    except RuntimeError:
        raise UserError(f"{source}device {setting!r}: is no device. Write auto, cpu, cuda, or cuda:1 for the second "
                        "GPU.") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"{source}device {setting!r}: Spoutnik computes on cpu and cuda. Choose one of them, or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        build = "" if torch.version.cuda else ": this build of torch has no CUDA"
        raise UserError(f"{source}device {setting!r}: torch sees {torch.cuda.device_count()} GPUs here{build}. Choose cpu or "
                        "auto, or install torch for CUDA and its driver.")
    return device


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


def machine(device: torch.device = CPU) -> dict[str, str | int]:
    """The `machine` entry of a stage's manifest. device: that computed; of a GPU the peak of its memory, too."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:(.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    facts = {"cores": cores(), "cpu": name[1].strip() if name else model, "system": platform.system(),
             "kernels": "plain" if library() is None else "native"}
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(device), "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(device)}
    return facts
