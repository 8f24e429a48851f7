"""A published benchmark as a task: its problems are read from files, and all of them are held out."""

import random
from collections.abc import Sequence

from spoutnik.errors import UserError
from spoutnik.files import sha256_json
from spoutnik.tasks.problem import Problem, Task, check_split


class Benchmark(Task):
    """Problems that were read, in the order of their file, with the way that they are verified.

    A problem's data have its stable `id` (the file's own, or a hash of the question), its `stratum` (subject or level, ""
    where there is one kind alone) and what `verify` needs.
    """

    def __init__(self, name: str, about: str, languages: tuple[str, ...] = ("en",)):
        self.name, self.about, self.languages = name, about, languages
        self.held_out: Sequence[Problem] = ()
        self.training: Sequence[Problem] = ()

    def problems(self, split: str = "held_out") -> Sequence[Problem]:
        """All problems of the test; for "train" those that the benchmark publishes for examples, if their file is there."""
        check_split(split)
        return self.held_out if split == "held_out" else self.training

    def sample(self, rng: random.Random, split: str = "train") -> Problem:
        problems = self.problems(split)
        if not problems:
            raise UserError(f"The benchmark {self.name} has no problems to train on: it is held out. Train on other tasks.")
        return problems[rng.randrange(len(problems))]

    def verify(self, problem: Problem, answer: str) -> float:
        raise NotImplementedError

    def extract(self, problem: Problem, answer: str) -> str | None:
        """The part of an answer that is graded; None where there is none."""
        return answer.strip() or None

    def same(self, one: str, other: str) -> bool:
        """Whether two extracted answers say the same, right or wrong: votes count them together."""
        return one.strip() == other.strip()

    def problem(self, prompt: str, answer: str, own_id: object, stratum: str = "", level: int = 1, **data) -> Problem:
        """A problem of this benchmark. own_id: the file's, or `fingerprint` of the question."""
        identity = {"id": f"{self.name}/{own_id}", "stratum": stratum}
        return Problem(self, level, self.languages[0], prompt, answer, identity | data)


def fingerprint(question: str) -> str:
    """What stands for the id of a question that has none."""
    return sha256_json([question.strip()])[:12]


def subset(problems: Sequence[Problem], count: int) -> list[Problem]:
    """`count` of the problems in their order: the same whatever else is in the file, spread over it, and those of a smaller
    count are among them."""
    chosen = sorted(range(len(problems)), key=lambda index: sha256_json(problems[index].data["id"]))[:count]
    return [problems[index] for index in sorted(chosen)]
