"""A user's Python file as a task: `verify(prompt, answer, gold)` grades, `problems()` or a file of rows beside it poses.

The file runs in a process of its own, without the keys in our environment, and is killed when a call takes too long: a
verifier that hangs must not stop a run. One that raises or gives no number is a mistake of the file's, and is told.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.row_files import SUFFIXES, Place
from spoutnik.tasks.own.reading import checked_row, read_rows
from spoutnik.tasks.own.rows import Row, ScriptRow
from spoutnik.tasks.own.task import OwnProblem, OwnTask
from spoutnik.tasks.problem import Problem

SECONDS = 10.0  # for one verdict
LOADING_SECONDS = 120.0  # for the file's imports, and for problems()
MOST_IN_A_ROW = 3  # verdicts that come too late: such a file is broken
LARGEST_REPLY = 256 << 20  # bytes
# What a Python program needs of the environment. Keys are not among it.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH",
                "OMP_NUM_THREADS", "SYSTEMROOT")


class Script:
    """The process of a user's file. It is started when it is first called, and anew after it was killed.

    Attributes:
        timeouts: verdicts that came too late so far.
    """

    def __init__(self, path: Path, seconds: float = SECONDS):
        self.path, self.seconds, self.timeouts, self._late = path, seconds, 0, 0
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def verify(self, prompt: str, answer: str, gold: str) -> float:
        """The grade that the file gives. 0.0 where it takes too long, which is told once.

        Raises:
            RunError: it raises, ends its process, gives no number, or takes too long again and again.
        """
        about = f"verify(), asked about the prompt {prompt[:80]!r} and the answer {answer[:80]!r},"
        with self._lock:
            reply = self._call({"function": "verify", "prompt": prompt, "answer": answer, "gold": gold}, self.seconds)
            self._late = 0 if reply is not None else self._late + 1
        if reply is None:
            return self._too_late(about)
        if "error" in reply:
            raise RunError(f"{self.path}{reply['where']}: {about} raises {reply['error']}. Correct the file: what it cannot "
                           "read is wrong, and 0.0.")
        grade = reply["grade"]
        if grade is None or not 0.0 <= grade <= 1.0:
            raise RunError(f"{self.path}: {about} gives {reply['shown']}. A grade is a bool or a number from 0 to 1: correct "
                           "the file.")
        return grade

    def problems(self) -> list | None:
        """The rows that the file poses; None where it has no `problems`. Raises UserError where it cannot."""
        with self._lock:
            reply = self._call({"function": "problems"}, LOADING_SECONDS)
        if reply is None:
            raise UserError(f"{self.path}: problems() takes more than {LOADING_SECONDS:g} s. It must end.")
        if "error" in reply:
            raise UserError(f"{self.path}{reply['where']}: problems() raises {reply['error']}. It must give rows like "
                            '{"prompt": ..., "answer": ...}.')
        return reply["rows"]

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._kill()

    def _too_late(self, about: str) -> float:
        self.timeouts += 1
        if self._late >= MOST_IN_A_ROW:
            raise RunError(f"{self.path}: {about} takes more than {self.seconds:g} s, as {self._late - 1} times before. Make "
                           "it faster, or let it give up by itself.")
        if self.timeouts == 1:
            print(f"{self.path}: {about} takes more than {self.seconds:g} s; it was ended, and the grade is 0. Later ones are "
                  "counted alone.", file=sys.stderr)
        return 0.0

    def _call(self, call: dict, seconds: float) -> dict | None:
        """What the process replies; None where it takes too long, and is killed for it."""
        if self._process is None or self._process.poll() is not None:
            self._kill()
            self._start()
        with suppress(BrokenPipeError):  # it has ended: the reading below says so
            self._process.stdin.write(json.dumps(call | {"seconds": seconds}).encode() + b"\n")
            self._process.stdin.flush()
        return self._read(seconds)

    def _start(self) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        worker = Path(__file__).with_name("worker.py")
        command = [sys.executable, "-P", worker, self.path, f"{LOADING_SECONDS:.0f}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
                                         start_new_session=True)
        weakref.finalize(self, _end, self._process)
        reply = self._read(LOADING_SECONDS)
        if reply is None or "error" in reply:
            reason = "is not loaded in time" if reply is None else f"cannot be loaded, {reply['error']}"
            self._kill()
            raise UserError(f"{self.path}{(reply or {}).get('where', '')}: {reason}. Correct the file; it needs a function "
                            "verify(prompt, answer, gold) that gives a bool or a number from 0 to 1.")

    def _read(self, seconds: float) -> dict | None:
        """The next line of the process. Raises RunError where it ends instead."""
        deadline, line = time.monotonic() + seconds, bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self._kill()
                    return None
                piece = os.read(self._process.stdout.fileno(), 1 << 20)
                line += piece
                if not piece or len(line) > LARGEST_REPLY:
                    self._kill()
                    raise RunError(f"{self.path}: " + ("gives more than can be read" if piece else "ends its own process")
                                   + " instead of answering. Correct the file.")
        return json.loads(line)

    def _kill(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None


def _end(process: subprocess.Popen) -> None:
    """Ends a process and all that it started."""
    if process.stdout.closed:
        return  # its number may be another's by now
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with suppress(BrokenPipeError):
        process.stdin.close()


class ScriptTask(OwnTask):
    """Problems that a user's Python file poses, or a file of rows beside it, graded by the file.

    Attributes:
        script: its process.
    """

    def __init__(self, path: Path, seconds: float = SECONDS):
        self.script = Script(path, seconds)
        try:
            super().__init__(path, *self._rows(path))
        except BaseException:
            self.script.close()
            raise

    def verify(self, problem: Problem, answer: str) -> float:
        assert isinstance(problem, OwnProblem) and problem.row is not None
        return self.script.verify(problem.prompt, answer, problem.answer) if isinstance(answer, str) else 0.0

    def _rows(self, path: Path) -> tuple[list[tuple[Place, Row]], tuple[Path, ...]]:
        """The rows, and the files that they come from besides this one."""
        beside = [file for suffix in SUFFIXES if (file := path.with_suffix(suffix)).exists()]
        posed = self.script.problems()
        if posed is None:
            if not beside:
                raise UserError(f"{path}: has no function problems(), and no file of rows beside it ({path.stem}.jsonl). Write "
                                "one of them.")
            return read_rows(beside[0], ScriptRow), (beside[0],)
        rows = []
        for number, value in enumerate(posed, 1):
            place = Place(path, f"problem {number} of problems()")
            try:
                rows.append((place, checked_row(value, ScriptRow)))
            except UserError as error:
                raise UserError(f"{place}: {error}") from error
        if not rows:
            raise UserError(f"{path}: problems() gives none.")
        return rows, ()
