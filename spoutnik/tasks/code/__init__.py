"""Code as a task: programs run in a sandbox, verdicts are made outside it (docs/sandbox.md).

    run("print(input())", "hello").stdout                       a program: stdout, stderr, exit_code, timed_out
    passes("def add(a, b): return a + b", ["assert add(1, 2) == 3"])      a solution against tests: True or False
    grade(tests, answer)                                        a model's answer, code found in it: 1.0 or 0.0
    judge(tests, answer)                                        the same with the reason

`tests` are one of the classes of suites.py, as the readers of benchmarks in formats.py make them (HumanEval, MBPP,
LiveCodeBench, APPS, TACO, Codeforces), or a plain form: a text or a list of asserts, a list of {"input", "output"}. Wrong
code of a model, whatever it is, is a verdict, never an exception. UserError says that the tests are none, or that code cannot
be confined here and what to do; RunError, that the sandbox failed. All functions may be called from several threads.
"""

import threading

from spoutnik.tasks.code.extract import extract_code
from spoutnik.tasks.code.limits import Limits, RunResult
from spoutnik.tasks.code.sandbox import KINDS, Sandbox
from spoutnik.tasks.code.suites import AssertTests, Case, FunctionTests, HumanEvalTests, StdinTests, Tests, as_tests
from spoutnik.tasks.code.verdict import Verdict, code_of
from spoutnik.tasks.code.verdict import judge as _judge

__all__ = ["KINDS", "AssertTests", "Case", "FunctionTests", "HumanEvalTests", "Limits", "RunResult", "Sandbox", "StdinTests",
           "Tests", "Verdict", "as_tests", "current_sandbox", "extract_code", "grade", "judge", "passes", "run", "use_sandbox"]

_lock = threading.Lock()
_sandbox: Sandbox | None = None


def current_sandbox() -> Sandbox:
    """The sandbox of this process; the first call starts it. Raises UserError where bubblewrap does not start."""
    global _sandbox
    with _lock:
        if _sandbox is None:
            _sandbox = Sandbox()
        return _sandbox


def use_sandbox(chosen: Sandbox) -> None:
    """Make `chosen` the sandbox of this process (`--sandbox rlimit`)."""
    global _sandbox
    with _lock:
        _sandbox = chosen


def run(program: str, stdin: str = "", timeout: float = 5.0) -> RunResult:
    """Run a Python program in the sandbox for at most `timeout` seconds."""
    return current_sandbox().run(program, stdin, timeout)


def passes(solution: str, tests: object, timeout: float = 5.0) -> bool:
    """Whether the source of a solution passes tests.

    Args:
        timeout: seconds for all tests together; for tests by standard input, for each case.
    """
    return _judge(current_sandbox(), solution, as_tests(tests), timeout).passed


def judge(tests: object, answer: object, timeout: float = 5.0) -> Verdict:
    """The verdict on a model's answer (the part after its thought), in which the code is looked for first."""
    tests = as_tests(tests)
    solution = code_of(tests, answer)
    if solution is None:
        return Verdict(False, "There is no Python code in the answer.")
    return _judge(current_sandbox(), solution, tests, timeout)


def grade(tests: object, answer: object, timeout: float = 5.0) -> float:
    """1.0 where the code in a model's answer passes, else 0.0: what training and evaluation call."""
    return float(judge(tests, answer, timeout).passed)
