"""The zygote as the host sees it: starting it, and giving it jobs."""

import marshal
import os
import select
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

from spoutnik.errors import RunError
from spoutnik.tasks.code import bubblewrap
from spoutnik.tasks.code.jobs import START_PATIENCE, ZygoteJob
from spoutnik.tasks.code.limits import Limits


def _starter(process: int) -> ThreadPoolExecutor:
    """The thread that starts the zygotes of this process: the kernel ends bubblewrap when the thread that started it ends
    (--die-with-parent), so it must not be one that asks for a verdict and goes."""
    return _starters.setdefault(process, ThreadPoolExecutor(1, thread_name_prefix="zygote"))


_starters: dict[int, ThreadPoolExecutor] = {}  # by process: a fork has none of its parent's threads


class Zygote:
    """A warm Python under bubblewrap that forks one child for each job. Used from several threads: a job is one message."""

    def __init__(self, limits: Limits) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        bwrap = bubblewrap.find()
        before, as_user = bubblewrap.command_as_other_user(bwrap)
        line = bubblewrap.command(bwrap, ["warm", str(theirs.fileno())], limits, nested=True)
        with theirs, tempfile.TemporaryFile() as errors:
            self._child = _starter(os.getpid()).submit(
                subprocess.Popen, [*before, *line], env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                pass_fds=[theirs.fileno()], **as_user).result()
            theirs.close()
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if not poll.poll(START_PATIENCE * 1000) or self._socket.recv(16) != b"ready":
                self.close()
                errors.seek(0)
                text = errors.read().decode("utf-8", "replace").strip()[-500:]
                raise RunError(f"The sandbox's warm process did not start: {text or 'it ended, or took too long'}. "
                               "Sandbox(warm=False) does without it.")

    @property
    def process(self) -> int:
        """The process number of bubblewrap, whose descendants all programs are."""
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def start(self, header: dict, files: list[int]) -> ZygoteJob:
        """Start a job with its open files. Raises OSError where the zygote has died."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                socket.send_fds(self._socket, [marshal.dumps(header)],
                                [*files[:4], theirs.fileno(), *files[4:]])
            except OSError:
                ours.close()
                raise
        return ZygoteJob(ours)

    def close(self) -> None:
        """End it, and with it all its children."""
        self._socket.close()
        self._child.kill()
        self._child.wait()
