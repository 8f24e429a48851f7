"""Problems generated and graded by reasoning-gym, in our wording: an outside check of our generators and verifiers.

reasoning-gym is imported when it is used.
"""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from spoutnik.tasks import FAMILIES
from spoutnik.tasks.paths import all_paths
from spoutnik.tasks.problem import Problem

# The gym's settings that come nearest to our levels.
SETTINGS = {
    "countdown": {"min_numbers": 3, "max_numbers": 4, "max_value": 12, "min_target": 10, "max_target": 100,
                  "operators": ("+", "-", "*")},
    "chain_sum": {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 2},
    "base_conversion": {"min_base": 2, "max_base": 10, "min_value": 4, "max_value": 255},
    "letter_counting": {"min_words": 2, "max_words": 3},
}
DRAWS_PER_PROBLEM = 60  # the gym's entries that our families do not cover are skipped
_EXPRESSION = re.compile(r"(?!.*\*\s*\*)[0-9+\-*/(). ]{1,120}")

Scorer = Callable[[str], bool]


def gym_problems(name: str, n: int, seed: int) -> list[tuple[Problem, Scorer]]:
    """`n` problems of a gym dataset as English problems of ours, each with the gym's own scorer.

    The gym's metadata stays in `data["shown_gym"]`. Raises ValueError for an unknown dataset or without the gym.
    """
    if name not in SETTINGS:
        raise ValueError(f"There is no gym dataset {name!r} here: choose among {', '.join(SETTINGS)}.")
    if n < 1:
        raise ValueError(f"The number of gym problems must be at least 1, not {n}.")
    size = n * DRAWS_PER_PROBLEM
    dataset = _import_gym().create_dataset(name, seed=seed, size=size, **SETTINGS[name])
    problems: list[tuple[Problem, Scorer]] = []
    for index in range(size):
        entry = dataset[index]
        problem = _convert(name, entry["metadata"], random.Random(f"{seed} {index}"))
        if problem is not None:
            problem = replace(problem, data=problem.data | {"shown_gym": entry["metadata"]})
            problems.append((problem, partial(gym_score, entry)))
        if len(problems) == n:
            return problems
    raise ValueError(f"The gym dataset {name} gave {len(problems)} usable problems out of {size}: ask for fewer than {n}.")


def gym_score(entry: dict, answer: str) -> bool:
    """Whether the gym's scorer gives full marks. Its partial credit counts as wrong, and so does an exception."""
    name = entry["metadata"]["source_dataset"]
    # The gym evaluates countdown answers as Python: only a short expression without powers may reach it.
    if name == "countdown" and not _EXPRESSION.fullmatch(answer):
        return False
    scorer = _import_gym().get_score_answer_fn(name)
    try:
        return scorer(answer, entry) >= 1.0
    except Exception:  # noqa: BLE001 - whatever the scorer cannot read is a wrong answer
        return False


def _import_gym():
    try:
        import reasoning_gym
    except ImportError as error:
        raise ValueError("reasoning-gym is not installed: install it with `pip install reasoning-gym`.") from error
    return reasoning_gym


def _convert(name: str, metadata: dict, rng: random.Random) -> Problem | None:
    """A gym entry in our wording, or None when none of our levels covers it."""
    if name == "countdown":
        numbers, target = metadata["numbers"], metadata["target"]
        level = 2 if len(numbers) == 3 else 3
        hits = [path for path in all_paths(numbers, "+-*", 150) if path.value == target]
        return FAMILIES["countdown"].pose(numbers, target, hits[0].expression, level, "en", rng) if hits else None
    if name == "chain_sum":
        return FAMILIES["arithmetic"].pose(metadata["expression"], 1, "en", rng)
    if name == "base_conversion":
        value, source, target = metadata["decimal_value"], metadata["source_base"], metadata["target_base"]
        if 10 not in (source, target) or (target == 2 and value > 63):
            return None
        level = {(10, 2): 1, (2, 10): 2}.get((source, target), 3)
        return FAMILIES["bases"].pose(value, source, target, level, "en", rng)
    words, letter = [word.lower() for word in metadata["span"]], metadata["target_letter"]
    if not letter.isalpha() or not all(re.fullmatch("[a-z]{2,7}", word) for word in words):
        return None
    return FAMILIES["letters"].pose(words, letter, 3, "en", rng)
