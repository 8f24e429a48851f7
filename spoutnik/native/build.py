"""Compiles the C++ kernels once, keeps the library in the user's cache, and loads it."""

import ctypes
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-ffast-math", "-std=c++17", "-fPIC")


class Unavailable(Exception):
    """The native kernels cannot be used: the reason, as a sentence."""


def compiler_command() -> str | None:
    """CXX, which may have arguments ("ccache g++"), or the first compiler on the path."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spoutnik"


def load(compiler: str | None, folder: Path, extra_flags: str = "",
         dlopen: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> tuple[ctypes.CDLL, Path]:
    """The library in `folder`, compiled where it is not there yet, and its file.

    Raises:
        Unavailable: no compiler, one that fails, or a folder that cannot be written or executed from.
    """
    try:
        command, extra = shlex.split(compiler or ""), shlex.split(extra_flags)
    except ValueError as error:
        raise Unavailable(f"CXX={compiler!r} with SPOUTNIK_NATIVE_FLAGS={extra_flags!r} is no command ({error})") from error
    if not command:
        raise Unavailable("no C++ compiler was found. Install g++ or clang++, or name one in CXX")
    flags = (*_FLAGS, *extra)
    # -march=native: a home folder may be shared by machines with different processors.
    sources = b"".join(file.read_bytes() for file in sorted(_FOLDER.glob("*.[hc]*")))
    identity = hashlib.sha256(sources + repr((flags, command, _processor())).encode()).hexdigest()[:16]
    path = folder / f"native-{identity}.so"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=folder) as temporary:
                if not path.exists():
                    _build(command, flags, Path(temporary), path)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be written ({error.strerror}). Set XDG_CACHE_HOME to a folder that can") from error
    try:
        return dlopen(str(path)), path
    except OSError as error:
        raise Unavailable(_why_not_loaded(path, str(error))) from error


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Holds a lock file; several processes that start at once wait for one that compiles. Where files have no locks (some
    network folders), each compiles for itself."""
    with open(lock, "a", encoding="utf-8") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _build(command: list[str], flags: tuple[str, ...], temporary: Path, path: Path) -> None:
    print("Compiling the native kernels (once, about 15 seconds) ...", file=sys.stderr, flush=True)
    sources, linked = sorted(_FOLDER.glob("*.cpp")), temporary / "native.so"
    objects = [str(temporary / f"{source.stem}.o") for source in sources]
    # Linked apart from -ffast-math: older g++ would add code that flushes denormals in the whole process.
    sanitizers = [flag for flag in flags if flag.startswith("-fsanitize")]
    _run_all([[*command, *flags, "-c", str(source), "-o", compiled] for source, compiled in zip(sources, objects)], temporary)
    _run_all([[*command, "-shared", *sanitizers, *objects, "-o", str(linked)]], temporary)
    os.replace(linked, path)


def _run_all(commands: list[list[str]], temporary: Path) -> None:
    """Runs commands in parallel; raises Unavailable with the last line of the compiler."""
    logs = [temporary / f"{number}.log" for number in range(len(commands))]
    processes = []
    try:
        for command, log in zip(commands, logs):
            with open(log, "wb") as output:
                processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output))
    except OSError as error:
        raise Unavailable(f"{commands[0][0]} cannot be run ({error.strerror}). Name a C++ compiler in CXX") from error
    finally:
        codes = [process.wait() for process in processes]
    for command, log, code in zip(commands, logs, codes):
        if code:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            words = " ".join(lines[-1].split())[:300] if lines else f"exit code {code}"
            raise Unavailable(f"{shlex.join(command[:2] if command[1][0] != '-' else command[:1])} failed: {words}")


def _why_not_loaded(path: Path, error: str) -> str:
    if "failed to map segment" in error:
        return (f"{path.parent} is on a disk that programs may not run from (noexec). Set XDG_CACHE_HOME to a folder on "
                "another disk")
    return f"{path} cannot be loaded ({error}). Delete it: it is compiled again"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return "".join(line for line in lines if line.startswith(("flags", "Features"))) or platform.machine() + platform.node()
