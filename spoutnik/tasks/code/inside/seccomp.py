"""The filter of system calls: a small program for the kernel's BPF machine that answers the listed calls with an error.

It closes what limits and namespaces leave open: memory that belongs to no process (memfd, System V shared memory and queues),
tracing, keys, io_uring (whose work escapes filters) and everything that makes or enters namespaces or mounts. Numbers of the
calls: asm/unistd_64.h (x86_64), asm-generic/unistd.h (aarch64). On another processor there is no filter.
"""

import struct

EPERM, ENOSYS = 1, 38
RETURN_ERROR, RETURN_ALLOW, RETURN_KILL = 0x00050000, 0x7FFF0000, 0x80000000
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
CALL_NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
NAMESPACE_FLAGS = 0x7E020000  # of clone: every CLONE_NEW* that it takes
X32 = 0x40000000  # the second table of calls of x86_64

# name: (x86_64, aarch64)
REFUSED = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "io_uring_setup": (425, 425), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "pidfd_getfd": (438, 438), "kcmp": (312, 272), "quotactl": (179, 60), "acct": (163, 89),
}
CLONE, CLONE3 = (56, 220), (435, 435)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def _step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    """One instruction; `true` and `false` are how many to skip."""
    return struct.pack("=HBBI", code, true, false, value)


def program(machine: str) -> bytes:
    """The filter for a processor (`os.uname().machine`), 8 bytes an instruction; empty where it is not known."""
    if machine not in ARCHITECTURES:
        return b""
    column, architecture = ARCHITECTURES[machine]
    steps = [_step(LOAD, ARCHITECTURE), _step(JUMP_EQUAL, architecture, 1), _step(RETURN, RETURN_KILL),
             _step(LOAD, CALL_NUMBER), _step(JUMP_GREATER_EQUAL, X32, 0, 1), _step(RETURN, RETURN_ERROR | ENOSYS)]
    for numbers in REFUSED.values():
        steps += [_step(JUMP_EQUAL, numbers[column], 0, 1), _step(RETURN, RETURN_ERROR | EPERM)]
    # The flags of clone3 lie in memory, where a filter cannot look; libc then takes clone.
    steps += [_step(JUMP_EQUAL, CLONE3[column], 0, 1), _step(RETURN, RETURN_ERROR | ENOSYS),
              _step(JUMP_EQUAL, CLONE[column], 0, 3), _step(LOAD, FIRST_ARGUMENT),
              _step(JUMP_ANY_BIT, NAMESPACE_FLAGS, 0, 1), _step(RETURN, RETURN_ERROR | EPERM), _step(RETURN, RETURN_ALLOW)]
    return b"".join(steps)
