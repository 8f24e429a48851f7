"""Fresh namespaces for one child of the zygote, and giving up every right in them. Linux only; through libc, as Python 3.11 has
no `unshare`. Numbers: linux/sched.h, linux/mount.h, linux/prctl.h, linux/capability.h.
"""

import ctypes
import os
import signal
import socket
import sys

from . import seccomp

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 22, 24, 38
CLONE = {"x86_64": 56, "aarch64": 220}  # the numbers of the system call
CAPABILITY_VERSION_3 = 0x20080522
libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(kind: bytes, target: bytes, options: bytes | None = None) -> None:
    flags = MS_NOSUID | MS_NODEV | (MS_NOEXEC if kind == b"proc" else 0)
    _check(libc.mount(kind, target, kind, flags, options), target.decode())


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY)
    os.write(file, text.encode())
    os.close(file)


def fork_into_new() -> int:
    """Fork into new user, process, network, IPC, host-name and mount namespaces, in one system call; 0 in the child.

    Python's own fork would need two forks for it (`unshare`, then a child). The child may do little: nothing has told Python or
    libc that it is another process, which the fork of the program, soon after, makes good.
    """
    flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWUTS
    process = ctypes.PyDLL(None, use_errno=True).syscall(CLONE[os.uname().machine], flags | signal.SIGCHLD, 0, 0, 0, 0)
    if process < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "clone")
    return process


def enter(job: dict, uid: int, gid: int) -> None:
    """Settle in the new namespaces, with an empty /tmp and /dev/shm, as process 1. Returns in the child that is to run the
    program; process 1 tells the host the exit status and, by ending, ends all that the program left behind.
    """
    control = socket.socket(fileno=job.pop("control"))
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
        process = os.pidfd_open(1)
        socket.send_fds(control, [b"started"], [process])
        os.close(process)
        size = b"size=%d,nr_inodes=4096,mode=1777" % job["limits"]["scratch"]
        _mount(b"proc", b"/proc")
        _mount(b"tmpfs", b"/tmp", size)
        _mount(b"tmpfs", b"/dev/shm", size)
        _write("/proc/sys/user/max_user_namespaces", "0")  # none below this one
        child = os.fork()
    except OSError as error:
        control.send(f"failed {error}".encode()[:1000])
        os._exit(1)
    if child:
        _reap(child, control, [job[name] for name in ("source", "stdin", "stdout", "stderr", "channel") if name in job])
    control.close()
    _drop_capabilities()


def _reap(child: int, control: socket.socket, files: list[int]) -> None:
    """Process 1: waits for the program and for orphans, then ends with the program."""
    for file in [0, 1, 2, *files]:
        os.close(file)
    while True:
        process, status = os.wait()
        if process == child:
            control.send(f"exit {os.waitstatus_to_exitcode(status)}".encode())
            os._exit(0)


def _drop_capabilities() -> None:
    """No capability is left, permitted or to be had again."""
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # an error says that this kernel has fewer
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


class Filter(ctypes.Structure):
    """A filter of system calls as the kernel wants it (struct sock_fprog)."""

    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


CALLS = seccomp.program(os.uname().machine)


def confine() -> None:
    """Forbid the system calls of `seccomp` to this process and its children."""
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if CALLS:
        _check(libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(Filter(len(CALLS) // 8, CALLS)), 0, 0), "seccomp")


def drop_root(uid: int, reach: int) -> None:
    """Become `uid`, with the standard library found through the open folder `reach`: it may lie where that user cannot go."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _check(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")  # or /proc/self/fd belongs to root
    sys.path[:] = [path.replace(sys.base_prefix, f"/proc/self/fd/{reach}") for path in sys.path]
    sys.path_importer_cache.clear()
