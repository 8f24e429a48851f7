"""Helpers shared by the benchmarks: what machine this is, the limits that it sets, the peers in their environments, how
results print.
"""

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "bf16", "sve")


def machine() -> dict:
    """The CPU model, usable cores, torch threads, and those of FLAGS that the CPU has (Linux; elsewhere no flags)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            info = file.read()
    except OSError:
        info = ""
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", info, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in FLAGS if flag in present],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def median_ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """median(ours) / median(peer), without a unit; both in one unit, taken in turns on one idle machine."""
    return statistics.median(ours) / statistics.median(peer)


def matmul_limit(shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, repeats: int = 7) -> float:
    """Seconds that nothing but the products (m, k) @ (k, n) of `shapes` take, one after the other.

    Each distinct shape is timed as the median of `repeats` samples of at least 5 ms, into a ready output, and counts as
    often as it occurs. Work around the products is not in it, so a program that needs these products, done apart and in
    this dtype, cannot be faster.
    """
    total = 0.0
    for m, k, n in dict.fromkeys(shapes):
        left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype).t()  # weights as nn.Linear keeps them
        out = torch.empty(m, n, dtype=dtype)
        once = min(_seconds(left, right, out, 1) for _ in range(3))
        calls = max(1, math.ceil(0.005 / once))
        samples = [_seconds(left, right, out, calls) for _ in range(repeats)]
        total += statistics.median(samples) * list(shapes).count((m, k, n))
    return total


def _seconds(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, calls: int) -> float:
    """Seconds of one product, as the mean of `calls` in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        torch.mm(left, right, out=out)
    return (time.perf_counter() - start) / calls


def ask_peer(script: str, request: dict | list, environment: str = "peers") -> dict | list:
    """What peers/`script` answers to `request`, in an environment that `make peers` makes: .venv-`environment`, or the
    folder that PEERS (for .venv-peers) or PEERS_VLLM (for .venv-vllm) names. Our settings of OpenMP are kept from it. Ends
    the program where the peer fails.
    """
    variable = {"peers": "PEERS", "vllm": "PEERS_VLLM"}[environment]
    here = Path(__file__).parent
    python = Path(os.environ.get(variable, here.parent / f".venv-{environment}")) / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python}: is not there. Make the peers' environments with `make peers`, or name a folder in {variable}.")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP", "KMP", "MALLOC"))}
    done = subprocess.run([python, here / "peers" / script], input=json.dumps(request), text=True, capture_output=True,
                          env=kept)
    if done.returncode:
        sys.exit(f"peers/{script} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def print_result(results: dict | list[dict]) -> None:
    """Print one result, or several, as table rows, then as the last line a JSON object, or a list of them.

    A result needs name, ours and unit (of ours, peer and limit: "tokens/s", "s", ...); peer and limit may be missing or
    None. ratio = ours / peer and share_of_limit = ours / limit are added where they are not given. For times, where
    less is better, a share is limit / ours: any unit that is "s", "ms" or "us" counts as a time, and then ratio is
    peer / ours, so that above 1 always means that ours is better. Other keys are passed through to the JSON object.
    """
    full = [_completed(result) for result in (results if isinstance(results, list) else [results])]
    for result in full:
        for key, value in result.items():
            if isinstance(value, (int, float, str)):
                print(f"{key:<28} {value:>24.4g}" if isinstance(value, float) else f"{key:<28} {value:>24}")
        print()
    print(json.dumps(full if isinstance(results, list) else full[0]))


def _completed(result: dict) -> dict:
    """The result with its ratio and share of the limit."""
    ours, peer, limit = (result.get(key) for key in ("ours", "peer", "limit"))
    is_time = result["unit"] in ("s", "ms", "us")
    ratio, share = (None if not x else x / ours if is_time else ours / x for x in (peer, limit))
    order = {"name": None, "ours": None, "peer": None, "limit": None, "unit": None, "ratio": ratio}
    return {**order, "share_of_limit": share, **result}
