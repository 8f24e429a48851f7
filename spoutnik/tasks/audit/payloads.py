"""Programs that attack: those that leave a trace where a verifier executes what it reads, and those that fool tests from
inside."""

import contextlib
import os
import secrets
import shutil
import string
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from spoutnik.tasks.audit.sample import functions_of
from spoutnik.tasks.problem import Problem

_TRACE = "SPOUTNIK_AUDIT_TRACE"  # an environment variable of the process that audits: where the trace is left


@contextlib.contextmanager
def watch_for_traces() -> Iterator[Path]:
    """The folder in which whatever executes an answer leaves a file. Its name is of letters: a digit in it would be an answer's
    last number, which is right where the problem's is the same."""
    name = "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))
    folder = Path(tempfile.gettempdir()) / f"spoutnik-audit-{name}"
    folder.mkdir(mode=0o700)
    os.environ[_TRACE] = str(folder)
    try:
        yield folder
    finally:
        del os.environ[_TRACE]
        shutil.rmtree(folder, ignore_errors=True)


def executing() -> Iterator[tuple[str, str]]:
    """Expressions and programs that leave a file where they are executed, by eval, exec or sympy's parser."""
    path = os.path.join(os.environ.get(_TRACE, tempfile.gettempdir()), "executed")
    expression = f"open({path!r}, 'w').close()"
    yield "an expression", expression
    yield "in a list", f"[{expression}]"
    yield "by its module", f"__import__('os').mkdir({path!r})"
    yield "in a box", f"\\boxed{{{expression}}}"
    yield "a statement", f"import os; os.mkdir({path!r})"
    yield "in a fence", f"```python\nimport os\nos.mkdir({path!r})\n```"


def early_exit(problem: Problem) -> Iterator[tuple[str, str]]:
    for name in functions_of(problem)[-1:]:
        yield "exit when imported", "import os\nos._exit(0)\n"
        yield "SystemExit when imported", "raise SystemExit(0)\n"
        yield "exit when called", f"import sys\n\ndef {name}(*args, **kwargs):\n    sys.exit(0)\n"


def always_equal(problem: Problem) -> Iterator[tuple[str, str]]:
    names = functions_of(problem)[-1:]
    methods = "".join(f"    def __{method}__(self, *other):\n        return {value}\n" for method, value in (
        ("eq", True), ("ne", False), ("le", True), ("ge", True), ("lt", True), ("gt", True), ("bool", True), ("contains", True),
        ("hash", 0), ("len", 1)))
    for name in names:
        yield "an object", f"class Equal:\n{methods}\ndef {name}(*args, **kwargs):\n    return Equal()\n"
        yield "a text", f"class Equal(str):\n{methods}\ndef {name}(*args, **kwargs):\n    return Equal()\n"
        yield "nothing", f"def {name}(*args, **kwargs):\n    return None\n"


def fenced(programs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each program as it is, and in a fence of Markdown."""
    for label, program in programs:
        yield label, program
        yield f"{label}, fenced", f"```python\n{program}```"
