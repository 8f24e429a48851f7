"""Verdicts on solutions, made outside the process that runs them.

The solution and the tests run in two processes of the sandbox with a channel between them. The tests call; the solution's
process answers with plain data; the comparison happens in the tests' process, which the solution cannot see, let alone
change. The verdict leaves that process by a pipe of its own.
"""

import json
import math
import socket
from dataclasses import dataclass, replace

from spoutnik.errors import RunError
from spoutnik.tasks.code.extract import extract_code
from spoutnik.tasks.code.jobs import attend
from spoutnik.tasks.code.limits import RunResult
from spoutnik.tasks.code.outputs import same_output
from spoutnik.tasks.code.sandbox import ATTEMPTS, Sandbox, as_bytes, content_file, pipe
from spoutnik.tasks.code.suites import AssertTests, Case, FunctionTests, HumanEvalTests, StdinTests, Tests

VERDICT_BYTES = 1 << 16
CHECKER_TIMEOUT = 10.0  # seconds
# A checker is a program with three file names as arguments. It is ours, but what it reads is the solution's: it runs alone.
CALL_CHECKER = """import json, sys
for name, text in json.load(sys.stdin).items():
    with open(name, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)
sys.argv = ["checker.py", "input.txt", "expected.txt", "actual.txt"]
"""


@dataclass(frozen=True)
class Verdict:
    """Whether a solution passed, and if not, why (for people; may hold text of the solution's)."""

    passed: bool
    reason: str = ""


def judge(sandbox: Sandbox, solution: str, tests: Tests, timeout: float) -> Verdict:
    """The verdict on the source of a solution."""
    if not isinstance(solution, str):
        return Verdict(False, "The solution is no text.")
    if isinstance(tests, StdinTests):
        return _judge_program(sandbox, solution, tests, timeout)
    return _judge_functions(sandbox, tests.complete(solution), tests, timeout)


def _judge_functions(sandbox: Sandbox, program: str, tests: AssertTests | HumanEvalTests | FunctionTests,
                     timeout: float) -> Verdict:
    if isinstance(tests, FunctionTests) and not tests.cases:
        return Verdict(False, "There are no tests.")
    parts = json.dumps(tests.parts()).encode("ascii")
    with content_file(as_bytes(program)) as source, content_file(parts) as code, content_file(b"") as empty:
        for _ in range(ATTEMPTS):
            ours, theirs = socket.socketpair()
            with ours, theirs, open("/dev/null", "wb") as nowhere, pipe(VERDICT_BYTES) as (report, report_end):
                nothing = nowhere.fileno()
                requests = [({"kind": "tests"}, [code, empty, report_end.fileno(), nothing, ours.fileno()]),
                            ({"kind": "solution"}, [source, empty, nothing, nothing, theirs.fileno()])]
                try:
                    with sandbox.started(requests) as jobs:
                        for end in (ours, theirs, report_end):
                            end.close()
                        end = attend(jobs, [report], timeout, sandbox.limits)
                except ConnectionError:
                    continue  # another zygote
                if end.timed_out:
                    return Verdict(False, f"It took more than {timeout:g} seconds.")
                if end.out_of_memory:
                    return Verdict(False, "It took more memory than it may.")
                return _verdict(bytes(report.data))
    raise RunError("The sandbox's warm process ended again and again before it started the tests.")


def _verdict(report: bytes) -> Verdict:
    """The verdict from the report of the tests' process; without one, they did not come to their end."""
    try:
        report = json.loads(report)
        return Verdict(report["passed"] is True, str(report["reason"]))
    except (ValueError, KeyError, TypeError):
        return Verdict(False, "The tests ended without a verdict.")


def _judge_program(sandbox: Sandbox, program: str, tests: StdinTests, timeout: float) -> Verdict:
    if not tests.cases:
        return Verdict(False, "There are no tests.")
    if tests.time_limit is not None:
        timeout = tests.time_limit
    limits = sandbox.limits
    if tests.memory_limit is not None:
        limits = replace(limits, memory=tests.memory_limit)
    for number, case in enumerate(tests.cases, 1):
        result = sandbox.run(program, case.input, timeout, tests.files, limits)
        reason = _failure(result) or _difference(sandbox, tests, case, result.stdout)
        if reason:
            return Verdict(False, f"Case {number}: {reason}")
    return Verdict(True)


def _failure(result: RunResult) -> str:
    if result.timed_out:
        return "it took too long."
    if result.out_of_memory:
        return "it took more memory than it may."
    if result.truncated:
        return "it wrote more than it may."
    if result.exit_code != 0:
        return f"it ended with exit status {result.exit_code}. {result.stderr.strip()[-300:]}"
    return ""


def _difference(sandbox: Sandbox, tests: StdinTests, case: Case, actual: str) -> str:
    if tests.checker is None:
        return "" if same_output(case.output, actual) else f"another output than expected: {actual[:100]!r}."
    files = json.dumps({"input.txt": case.input, "expected.txt": case.output, "actual.txt": actual})
    result = sandbox.run(CALL_CHECKER + tests.checker, files, CHECKER_TIMEOUT)
    lines = result.stdout.split()
    try:
        points = float(lines[-1]) if lines and result.exit_code == 0 else math.nan
    except ValueError:
        points = math.nan
    return "" if points >= 1.0 else f"the checker refuses the output {actual[:100]!r}."


def code_of(tests: Tests, answer: object) -> str | None:
    """The solution in a model's answer."""
    if not isinstance(answer, str):
        return None
    return extract_code(answer, continues=isinstance(tests, HumanEvalTests))
