"""The grade of an answer, by the task that asked."""

from spoutnik.errors import RunError
from spoutnik.tasks.problem import Problem


def accuracy_reward(problem: Problem, answer: str) -> float:
    """R1's accuracy reward: 1.0 for a right answer, 0.0 for a wrong one; what lies between only where the task gives it.

    Raises:
        RunError: the verifier gives what is no grade.
    """
    return checked_grade(problem, answer, problem.task.verify(problem, answer))


def checked_grade(problem: Problem, answer: str, value: float) -> float:
    """A verifier's grade, if it is one: nan is neither right nor wrong, and makes groups without variance in silence.

    Raises:
        RunError: it is not a number in [0, 1].
    """
    try:
        if 0.0 <= value <= 1.0:
            return float(value)
    except TypeError:
        pass
    raise RunError(f"the verifier of task '{problem.task.name}' gives {value!r} for the answer {answer[:80]!r} to "
                   f"{problem.prompt[:80]!r} (level {problem.level}): a grade must be a number from 0 to 1. Correct the "
                   "verifier.")
