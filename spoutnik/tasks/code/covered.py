"""The mount namespace in which root's private folders are covered (cover.py), made once and entered for each program.

util-linux's nsenter enters it, becomes the other user and starts bubblewrap within a millisecond or two; where there is none,
cover.py does all of it anew each time, which costs the start of a Python and is this module's plain twin.
"""

import os
import shutil
import subprocess
from functools import cache

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"  # where the system's programs are, whatever PATH says: root starts this one


def enter(prepare: tuple[str, ...], uid: int) -> list[str] | None:
    """What to put before a command that is to run as `uid` where folders are covered; None where that cannot be done here.
    prepare: the command that covers them (cover.py without one to start)."""
    nsenter = shutil.which("nsenter", path=SYSTEM)
    number = None if nsenter is None else _namespace(prepare)
    if number is None:
        return None
    # By its name among our open files, so that nothing behind nsenter inherits the namespace.
    line = [nsenter, f"--mount=/proc/{os.getpid()}/fd/{number}", f"--setgid={uid}", f"--setuid={uid}", "--"]
    return line if _starts(tuple(line)) else None


@cache
def _namespace(prepare: tuple[str, ...]) -> int | None:
    """An open file that keeps the namespace, for as long as this process lives; None where it cannot be made."""
    with subprocess.Popen(prepare, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        if process.stdout.readline() != b"ready\n":
            return None
        return os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


@cache
def _starts(line: tuple[str, ...]) -> bool:
    """Whether programs start behind it (containers may refuse to enter namespaces)."""
    tried = subprocess.run([*line, "/bin/true"], env={}, stdin=subprocess.DEVNULL, capture_output=True)
    return tried.returncode == 0
