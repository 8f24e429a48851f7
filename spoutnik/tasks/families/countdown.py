"""Reach a target with every number exactly once. The careful style is an open search, one attempt after another."""

import random
from collections.abc import Iterable

from spoutnik.tasks import phrases
from spoutnik.tasks.expressions import numbers_and_value
from spoutnik.tasks.family import Family, check_request, structure_key
from spoutnik.tasks.paths import Path, all_paths, random_path
from spoutnik.tasks.problem import Problem, Trace, check_style

# numbers used, largest number, operators, largest intermediate value, largest target, most attempts in a thought
LEVELS = {1: (3, 12, "+-", 36, 36, 8), 2: (3, 12, "+-*", 144, 100, 8), 3: (4, 15, "+-*", 150, 100, 6)}
MEAN_MISSES = {1: 1.2, 2: 1.8, 3: 2.2}

TEXT = {
    "en": {
        "prompt": ("Use {n} once each to make {t}.", "Make {t} with the numbers {n}. Use every number exactly once.",
                   "Write an expression equal to {t} that uses {n}, each number exactly once."),
        "miss": "not {t}.",
        "hit": "That is {t}.",
    },
    "fr": {
        "prompt": ("Utilise {n} une fois chacun pour faire {t}.",
                   "Fais {t} avec les nombres {n}. Utilise chaque nombre exactement une fois.",
                   "Écris une expression égale à {t} qui utilise {n}, chaque nombre une seule fois."),
        "miss": "pas {t}.",
        "hit": "C'est {t}.",
    },
}


class Countdown(Family):
    """Level 1: three numbers, + and -. Level 2: three numbers, + - *. Level 3: four numbers, + - *."""

    name = "countdown"
    levels = (1, 2, 3)
    structure = "the numbers, whatever the target: the search is the same"

    def generate(self, rng: random.Random, level: int, language: str) -> Problem:
        check_request(self, level, language)
        count, largest, operators, ceiling, largest_target, _ = LEVELS[level]
        while True:
            numbers = [rng.randint(1, largest) for _ in range(count)]
            path = random_path(numbers, operators, ceiling, rng)
            if path is not None and path.value <= largest_target and path.value not in numbers:
                break
        return self.pose(numbers, path.value, path.expression, level, language, rng)

    def pose(self, numbers: list[int], target: int, answer: str, level: int, language: str, rng: random.Random) -> Problem:
        """The problem in words; `answer` is one expression known to reach the target."""
        shown = ", ".join(map(str, rng.sample(numbers, len(numbers))))
        prompt = rng.choice(TEXT[language]["prompt"]).format(n=shown, t=target)
        return Problem(self, level, language, prompt, answer, {"numbers": sorted(numbers), "target": target})

    def structures(self, problem: Problem) -> Iterable[str]:
        return (structure_key(self.name, problem.data["numbers"]),)

    def verify(self, problem: Problem, answer: str) -> bool:
        read = numbers_and_value(answer)
        if read is None:
            return False
        numbers, value = read
        return sorted(numbers) == sorted(problem.data["numbers"]) and value == problem.data["target"]

    def solve(self, problem: Problem, rng: random.Random, style: str) -> Trace:
        check_style(self, style)
        _, _, operators, ceiling, _, most = LEVELS[problem.level]
        target, text = problem.data["target"], TEXT[problem.language]
        paths = all_paths(problem.data["numbers"], operators, ceiling)
        hits = [path for path in paths if path.value == target]
        if not hits:
            raise ValueError(f"No path reaches {target} with {problem.data['numbers']} and the operators {operators}.")
        hit = rng.choice(hits)
        if style == "quick":
            return Trace(hit.text + ".", hit.expression)
        misses = _near_misses(paths, target, _miss_count(rng, MEAN_MISSES[problem.level], most - 1), rng)
        words = phrases.opening(rng, problem.language)
        for path in misses:
            words += f"{path.text}, {text['miss'].format(t=target)} {phrases.retry(rng, problem.language)} "
        return Trace(words + f"{hit.text}. {text['hit'].format(t=target)}", hit.expression)


def _miss_count(rng: random.Random, mean: float, most: int) -> int:
    """Geometric: after each attempt the same chance to succeed, until the cap steers to the solution."""
    count = 0
    while count < most and rng.random() < mean / (1 + mean):
        count += 1
    return count


def _near_misses(paths: list[Path], target: int, count: int, rng: random.Random) -> list[Path]:
    """Failed attempts, all different, mildly preferring those that end near the target."""
    misses = [path for path in paths if path.value != target]
    noisy = sorted(misses, key=lambda path: rng.random() * (8 + abs(path.value - target)))
    chosen = noisy[:count]
    rng.shuffle(chosen)
    return chosen
