"""The C++ kernels, called through ctypes, which releases the interpreter's lock; None where there is no compiler.

They need no header of torch, so they compile in seconds (build.py). Each has a plain twin in Python, which runs without a
compiler; the manifest of each stage records which one ran. SPOUTNIK_NATIVE=0 selects the plain twins, SPOUTNIK_NATIVE_FLAGS
adds compiler flags: with -mno-amx-tile, AMX's tiles are not used (amx.h), which sum bfloat16 in another order than the vectors.
"""

import ctypes
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spoutnik.native import build, kernels, structs


@dataclass(frozen=True)
class Kernels:
    """Which kernels run: the compiled library's file, compiler and instruction set, or the reason why there is none."""

    compiler: str | None = None
    path: Path | None = None
    instructions: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        if self.reason is not None:
            return f"plain PyTorch: {self.reason}"
        return f"native, {self.instructions}, compiled by {self.compiler}: {self.path}"


def library() -> ctypes.CDLL | None:
    """The compiled kernels, built on first use."""
    return _loaded()[0]


def describe() -> Kernels:
    """Which kernels run in this process."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[ctypes.CDLL | None, Kernels]:
    if os.environ.get("SPOUTNIK_NATIVE") == "0":
        return None, Kernels(reason="chosen by SPOUTNIK_NATIVE=0")
    compiler = build.compiler_command()
    try:
        native, path = build.load(compiler, build.cache_folder(), os.environ.get("SPOUTNIK_NATIVE_FLAGS", ""))
    except build.Unavailable as error:
        print(f"The native kernels are not used, which is several times slower: {error}. SPOUTNIK_NATIVE=0 silences this.",
              file=sys.stderr)
        return None, Kernels(compiler, reason=str(error))
    structs.check(native)
    kernels.declare(native)
    return native, Kernels(compiler, path, native.spoutnik_instruction_set().decode())
