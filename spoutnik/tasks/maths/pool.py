"""A pool of processes that ask math-verify, for what the exact rules do not know. Usable from any thread, one question a
process at a time; started when first needed, again after a death, and closed with the program.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from spoutnik.tasks.maths.worker import KILLED, YES

_TRIES = 4
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Statistics:
    """Questions that math-verify was asked since the start of the program; those that it had no time or memory for, which count
    as "not equal"; processes that ended and were started again."""

    asked: int = 0
    timeouts: int = 0
    restarts: int = 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """Up to `size` processes (the usable cores by default)."""

    def __init__(self, size: int | None = None):
        self._free = threading.Semaphore(size or _cores())
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen] = []
        self._busy: set[subprocess.Popen] = set()
        self._owner = os.getpid()
        self._asked = self._timeouts = self._restarts = 0

    def equivalent(self, gold: str, answer: str) -> bool | None:
        """math-verify's verdict; None where it took too long."""
        question = json.dumps([gold, answer]).encode() + b"\n"
        with self._free:
            verdict = b""
            for _ in range(_TRIES):  # a process that died is none that took too long
                verdict = verdict or self._ask(question)
        with self._lock:
            self._asked += 1
            self._timeouts += verdict in (b"", KILLED)
        return None if verdict in (b"", KILLED) else verdict == YES

    def statistics(self) -> Statistics:
        with self._lock:
            return Statistics(self._asked, self._timeouts, self._restarts)

    def process_ids(self) -> list[int]:
        """Those of the processes that live now."""
        with self._lock:
            return [process.pid for process in (*self._idle, *self._busy)]

    def close(self) -> None:
        """Ends the processes; the next question starts one again."""
        with self._lock:
            processes, self._idle = [*self._idle, *self._busy], []
            for process in processes:
                process.kill()
        for process in processes:
            process.wait()

    def _ask(self, question: bytes) -> bytes:
        """One byte, none where the process died."""
        process = self._take()
        try:
            process.stdin.write(question)
            process.stdin.flush()
            verdict = process.stdout.read(1)
        except (BrokenPipeError, ValueError):  # it died, or close() was called
            verdict = b""
        with self._lock:
            self._busy.discard(process)
            if verdict:
                self._idle.append(process)
                return verdict
            self._restarts += 1
        process.kill()
        process.communicate()
        return verdict

    def _take(self) -> subprocess.Popen:
        with self._lock:
            if self._owner != os.getpid():  # forked: the pipes belong to the parent
                self._idle, self._busy, self._owner = [], set(), os.getpid()
            process = self._idle.pop() if self._idle else subprocess.Popen(
                [sys.executable, "-P", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, start_new_session=True)
            self._busy.add(process)
            return process


pool = WorkerPool()
atexit.register(pool.close)
