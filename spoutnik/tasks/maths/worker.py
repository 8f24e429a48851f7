"""The process in which math-verify compares two answers: it reads a question a line and writes a byte for each verdict.

Every question has a child of its own, which the system ends after SECONDS of processor time or above BYTES of memory: no thread
and no signal stops a computation inside sympy for certain. Started as a script, it imports nothing of this package.
"""

import json
import os
import resource
import select
import signal
import sys

SECONDS, BYTES = 1.0, 2 << 30  # for one question; of processor time, so that a busy machine changes no verdict
WALL_SECONDS = 20.0  # for one question on the busiest machine
YES, NO, KILLED = b"+", b"-", b"?"
_DIGITS = 40


def main() -> None:
    from math_verify import parse, verify

    warm = [parse(text, parsing_timeout=None) for text in ("$1$", r"$\frac{2}{2}$", "$(1, x^2)$")]
    verify(warm[0], warm[1], timeout_seconds=None)  # imports what the first question needs, outside of its time
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(_ask_child(json.loads(line)))
        sys.stdout.buffer.flush()


def _ask_child(texts: list[str]) -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _limit()
        os.write(writing, YES if equivalent(*texts) else NO)
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], WALL_SECONDS)
    verdict = os.read(reading, 1) if ready else b""
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return verdict or KILLED


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nothing handles it: it kills


def equivalent(gold: str, answer: str) -> bool:
    """Does math-verify accept the answer, and do both sides have one shape and, to many digits, the same values?"""
    from math_verify import parse, verify

    try:
        one, other = (parse(f"${text}$", parsing_timeout=None) for text in (gold, answer))
        return bool(one and other) and verify(one, other, timeout_seconds=None) and _confirmed(one[0], other[0])
    except Exception:  # what cannot even be read agrees with nothing
        return False


def _confirmed(one: object, other: object) -> bool:
    """math-verify rounds to six decimals, forgets brackets and sorts letters: its yes counts where shapes and digits agree."""
    import sympy

    if isinstance(one, str) or isinstance(other, str):
        return one == other
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        return _same_values(one, other)
    if type(one) is not type(other):
        return False
    parts = [list(side.args) if isinstance(side, sympy.Basic) else list(side) for side in (one, other)]
    if isinstance(one, sympy.FiniteSet):
        parts = [sorted(side, key=sympy.default_sort_key) for side in parts]
    return len(parts[0]) == len(parts[1]) and (bool(parts[0]) or one == other) and all(map(_confirmed, *parts))


def _same_values(one, other) -> bool:
    import sympy

    names = sorted(one.free_symbols | other.free_symbols, key=str)
    for shift in (3, 11):
        point = {name: sympy.Rational(7 * place + shift, 17) for place, name in enumerate(names, start=1)}
        a, b = (sympy.N(side.subs(point), _DIGITS) for side in (one, other))
        if not (a.is_number and b.is_number):
            return one == other
        if abs(a - b) > sympy.Float(10, _DIGITS) ** (10 - _DIGITS) * max(abs(a), abs(b)):
            return False
    return True


if __name__ == "__main__":
    main()
