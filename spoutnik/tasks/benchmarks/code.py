"""Benchmarks of programming: HumanEval, MBPP, LiveCodeBench; programs run in the sandbox of spoutnik.tasks.code."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from spoutnik.errors import UserError
from spoutnik.tasks.benchmarks.benchmark import Benchmark
from spoutnik.tasks.benchmarks.records import Record
from spoutnik.tasks.problem import Problem, side_by_side

if TYPE_CHECKING:
    from spoutnik.tasks.code import Tests

COMPLETE = ("Complete the following Python function. Answer with the whole function and its imports in one Python code block."
            "\n\n```python\n{prompt}\n```")
WRITE = ("{text}\nYour code must pass these tests:\n\n```python\n{tests}\n```\n\nAnswer with the whole program, without the "
         "tests, in one Python code block.")
STDIN = ("{question}\n\nWrite a Python program that reads its input from standard input and prints its answer to standard "
         "output. Do not test it on the examples. Answer with the whole program in one Python code block.")
FUNCTION = ("{question}\n\nComplete this code and keep its names. Answer with the whole program in one Python code block.\n\n"
            "```python\n{starter}\n```")
MBPP_TEST = range(11, 511)  # task ids of the test split
TIMEOUT = 10.0  # seconds of a processor: a reference of MBPP (123) needs 5 on a slow one
KEPT = 4  # problems whose tests stay in memory


class CodeBenchmark(Benchmark):
    """Problems that are solved by a program, which is right when it passes the tests of its row."""

    def __init__(self, name: str, about: str, languages: tuple[str, ...] = ("en",)):
        super().__init__(name, about, languages)
        self._kept: dict[str, Tests] = {}

    def tests_of(self, row: dict[str, object]) -> "Tests":
        """The tests of a row of the benchmark's file. Raises UserError where they are none."""
        raise NotImplementedError

    def verify(self, problem: Problem, answer: str) -> float:
        from spoutnik.tasks.code import grade

        return grade(self._tests(problem), answer, TIMEOUT)

    def verify_all(self, asked: Sequence[tuple[Problem, str]]) -> list[float]:
        """Programs run on all cores."""
        return side_by_side(self.verify, asked)

    def extract(self, problem: Problem, answer: str) -> str | None:
        from spoutnik.tasks.code.verdict import code_of

        return code_of(self._tests(problem), answer)

    def _tests(self, problem: Problem) -> "Tests":
        """Those of the last problems are kept: the hidden ones of LiveCodeBench take long to unpack, and a problem's samples
        are often graded one after the other."""
        tests = self._kept.get(problem.data["id"])
        if tests is None:
            tests = self.tests_of(problem.data["row"])
            self._kept = dict([*self._kept.items()][1 - KEPT:]) | {problem.data["id"]: tests}
        return tests

    def checked(self, record: Record, row: dict[str, object]) -> dict[str, object]:
        """The row. Raises UserError with the record's place where its tests are none."""
        try:
            self.tests_of(row)
        except UserError as error:
            raise record.error(str(error)) from error
        return row


class HumanEval(CodeBenchmark):
    """Functions that go on after their signature and docstring."""

    def tests_of(self, row: dict[str, object]) -> "Tests":
        from spoutnik.tasks.code import formats

        return formats.humaneval(row)


def humaneval(benchmark: HumanEval, record: Record) -> Problem:
    """`task_id`, `prompt`, `entry_point`, `test`."""
    row = benchmark.checked(record, {name: record.text(name) for name in ("prompt", "entry_point", "test")})
    own_id = record.text("task_id").removeprefix("HumanEval/")
    prompt = row["prompt"].strip("\n")
    return benchmark.problem(prompt, COMPLETE.format(prompt=prompt), "", own_id, row=row)


class MBPP(CodeBenchmark):
    """Functions from a sentence and three asserts."""

    def tests_of(self, row: dict[str, object]) -> "Tests":
        from spoutnik.tasks.code import formats

        return formats.mbpp(row)


def mbpp(benchmark: MBPP, records: Iterable[Record]) -> list[Problem]:
    """`task_id`, `text` or `prompt`, `test_list` or `test`, `test_setup_code` or `test_imports`, `code`; those of the test
    split, where the file has the others too."""
    listed = [(record, _task_id(record)) for record in records]
    if any(number not in MBPP_TEST for _, number in listed) and any(number in MBPP_TEST for _, number in listed):
        listed = [(record, number) for record, number in listed if number in MBPP_TEST]
    problems = []
    for record, number in listed:
        names = ("test_list", "test", "test_setup_code", "test_imports", "code")
        row = benchmark.checked(record, {name: record.values[name] for name in names if record.has(name)})
        text = record.text("text", "prompt").strip()
        prompt = WRITE.format(text=text, tests="\n".join(record.texts("test_list", "test")))
        problems.append(benchmark.problem(text, prompt, "", number, row=row))
    return problems


def _task_id(record: Record) -> int:
    number = record.number("task_id")
    if not number.isdecimal():
        raise record.wrong(("task_id",), number, "a number")
    return int(number)


class LiveCodeBench(CodeBenchmark):
    """Contest problems, by standard input or by a function."""

    def tests_of(self, row: dict[str, object]) -> "Tests":
        from spoutnik.tasks.code import formats

        return formats.livecodebench(row)


def livecodebench(benchmark: LiveCodeBench, record: Record) -> Problem:
    """`question_id`, `question_content`, `starter_code`, `difficulty`, `metadata`, `public_test_cases`,
    `private_test_cases`, which are unpacked only where they are used: all of them together fill gigabytes."""
    row = {name: record.get(name) for name in ("public_test_cases", "private_test_cases", "metadata")}
    benchmark.checked(record, row | {"private_test_cases": "[]"})
    question, starter = record.text("question_content").strip(), record.values.get("starter_code")
    prompt = FUNCTION.format(question=question, starter=starter) if isinstance(starter, str) and starter.strip() else \
        STDIN.format(question=question)
    stratum = str(record.values.get("difficulty") or "")
    return benchmark.problem(question, prompt, "", record.get("question_id"), stratum, row=row)
