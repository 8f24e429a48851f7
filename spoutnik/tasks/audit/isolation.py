"""The process in which verifiers are audited: one that hangs, crashes or takes all memory ends it, and is reported."""

import contextlib
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.tasks.audit.probe import exemptions_of, probe
from spoutnik.tasks.audit.report import Report
from spoutnik.tasks.problem import Task

SECONDS = 20.0  # for one verdict: a policy writes thousands of answers a minute
DRAWING_SECONDS = 600.0  # for all problems of a sample
MEMORY = 4 << 30  # more than the process has at its start
_LABEL = 120  # bytes


def audit_tasks(tasks: Sequence[Task], problems: int = 50, seed: int = 0, seconds: float = SECONDS,
                progress: Callable[[int], None] = lambda done: None) -> Iterator[Report]:
    """The report on each task, in their order. problems: of each. seconds: for one verdict. progress: called with the number of
    tasks that are done.

    Raises:
        UserError, RunError: a task's problems cannot be drawn, and its author says why.
    """
    done = 0
    while done < len(tasks):
        with _child(tasks[done:], problems, seed) as (process, connection, label):
            while done < len(tasks):
                report = _next_report(tasks[done], connection, label, seconds)
                done += 1
                progress(done)
                yield report
                if report.interrupted and not process.is_alive() or connection.closed:
                    break


@contextlib.contextmanager
def _child(tasks: Sequence[Task], problems: int, seed: int) -> Iterator[tuple]:
    context = multiprocessing.get_context("fork")  # a task may be of a file that no other process could import
    ours, theirs = context.Pipe(duplex=False)
    label = context.RawArray("c", _LABEL)
    process = context.Process(target=_work, args=(theirs, label, tasks, problems, seed), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads: the child uses none of theirs
        process.start()
    theirs.close()
    try:
        yield process, ours, label
    finally:
        ours.close()
        process.kill()
        process.join()


def _next_report(task: Task, connection: Connection, label, seconds: float) -> Report:
    """The next of the child's reports; one on how it ended where it did. The connection is closed then."""
    last, since = b"", time.monotonic()
    while True:
        if connection.poll(0.2):
            try:
                reply = connection.recv()
            except EOFError:
                connection.close()
                return _interrupted(task, f"The verifier ended its process, by a crash or its memory ({_text(label.value)}).")
            if isinstance(reply, Exception):
                raise reply
            return reply
        if (now := label.value) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > (seconds if last else DRAWING_SECONDS):
            connection.close()
            what = "The verifier hangs" if last else "Its problems are not drawn"
            return _interrupted(task, f"{what}: {_text(last)} takes more than {seconds if last else DRAWING_SECONDS:g} s.")


def _text(label: bytes) -> str:
    return label.decode("utf-8", "replace").partition(" ")[2] or "drawing a sample"


def _interrupted(task: Task, sentence: str) -> Report:
    return Report(task.name, interrupted=sentence, exemptions=exemptions_of(task))


def _work(connection: Connection, label, tasks: Sequence[Task], problems: int, seed: int) -> None:
    _limit_memory()
    verdicts = 0

    def beat(what: str) -> None:
        nonlocal verdicts
        verdicts += 1
        label.value = f"{verdicts} {what}".encode("utf-8", "replace")[:_LABEL - 1]

    for task in tasks:
        label.value = b""
        try:
            report = probe(task, problems, seed, beat)
        except (UserError, RunError) as error:
            report = error
        except Exception as error:  # noqa: BLE001 - of a task that is not ours
            report = _interrupted(task, f"Its problems or solutions cannot be made ({type(error).__name__}: {error}).")
        connection.send(report)


def _limit_memory() -> None:
    """Of this process and its children."""
    with contextlib.suppress(OSError, ValueError):  # no /proc, or a lower limit is set already
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
