"""The sandbox: starts programs under bubblewrap, warm by a zygote or cold one by one, or under resource limits alone."""

import atexit
import fcntl
import marshal
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from spoutnik.errors import RunError, UserError
from spoutnik.tasks.code import bubblewrap
from spoutnik.tasks.code.jobs import ChildJob, End, Job, Pipe, attend
from spoutnik.tasks.code.limits import LIMITED_UID, TESTS_UID, Limits, RunResult
from spoutnik.tasks.code.zygote import Zygote

KINDS = ("bubblewrap", "rlimit")
ATTEMPTS = 3  # at a job whose zygote dies under it


@contextmanager
def content_file(content: bytes) -> Iterator[int]:
    """An open file in memory with the content, at its beginning, that nobody can write to any more."""
    file = os.memfd_create("content", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as writer:
            writer.write(content)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


class Sandbox:
    """Where programs run.

    Args:
        kind: "bubblewrap", or "rlimit": resource limits alone, another user where this one is root, a process group that is
            killed. The network and what that user can read stay open.
        warm: by a zygote; else bubblewrap and Python start anew for each program (slower; the zygote's plain twin).
        limits: of each program.
    """

    def __init__(self, kind: str = "bubblewrap", warm: bool = True, limits: Limits | None = None) -> None:
        if kind not in KINDS:
            raise UserError(f"There is no sandbox {kind!r}: --sandbox takes {' or '.join(KINDS)}.")
        if not sys.platform.startswith("linux"):
            raise UserError(f"Code is run on Linux alone, not on {sys.platform}: to grade programs, start Spoutnik in a "
                            "virtual machine or a container with Linux.")
        if kind == "bubblewrap":
            bubblewrap.find()
        self.kind, self.warm, self.limits = kind, warm and kind == "bubblewrap", limits or Limits()
        self._zygote: Zygote | None = None
        self._lock, self._owner = threading.Lock(), os.getpid()
        atexit.register(self.close)

    def close(self) -> None:
        """End the zygote; the next program starts another one."""
        with self._lock:
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()

    @property
    def warm_process(self) -> int | None:
        """The process number of the warm process, below which all programs run; None where there is none now."""
        with self._lock:
            return None if self._zygote is None else self._zygote.process

    def run(self, program: str, stdin: str = "", timeout: float = 5.0, files: tuple[str, str] | None = None,
            limits: Limits | None = None) -> RunResult:
        """Run a Python program.

        Args:
            timeout: seconds of the clock, from its start.
            files: (input, output): names of files that the program reads and writes instead of standard input and output.
            limits: of this program; its memory alone may differ from the sandbox's.
        """
        header = {"kind": "program", "files": files}
        with content_file(as_bytes(program)) as source, content_file(as_bytes(stdin)) as given:
            for attempt in range(ATTEMPTS):
                with pipe(self.limits.output) as (out, out_end), pipe(self.limits.output) as (err, err_end):
                    try:
                        with self.started([(header, [source, given, out_end.fileno(), err_end.fileno()])]) as jobs:
                            out_end.close()
                            err_end.close()
                            end = attend(jobs, [out, err], timeout, limits or self.limits)
                        return _result(jobs[0], end, out, err)
                    except ConnectionError:
                        if attempt == ATTEMPTS - 1:
                            raise RunError("The sandbox's warm process ended again and again before it started a program."
                                           ) from None
        raise AssertionError

    @contextmanager
    def started(self, requests: list[tuple[dict, list[int]]]) -> Iterator[list[Job]]:
        """Jobs for (header, [source, stdin, stdout, stderr, channel?]), closed at the end. Raises ConnectionError where the
        zygote died: the next try has a new one."""
        jobs: list[Job] = []
        zygote = self._warm_zygote() if self.warm else None
        folder = None if self.kind == "bubblewrap" else tempfile.mkdtemp(prefix="spoutnik-code-")
        try:
            for header, files in requests:
                for file in files[:2]:
                    os.lseek(file, 0, os.SEEK_SET)  # an earlier try may have read it
                header = header | {"limits": self.limits.for_processes(), "confine": self.warm or folder is not None,
                                   "folder": folder or "/tmp"}
                if zygote is not None:
                    jobs.append(zygote.start(header, files))
                else:
                    jobs.append(self._start_child(header, files))
            yield jobs
            if zygote is not None and zygote.has_ended:
                raise ConnectionResetError("The zygote ended, and perhaps a job with it.")
        except ConnectionError:
            self._forget(zygote)
            raise
        finally:
            for job in jobs:
                job.kill()
                job.close()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _warm_zygote(self) -> Zygote:
        if self._owner != os.getpid():  # a fork has a zygote of its own: the parent's ends with the parent
            self._lock, self._owner, self._zygote = threading.Lock(), os.getpid(), None
        with self._lock:
            if self._zygote is None:
                self._zygote = Zygote(self.limits)
            return self._zygote

    def _forget(self, zygote: Zygote | None) -> None:
        """A zygote that died is replaced at the next job."""
        with self._lock:
            if zygote is not None and self._zygote is zygote:
                self._zygote = None
                zygote.close()

    def _start_child(self, header: dict, files: list[int]) -> ChildJob:
        source, stdin, stdout, stderr, *channel = files
        header = header | {"source": source} | ({"channel": channel[0]} if channel else {})
        passed = [source, *channel]
        if self.kind == "rlimit":
            return _start_limited(header, passed, stdin, stdout, stderr)
        bwrap = bubblewrap.find()
        before, as_user = bubblewrap.command_as_other_user(bwrap)
        with content_file(bubblewrap.filter_of_calls()) as calls:
            has_filter = os.fstat(calls).st_size > 0
            line = bubblewrap.command(bwrap, ["cold", marshal.dumps(header).hex()], self.limits, nested=False,
                                      filter_file=calls if has_filter else None)
            child = subprocess.Popen([*before, *line], env={}, stdin=stdin, stdout=stdout, stderr=stderr,
                                     pass_fds=[*passed, calls], **as_user)
        return ChildJob(child, in_namespace=True)


def _start_limited(header: dict, passed: list[int], stdin: int, stdout: int, stderr: int) -> ChildJob:
    """Python without bubblewrap. Root becomes another user inside, for that user may not be able to start this Python."""
    line = [bubblewrap.python(), "-s", "-S", "-P", "-B", "-c", bubblewrap.STARTER.format(str(bubblewrap.HERE)), "cold"]
    reach = os.open(sys.base_prefix, os.O_RDONLY) if os.geteuid() == 0 else None
    try:
        if reach is not None:
            uid = TESTS_UID if header["kind"] == "tests" else LIMITED_UID  # a solution has no rights over its tests
            os.chown(header["folder"], LIMITED_UID, LIMITED_UID)
            os.chmod(header["folder"], 0o711)  # the tests start in it too
            header = header | {"uid": uid, "reach": reach}
        child = subprocess.Popen([*line, marshal.dumps(header).hex()], env=bubblewrap.ENVIRONMENT | {"HOME": header["folder"]},
                                 stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True, cwd=header["folder"],
                                 pass_fds=[*passed, *([] if reach is None else [reach])])
    finally:
        if reach is not None:
            os.close(reach)
    return ChildJob(child, in_namespace=False)


@contextmanager
def pipe(limit: int) -> Iterator[tuple[Pipe, BinaryIO]]:
    """(Our end, the writing end, which the caller closes once it has been passed on)."""
    reader, writer = os.pipe()
    try:
        with open(writer, "wb", buffering=0) as writing_end:
            yield Pipe(reader, limit), writing_end
    finally:
        os.close(reader)


def as_bytes(text: str) -> bytes:
    """UTF-8; what is no text (half a surrogate pair) stays for Python to refuse."""
    return text.encode("utf-8", "surrogatepass")


def _result(job: Job, end: End, out: Pipe, err: Pipe) -> RunResult:
    code = -9 if job.exit_code is None or end.timed_out or end.out_of_memory else job.exit_code
    return RunResult(out.data.decode("utf-8", "replace"), err.data.decode("utf-8", "replace"), code, end.timed_out,
                     out.truncated or err.truncated, end.out_of_memory)
