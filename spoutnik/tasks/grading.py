"""The grade of an answer, by the task that asked."""

from collections import defaultdict
from collections.abc import Sequence

from spoutnik.errors import RunError
from spoutnik.tasks.problem import Problem, Task


def accuracy_reward(problem: Problem, answer: str) -> float:
    """R1's accuracy reward: 1.0 for a right answer, 0.0 for a wrong one; what lies between only where the task gives it.

    Raises:
        RunError: the verifier gives what is no grade.
    """
    return checked_grade(problem, answer, problem.task.verify(problem, answer))


def accuracy_rewards(asked: Sequence[tuple[Problem, str]]) -> list[float]:
    """`accuracy_reward` of many (problem, answer), in their order; each task gets all of its own at one time."""
    of: dict[Task, list[int]] = defaultdict(list)
    for number, (problem, _) in enumerate(asked):
        of[problem.task].append(number)
    rewards = [0.0] * len(asked)
    for task, numbers in of.items():
        for number, value in zip(numbers, task.verify_all([asked[number] for number in numbers]), strict=True):
            rewards[number] = checked_grade(*asked[number], value)
    return rewards


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
