"""A published benchmark as a task: its problems are read from files, and all of them are held out."""

import random
from collections.abc import Sequence

from spoutnik.errors import UserError
from spoutnik.files import sha256_json
from spoutnik.tasks.problem import Problem, Task, check_split


class Benchmark(Task):
    """Problems that were read, in the order of their file, with the way that they are verified.

    A problem's data have its stable `id` (the file's own, or a hash of the question), its `stratum` (subject or level, ""
    where there is one kind alone), its `question` without what the prompt says beside it, which other data are compared with,
    and what `verify` needs.
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

    def problem(self, question: str, prompt: str, answer: str, own_id: object = None, stratum: str = "", level: int = 1,
                **data) -> Problem:
        """A problem of this benchmark. own_id: the file's; without one a hash of the question stands for it."""
        question = question.strip()
        name = own_id if own_id is not None else sha256_json([question])[:12]
        identity = {"id": f"{self.name}/{name}", "stratum": stratum, "question": question}
        return Problem(self, level, self.languages[0], prompt, answer, identity | data)


def subset(problems: Sequence[Problem], count: int) -> list[Problem]:
    """`count` of the problems in their order: the same whatever else is in the file, spread over it, and those of a smaller
    count are among them."""
    chosen = sorted(range(len(problems)), key=lambda index: sha256_json(problems[index].data["id"]))[:count]
    return [problems[index] for index in sorted(chosen)]
