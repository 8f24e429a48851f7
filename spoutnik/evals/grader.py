"""Grading beside asking: replies are graded in a thread of their own, those that wait of one task at one time."""

import queue
import threading
from collections.abc import Callable, Hashable
from types import TracebackType

from spoutnik.errors import RunError, UserError
from spoutnik.tasks import Problem
from spoutnik.tasks.grading import checked_grade

Graded = Callable[[Hashable, float, str | None], None]


class Grader:
    """Grades what is put, and gives each grade to `keep(key, grade, error)`, one call at a time; error: what the verifier
    raised, or gave instead of a grade, for which the grade is 0.

    A verifier may start programs, or ask a model for seconds: the model that is examined answers meanwhile, and a judge is
    asked about many answers at one time. Leaving the `with` waits for all grades.

    Raises (of `put` or at the end):
        UserError, RunError: a verifier cannot work here, as without a sandbox; or `keep` raised it. The others are dropped.
    """

    def __init__(self, keep: Graded):
        self._keep, self._failure = keep, None
        self._waiting: queue.SimpleQueue[tuple[Hashable, Problem, str | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="grader", daemon=True)

    def __enter__(self) -> "Grader":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._waiting.put(None)
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def put(self, key: Hashable, problem: Problem, answer: str | None) -> None:
        """answer: None for a reply that has none, whose grade is 0."""
        if self._failure is not None:
            raise self._failure
        self._waiting.put((key, problem, answer))

    def _work(self) -> None:
        """Until None comes. After a failure what comes is taken and dropped, so that `put` never waits for nobody."""
        ended = False
        while not ended:
            taken = [self._waiting.get()]
            while not self._waiting.empty():
                taken.append(self._waiting.get())
            ended = None in taken
            if self._failure is None:
                try:
                    self._grade([each for each in taken if each is not None])
                except Exception as raised:  # noqa: BLE001 - told to the thread that asks
                    self._failure = raised

    def _grade(self, taken: list[tuple[Hashable, Problem, str | None]]) -> None:
        of_answers = iter(verdicts([(problem, answer) for _, problem, answer in taken if answer is not None]))
        for key, _, answer in taken:
            self._keep(key, *((0.0, None) if answer is None else next(of_answers)))


def verdicts(asked: list[tuple[Problem, str]]) -> list[tuple[float, str | None]]:
    """(grade, what the verifier raised or gave instead of one) of each. Raises UserError and RunError where it cannot work
    here: that is no fault of the answer."""
    if not asked:
        return []
    try:
        if len({id(problem.task) for problem, _ in asked}) == 1:
            values = asked[0][0].task.verify_all(asked)
            return [_checked(problem, answer, value) for (problem, answer), value in zip(asked, values, strict=True)]
    except (UserError, RunError):
        raise
    except Exception:  # noqa: BLE001 - one of them is at fault: it is found below
        pass
    return [verdict(problem, answer) for problem, answer in asked]


def verdict(problem: Problem, answer: str) -> tuple[float, str | None]:
    """`verdicts` of one."""
    try:
        value = problem.task.verify(problem, answer)
    except (UserError, RunError):
        raise
    except Exception as raised:  # noqa: BLE001 - whatever it does on one answer, the other samples are not lost
        return 0.0, f"{type(raised).__name__}: {raised}"[:300]
    return _checked(problem, answer, value)


def _checked(problem: Problem, answer: str, value: float) -> tuple[float, str | None]:
    try:
        return checked_grade(problem, answer, value), None
    except RunError as raised:
        return 0.0, str(raised)[:300]
