"""Benchmarks that are read from files: GSM8K, until the readers of the others are merged."""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import read_jsonl
from spoutnik.tasks.problem import Problem, Task

BENCHMARKS = ("gsm8k",)
_PROMPT = "{}\nPlease reason step by step, and put your final answer within \\boxed{{}}."


class _GSM8K(Task):
    name = "gsm8k"

    def __init__(self, data: Path):
        file = data / "gsm8k" / "test.jsonl" if data.is_dir() else data
        rows = read_jsonl(file, ("question", "answer"), texts=True)
        if not rows:
            raise UserError(f"{file}: has no problem. Give GSM8K's own test.jsonl.")
        self._problems = [Problem(self, 1, "en", _PROMPT.format(row["question"]),
                                  row["answer"].rpartition("####")[2].strip().replace(",", ""), {}) for row in rows]

    def problems(self, split: str = "held_out") -> Sequence[Problem] | None:
        return self._problems if split == "held_out" else None

    def extract(self, problem: Problem, answer: str) -> str | None:
        boxed = re.findall(r"\\boxed\{([^{}]*)\}", answer)
        numbers = re.findall(r"-?\d+(?:\.\d+)?", (boxed[-1] if boxed else answer).replace(",", ""))
        return numbers[-1] if numbers else None

    def verify(self, problem: Problem, answer: str) -> float:
        number = self.extract(problem, answer)
        return float(number is not None and Fraction(number) == Fraction(problem.answer))


def read_benchmark(name: str, data: Path | None) -> Task:
    if data is None:
        raise UserError(f"--bench {name}: needs --data, the folder of its files.")
    return _GSM8K(data)
