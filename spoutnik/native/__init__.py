"""Compiles the kernels beside this file once, keeps the library in the user's cache, and hands it out; None where there is
no compiler.

Called through ctypes, which releases the interpreter's lock. No header of torch is needed, so building takes some seconds.
Everything native has a plain twin in Python, which is what runs without a compiler; the manifest of each stage says which
one ran. SPOUTNIK_NATIVE=0 chooses the plain twins.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-ffast-math", "-std=c++17", "-fPIC")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, built on first use."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or os.environ.get("SPOUTNIK_NATIVE") == "0":
        return None
    # The library is of this processor (-march=native): a home folder may be shared by machines of several kinds.
    sources = b"".join(file.read_bytes() for file in sorted(_FOLDER.glob("*.[hc]*")))
    identity = hashlib.sha256(sources + repr((_FLAGS, compiler, _processor())).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "spoutnik"
    path = folder / f"native-{identity}.so"
    if not path.exists() and not _build(compiler, path):
        return None
    return ctypes.CDLL(str(path))


def _build(compiler: str, path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            sources = sorted(_FOLDER.glob("*.cpp"))
            objects, built = [str(Path(folder) / f"{source.stem}.o") for source in sources], Path(folder) / "native.so"
            # Linked apart from -ffast-math: older g++ would add code that flushes denormals in the whole process.
            compilers = [subprocess.Popen([compiler, *_FLAGS, "-c", str(source), "-o", compiled], stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL) for source, compiled in zip(sources, objects)]
            if any([process.wait() for process in compilers]):
                return False
            if subprocess.run([compiler, "-shared", *objects, "-o", str(built)], capture_output=True).returncode:
                return False
            os.replace(built, path)
        return True
    except OSError:  # a home folder that cannot be written
        return False


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return "".join(line for line in lines if line.startswith(("flags", "Features"))) or platform.machine() + platform.node()
