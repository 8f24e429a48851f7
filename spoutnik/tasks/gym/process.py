"""The one process that this one asks for reasoning-gym's problems and scores: started when first needed, and again when the
system had to end it. Usable from any thread; a forked process gets its own."""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from spoutnik.errors import RunError, UserError

_AT_ITS_LIMIT = (-signal.SIGPROF, -signal.SIGALRM)
_WORKER = Path(__file__).with_name("worker.py")
_INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")  # no keys: it runs code that is not ours
_FIXED = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # some sets walk through sets of texts


class GymProcess:
    """ended: how often the system ended it, for its time or its memory."""

    def __init__(self):
        self.ended = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._inherited: subprocess.Popen | None = None  # of a process that this one was forked from: never closed
        os.register_at_fork(after_in_child=self._forked)

    def draw(self, name: str, seed: int) -> dict:
        """`question` and `answer` (None where there is none) of a set's problem.

        Raises:
            UserError: the gym is not installed.
            RunError: it could not be drawn.
        """
        reply = self._ask("draw", name, seed)
        if reply is None:
            raise RunError(f"gym-{name}: reasoning-gym ended while it drew the problem of seed {seed}: an error of its own, or "
                           "too much time or memory. Leave this task out.")
        return reply

    def score(self, name: str, seed: int, answer: str) -> float | str | None:
        """The scorer's number; a text where it raised, None where it took too much time or memory."""
        reply = self._ask("score", name, seed, answer)
        return None if reply is None else reply.get("score", reply.get("raised"))

    def close(self) -> None:
        """Ends the process; the next request starts one."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.communicate()
            self._process = None

    def _ask(self, *request: object) -> dict | None:
        """None where the process ended: at its limit, or twice for another reason (the first may be none of its own)."""
        line = json.dumps(request, default=repr) + "\n"
        with self._lock:
            for _ in range(2):
                process = self._running()
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(line)
                    process.stdin.flush()
                if reply := process.stdout.readline():
                    return json.loads(reply)
                self.ended, self._process = self.ended + 1, None
                with contextlib.suppress(BrokenPipeError):
                    process.communicate()
                if process.returncode in _AT_ITS_LIMIT:
                    break
        return None

    def _forked(self) -> None:
        """The pipes are the parent's, and so is whatever thread holds the lock."""
        self._lock, self._inherited, self._process = threading.Lock(), self._process, None

    def _running(self) -> subprocess.Popen:
        if self._process is None:
            if find_spec("reasoning_gym") is None:
                raise UserError("reasoning-gym is not installed. Install it: pip install reasoning-gym.")
            environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | _FIXED
            self._process = subprocess.Popen([sys.executable, "-P", str(_WORKER)], env=environment, text=True, encoding="ascii",
                                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                             start_new_session=True)
        return self._process


gym_process = GymProcess()
atexit.register(gym_process.close)
