"""Are two short texts equivalent as mathematics? They come from strangers, `99^{99 \\cdot 99 \\cdot 99 \\cdot 99}` is one. No
thread or signal stops a computation that fills the memory: a process of its own does it, under limits of the system."""

import atexit
import json
import resource
import signal
import subprocess
import sys
import threading

SECONDS, BYTES = 2.0, 2 << 30  # for one question; of processor time, so that a busy machine changes no verdict
_YES, _NO = b"+", b"-"


class EquivalenceChecker:
    """The process, started at the first question, and again when one was too much for it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def equivalent(self, one: str, other: str) -> bool | None:
        """None: it cannot be computed in time."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE,
                                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
            self._process.stdin.write(json.dumps([one, other]).encode() + b"\n")
            self._process.stdin.flush()
            verdict = self._process.stdout.read(1)
            if verdict:
                return verdict == _YES
            self._stop()
            return None

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


checker = EquivalenceChecker()
atexit.register(checker.close)


def main() -> None:
    """The process: a question on each line, one byte for an answer. The system ends it when a question takes too long, and
    whoever started it when there are no more."""
    from math_verify import parse, verify

    first = [parse(text, parsing_timeout=None) for text in ("$1$", r"$\frac{2}{2}$")]
    verify(*first, timeout_seconds=None)  # imports what the first question needs, outside of its time
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nothing handles it: it kills
        try:
            # Without time limits of its own: this one counts.
            parsed = [parse(f"${text}$", parsing_timeout=None) for text in json.loads(line)]
            equivalent = all(parsed) and verify(*parsed, timeout_seconds=None)
        except Exception:  # what cannot even be read agrees with nothing
            equivalent = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(_YES if equivalent else _NO)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
