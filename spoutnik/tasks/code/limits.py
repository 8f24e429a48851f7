"""What a program in the sandbox may use, and what came of it."""

import os
from dataclasses import dataclass

SANDBOX_UID = 65_533  # whom root becomes before anything else: a number that Debian and systemd leave to nobody


LIMITED_UID, TESTS_UID = 65_532, 65_531  # under resource limits alone: for a program, for the tests of a solution
MOST_PATIENCE = 4  # times the limit of time that a program may take on a busy machine


@dataclass(frozen=True)
class Limits:
    """Limits of one program. Sizes in bytes.

    memory: resident memory of all its processes together, watched from outside every 20 ms.
    address_space: of each process, reserved or used; a single request beyond it is a MemoryError at once.
    processes: of the whole tree, threads included.
    scratch: /tmp, and again /dev/shm; also the largest file.
    output: of standard output and of standard error, each; what comes after that is dropped.
    """

    memory: int = 1 << 30
    address_space: int = 4 << 30
    processes: int = 64
    scratch: int = 64 << 20
    open_files: int = 256
    output: int = 1 << 20

    def for_processes(self) -> dict[str, int]:
        """The part that processes set themselves."""
        return {"address_space": self.address_space, "processes": self.processes, "scratch": self.scratch,
                "open_files": self.open_files}


@dataclass(frozen=True)
class RunResult:
    """What a program did.

    stdout, stderr: text; bytes that are no UTF-8 became U+FFFD.
    exit_code: as of `subprocess`: negative for a signal (-9 where it was killed for time or memory).
    truncated: it wrote more than `Limits.output`; the rest is not in stdout or stderr.
    out_of_memory: it was killed for the memory of its tree.
    """

    stdout: str
    stderr: str
    exit_code: int
    timed_out: bool
    truncated: bool = False
    out_of_memory: bool = False


def process_tree(root: int) -> list[int]:
    """A process and all its descendants, those that can still be seen."""
    processes = [root]
    for process in processes:  # grows on the way
        try:
            for task in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{task}/children", encoding="ascii") as file:
                    processes.extend(map(int, file.read().split()))
        except OSError:
            continue  # it has ended
    return processes


def resident_memory(processes: list[int]) -> int:
    """Bytes of memory that the processes hold: anonymous and shared pages, not those of files."""
    total = 0
    for process in processes:
        try:
            with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as file:
                total += sum(int(line.split()[1]) << 10 for line in file if line.startswith(("RssAnon:", "RssShmem:")))
        except OSError:
            continue
    return total


def seconds_used(processes: list[int]) -> float:
    """Processor seconds of the processes and of their children that have ended."""
    ticks = 0
    for process in processes:
        try:
            with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
                ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:15]))  # utime, stime, cutime, cstime
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def seconds_waited(processes: list[int]) -> float:
    """Seconds that the processes were ready to run and others had the processor; 0 where the kernel does not count them."""
    nanoseconds = 0
    for process in processes:
        try:
            with open(f"/proc/{process}/schedstat", encoding="ascii") as file:
                nanoseconds += int(file.read().split()[1])
        except OSError:
            continue
    return nanoseconds / 1e9


def is_overdue(elapsed: float, used: float, waited: float, timeout: float) -> bool:
    """Whether a program's time is over: a busy machine takes nothing from it, and it cannot gain by starting many processes.

    All in seconds: `elapsed` since its start, `used` processor time of its tree, `waited` for a processor.
    """
    if elapsed < timeout:
        return False
    return used >= timeout or elapsed - waited >= timeout or elapsed >= MOST_PATIENCE * timeout
