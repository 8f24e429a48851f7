"""A set of reasoning-gym as a task: its own prompt, its own scorer, and nothing that the scorer should not see."""

import hashlib
import random
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from spoutnik.tasks.exemptions import Exemption
from spoutnik.tasks.family import MAX_REJECTIONS
from spoutnik.tasks.gym.process import gym_process
from spoutnik.tasks.gym.sets import ACCEPTED, EXEMPTIONS, SETS
from spoutnik.tasks.gym.worker import SCORE_SECONDS
from spoutnik.tasks.problem import Problem, Task, check_split, is_held_out

PREFIX = "gym-"
LONGEST_ANSWER = 20_000  # characters; the longest of the gym's own have some thousand
_SEEDS = 1 << 30


class GymTask(Task):
    """A set of reasoning-gym at its own settings.

    An answer is right (1.0) where the gym's scorer gives full marks. Its partial credit, its exceptions and what takes it more
    than two seconds are 0. Scorers that evaluate answers as Python see only those of a harmless form.

    raw: the scorer alone, with its exceptions, its partial credit and its holes: for the audit, never for training.
    """

    def __init__(self, gym_name: str, raw: bool = False):
        self.gym_name, self.raw = gym_name, raw
        self.name = PREFIX + gym_name + (" raw" if raw else "")
        self.about = f"reasoning-gym, {SETS[gym_name]}: {gym_name.replace('_', ' ')}"
        self.content = _version()
        self.exemptions: Mapping[str, Exemption] = {} if raw else EXEMPTIONS.get(gym_name, {})

    def sample(self, rng: random.Random, split: str = "train") -> Problem:
        """A problem of the split. Even seeds are for training, odd ones held out; and since two seeds may give one problem, its
        text decides as well."""
        check_split(split)
        held_out = split == "held_out"
        for _ in range(MAX_REJECTIONS):
            problem = self.problem(2 * rng.randrange(_SEEDS) + held_out)
            if is_held_out(problem) == held_out:
                return problem
        raise RuntimeError(f"No {split} problem of {self.name} in {MAX_REJECTIONS} draws.")

    def problem(self, seed: int) -> Problem:
        """The problem of a seed, always the same. Its answer is empty where the gym has none."""
        drawn = gym_process.draw(self.gym_name, seed)
        digest = hashlib.sha256(drawn["question"].encode("utf-8")).hexdigest()
        return Problem(self, 1, "en", drawn["question"], drawn["answer"] or "", {"question": digest[:32], "shown_seed": seed})

    def verify(self, problem: Problem, answer: str) -> float:
        seed = problem.data["shown_seed"]
        if self.raw:
            return self._raw_score(seed, answer)
        if not isinstance(answer, str) or len(answer) > LONGEST_ANSWER:
            return 0.0
        answer, form = answer.strip(), ACCEPTED.get(self.gym_name)
        if form is not None and not form.fullmatch(answer):
            return 0.0
        score = gym_process.score(self.gym_name, seed, answer)
        return float(isinstance(score, float) and score >= 1.0)

    def _raw_score(self, seed: int, answer: str) -> float:
        score = gym_process.score(self.gym_name, seed, answer)
        if isinstance(score, float):
            return min(max(score, 0.0), 1.0)
        raise RuntimeError(score or f"it took more than {SCORE_SECONDS} seconds, or too much memory")


@cache
def _version() -> str:
    """Of the gym, which decides problems and verdicts; "" where it is not installed."""
    try:
        return f"reasoning-gym {version('reasoning-gym')}"
    except PackageNotFoundError:
        return ""
