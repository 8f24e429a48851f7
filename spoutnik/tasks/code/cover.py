"""A program that root starts before bubblewrap where Python lies in a private folder (/root/.pyenv).

In a mount namespace of its own, each such folder is covered by an empty one that leads to Python alone; then it becomes the
other user and starts bubblewrap. Without a command it says `ready` and waits until its input ends: whoever has opened its
namespace by then enters it again and again (covered.py), without a Python that starts each time.

    python -I -S cover.py UID /root:/root/.pyenv/versions/3.11.7 -- [bwrap ...]
"""

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18  # linux/mount.h


def main(uid: int, covers: list[list[str]], command: list[str]) -> None:
    """covers: of each private folder its path and the paths in it that stay."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")

    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount /")
    for folder, *paths in covers:
        opened = [(path, os.open(path, os.O_PATH)) for path in paths]
        check(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=755,size=1m"), folder)
        for path, number in opened:
            os.makedirs(path, 0o755)
            check(libc.mount(b"/proc/self/fd/%d" % number, os.fsencode(path), None, MS_BIND | MS_REC, None), path)
            os.close(number)
    if not command:
        print("ready", flush=True)
        sys.stdin.read()
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execve(command[0], command, {})


if __name__ == "__main__":
    os.umask(0o022)
    end = sys.argv.index("--")
    main(int(sys.argv[1]), [cover.split(":") for cover in sys.argv[2:end]], sys.argv[end + 1:])
