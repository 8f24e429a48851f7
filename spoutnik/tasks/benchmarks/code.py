"""Benchmarks of programming: HumanEval, MBPP, LiveCodeBench; programs run in the sandbox of spoutnik.tasks.code."""

from collections.abc import Iterable

from spoutnik.tasks.benchmarks.benchmark import Benchmark
from spoutnik.tasks.benchmarks.records import Record
from spoutnik.tasks.problem import Problem

COMPLETE = ("Complete the following Python function. Answer with the whole function and its imports in one Python code block."
            "\n\n```python\n{prompt}\n```")
WRITE = ("{text}\nYour code must pass these tests:\n\n```python\n{tests}\n```\n\nAnswer with the whole program, without the "
         "tests, in one Python code block.")
STDIN = ("{question}\n\nWrite a Python program that reads its input from standard input and prints its answer to standard "
         "output. Do not test it on the examples. Answer with the whole program in one Python code block.")
FUNCTION = ("{question}\n\nComplete this code and keep its names. Answer with the whole program in one Python code block.\n\n"
            "```python\n{starter}\n```")
MBPP_TEST = range(11, 511)  # task ids of the test split


class CodeBenchmark(Benchmark):
    """Problems that are solved by a program, which is right when it passes the tests."""

    def verify(self, problem: Problem, answer: str) -> float:
        from spoutnik.tasks.code import passes

        solution = self.extract(problem, answer)
        return float(solution is not None and passes(solution, problem.data["tests"]))

    def extract(self, problem: Problem, answer: str) -> str | None:
        from spoutnik.tasks.code import extract

        return extract(answer)


def humaneval(benchmark: CodeBenchmark, record: Record) -> Problem:
    """`task_id`, `prompt`, `entry_point`, `test`."""
    row = {name: record.text(name) for name in ("prompt", "entry_point", "test")}
    own_id = record.text("task_id").removeprefix("HumanEval/")
    return benchmark.problem(COMPLETE.format(prompt=row["prompt"].strip("\n")), "", own_id, tests=row)


def mbpp(benchmark: CodeBenchmark, records: Iterable[Record]) -> list[Problem]:
    """`task_id`, `text` or `prompt`, `test_list` or `test`, `test_setup_code` or `test_imports`; those of the test split, where
    the file has the others too."""
    listed = [(record, int(record.number("task_id"))) for record in records]
    if any(number not in MBPP_TEST for _, number in listed) and any(number in MBPP_TEST for _, number in listed):
        listed = [(record, number) for record, number in listed if number in MBPP_TEST]
    problems = []
    for record, number in listed:
        tests = record.texts("test_list", "test")
        setup = record.values.get("test_setup_code") or "\n".join(record.values.get("test_imports") or [])
        prompt = WRITE.format(text=record.text("text", "prompt").strip(), tests="\n".join(tests))
        problems.append(benchmark.problem(prompt, "", number, tests={"test_list": tests, "test_setup_code": setup}))
    return problems


def livecodebench(benchmark: CodeBenchmark, record: Record) -> Problem:
    """`question_id`, `question_content`, `starter_code`, `difficulty`, `metadata`, `public_test_cases`,
    `private_test_cases`."""
    row = {name: record.get(name) for name in ("public_test_cases", "private_test_cases", "metadata")}
    question, starter = record.text("question_content").strip(), record.values.get("starter_code")
    prompt = FUNCTION.format(question=question, starter=starter) if isinstance(starter, str) and starter.strip() else \
        STDIN.format(question=question)
    return benchmark.problem(prompt, "", record.get("question_id"), str(record.values.get("difficulty") or ""), tests=row)
