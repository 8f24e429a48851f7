"""Jobs: processes in the sandbox as the host sees them, and the loop that attends to them until they end or must end.

The thread that asks for a verdict does all of it itself: reading output up to the limit, the deadline, the memory of the tree.
"""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from spoutnik.errors import RunError
from spoutnik.tasks.code.limits import Limits, is_overdue, process_tree, resident_memory, seconds_used, seconds_waited

TICK = 0.02  # seconds between two looks at the memory
START_PATIENCE = 60.0  # seconds until a job must have started; a machine may be busy
SIGNALS = {128 + number: -number for number in (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL,
                                                signal.SIGSEGV, signal.SIGPIPE, signal.SIGALRM, signal.SIGTERM)}


class Job:
    """One program on its way. `process` is a pidfd of the first process of its tree, which becomes readable at the end."""

    process: int | None = None
    exit_code: int | None = None

    def files(self) -> list[int]:
        """What to wait for besides the pidfd."""
        return []

    def read(self, file: int) -> None:
        """Take in what one of `files` has."""

    def kill(self) -> None:
        """End the whole tree."""

    def close(self) -> None:
        """Release what the job holds, after its end."""
        if self.process is not None:
            os.close(self.process)
            self.process = None

    @property
    def root(self) -> int:
        """The process number of the tree's first process, here; -1 once it has ended."""
        with open(f"/proc/self/fdinfo/{self.process}", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("Pid:")), -1)


class ZygoteJob(Job):
    """A child of the zygote: process 1 of its own namespaces, whose end is everybody's end there."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def files(self) -> list[int]:
        return [self._control.fileno()] if self._control.fileno() >= 0 else []

    def read(self, file: int) -> None:
        data, files, _, _ = socket.recv_fds(self._control, 4096, 1)
        if files:
            self.process = files[0]
        word, _, rest = data.decode("utf-8", "replace").partition(" ")
        if word == "exit":
            self.exit_code = int(rest)
        elif word == "failed":
            raise RunError(f"The sandbox could not make namespaces for a program: {rest}.")
        elif not data:
            self._control.close()
            if self.process is None:
                raise ConnectionResetError("The zygote ended before it started the job.")

    def kill(self) -> None:
        if self.process is not None:
            try:
                signal.pidfd_send_signal(self.process, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended

    def close(self) -> None:
        super().close()
        self._control.close()


class ChildJob(Job):
    """A child of this process: bubblewrap with Python in it, or Python alone."""

    def __init__(self, child: subprocess.Popen, in_namespace: bool) -> None:
        self._child, self._in_namespace = child, in_namespace
        self.process = os.pidfd_open(child.pid)

    def kill(self) -> None:
        tree = process_tree(self._child.pid)
        if self._in_namespace:  # its process 1 goes first and takes all others along; bubblewrap, outside, then ends by itself
            tree = tree[1:2] or tree
        for process in tree:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not self._in_namespace:
            try:
                os.killpg(self._child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def close(self) -> None:
        code = self._child.wait()
        self.exit_code = SIGNALS.get(code, code)
        super().close()


@dataclass
class Pipe:
    """The reading end of a pipe and what came through it, up to a limit."""

    file: int
    limit: int
    data: bytearray = field(default_factory=bytearray)
    truncated: bool = False
    open: bool = True

    def read(self) -> None:
        """Take what is there; beyond the limit it is dropped, so that the writer goes on."""
        piece = os.read(self.file, 1 << 16)
        self.open = bool(piece)
        room = self.limit - len(self.data)
        self.truncated = self.truncated or len(piece) > room
        self.data += piece[:room]


@dataclass(frozen=True)
class End:
    """How the attended jobs ended: by themselves, or killed for time or memory."""

    timed_out: bool = False
    out_of_memory: bool = False


def attend(jobs: Sequence[Job], pipes: Sequence[Pipe], timeout: float, limits: Limits) -> End:
    """Wait until the first of `jobs` has ended, kill the others, and read `pipes` to their end.

    Args:
        timeout: seconds from the start of all jobs, those apart in which they waited for a processor; then all are killed.

    Raises:
        ConnectionResetError: the zygote has died; the jobs can be started anew with another one.
    """
    end = End()
    started, now = None, time.monotonic()
    next_look = now + START_PATIENCE
    try:
        while True:
            if started is None and all(job.process is not None for job in jobs):
                started, next_look = now, now + min(TICK, timeout)
            if _wait(jobs, pipes, next_look - now):
                break
            now = time.monotonic()
            if now >= next_look:
                if started is None:
                    raise RunError(f"The sandbox did not start a program within {START_PATIENCE:g} seconds.")
                tree = [process for job in jobs for process in process_tree(job.root)]
                overdue = is_overdue(now - started, seconds_used(tree), seconds_waited(tree), timeout)
                end = End(timed_out=overdue, out_of_memory=not overdue and resident_memory(tree) > limits.memory)
                if end != End():
                    break
                due = started + timeout
                next_look = due if now < due < now + TICK else now + TICK
    finally:
        for job in jobs:
            job.kill()
    _drain(jobs, pipes)
    return end


def _wait(jobs: Sequence[Job], pipes: Sequence[Pipe], seconds: float) -> bool:
    """Wait for one event and take it in; True once the first job has ended."""
    poll = select.poll()
    for job in jobs:
        for file in [*job.files(), *([] if job.process is None else [job.process])]:
            poll.register(file, select.POLLIN)
    for pipe in pipes:
        if pipe.open:
            poll.register(pipe.file, select.POLLIN)
    ready = {file for file, _ in poll.poll(max(0.0, seconds) * 1000)}
    ended = jobs[0].process in ready  # looked at before the last messages are read: they were sent earlier
    for pipe in pipes:
        if pipe.file in ready:
            pipe.read()
    for job in jobs:
        for file in job.files():
            if file in ready:
                job.read(file)
    return ended


def _drain(jobs: Sequence[Job], pipes: Sequence[Pipe]) -> None:
    """After the end: the last messages and the rest of the output. All writers are dead or dying."""
    for job in jobs:
        if job.process is not None:
            _readable(job.process, START_PATIENCE)
        for file in job.files():
            while job.files() and _readable(file, 0):
                job.read(file)
    for pipe in pipes:
        while pipe.open and _readable(pipe.file, 1.0):
            pipe.read()


def _readable(file: int, seconds: float) -> bool:
    poll = select.poll()  # select() has no place for numbers above 1023
    poll.register(file, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
