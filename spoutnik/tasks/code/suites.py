"""Tests of a program: what a solution must do, as a benchmark gives it."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spoutnik.errors import UserError


@dataclass(frozen=True)
class AssertTests:
    """Tests written in Python (MBPP's asserts, or any text with asserts).

    They run in a process of their own. Names that they do not define stand for what the solution defines; its functions are
    called in the solution's process and return plain data.

    code: the tests.
    setup: Python before them (and after the solution).
    entry_points: names that are the solution's even where Python has a built-in function of that name (MBPP's `sum`).
    """

    code: str
    setup: str = ""
    entry_points: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_syntax(f"{self.setup}\n{self.code}")

    @property
    def needs_check(self) -> bool:
        """Whether the tests define `check(candidate)` and do not call it."""
        tree = ast.parse(self.code)
        defines = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
        called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        return defines and "check" not in called

    def complete(self, solution: str) -> str:
        """The program that is run for a solution."""
        return solution

    def parts(self) -> dict:
        """What the tests' process is given."""
        return {"trusted": "", "setup": self.setup, "code": self.code, "entry_points": list(self.entry_points),
                "check": self.needs_check}


@dataclass(frozen=True)
class HumanEvalTests:
    """HumanEval's tests: `test` defines `check(candidate)`, which is called with the solution's `entry_point`.

    The prompt is ours: helper functions in it that the tests use are those of the prompt, whatever the solution makes of them.
    """

    prompt: str
    test: str
    entry_point: str

    def __post_init__(self) -> None:
        _check_syntax(self.stub)
        _check_syntax(self.test)
        if not self.entry_point.isidentifier() or not re.search(r"^def check\b", self.test, re.MULTILINE):
            raise UserError("HumanEval's tests define a function `check`, and `entry_point` is the name of what it is called "
                            f"with; here entry_point is {self.entry_point!r} and the test begins {self.test[:60]!r}.")

    @property
    def stub(self) -> str:
        """The prompt as a program; a function without a docstring needs a statement."""
        return self.prompt if _parses(self.prompt) else f"{self.prompt.rstrip()}\n    pass\n"

    def complete(self, solution: str) -> str:
        """The prompt with its continuation, or with the whole function written anew below it."""
        if solution.startswith(self.prompt.rstrip()):
            return solution
        whole = defines(solution, self.entry_point)
        if not whole:
            return self.prompt + solution
        joined = f"{self.stub}\n{solution}"
        return joined if _parses(joined) else solution  # `from __future__` must come first

    def parts(self) -> dict:
        """What the tests' process is given."""
        return {"trusted": self.stub, "setup": "", "code": self.test, "entry_points": [self.entry_point], "check": True}


@dataclass(frozen=True)
class Case:
    """One run of a program: what it reads and what it must write."""

    input: str
    output: str


@dataclass(frozen=True)
class StdinTests:
    """Tests of a whole program by its output (LiveCodeBench, APPS, TACO, Codeforces).

    Args:
        checker: a Python program that decides where several outputs are right: called with the names of files with the input,
            the expected and the actual output, it prints 1 (or a share of points, of which only all count).
        time_limit: seconds for one case; None leaves it to the caller.
        memory_limit: bytes; None leaves the sandbox's own.
        files: (input, output): names of files that the program uses instead of standard input and output.
    """

    cases: tuple[Case, ...]
    checker: str | None = None
    time_limit: float | None = None
    memory_limit: int | None = None
    files: tuple[str, str] | None = None

    def complete(self, solution: str) -> str:
        """The program that is run for a solution."""
        return solution


@dataclass(frozen=True)
class FunctionTests:
    """Tests of a function, or of the method of that name of a class `Solution`, by its results.

    Args:
        cases: pairs (arguments, expected result), JSON values.
        unwrap: an expected result may stand alone in a list (APPS).
    """

    name: str
    cases: tuple[tuple[list, object], ...]
    unwrap: bool = False

    def complete(self, solution: str) -> str:
        """The solution after the imports that such benchmarks take for granted."""
        return f"from typing import *\nfrom collections import *\n\n{solution}"

    def parts(self) -> dict:
        """What the tests' process is given."""
        return {"function": self.name, "cases": [list(case) for case in self.cases], "unwrap": self.unwrap}


Tests = AssertTests | HumanEvalTests | StdinTests | FunctionTests


def as_tests(tests: object) -> Tests:
    """Tests from their plain forms.

    A text is Python with asserts, or with a function `check(candidate)` (called with the function that the solution defines
    last, unless the text calls it). A list is one of such texts, or of cases: {"input", "output"} of a whole program; with
    "fn_name" (or "func_name") of a function, whose "input" is the list of its arguments. A mapping is APPS's {"inputs",
    "outputs", "fn_name"?}.

    Raises:
        UserError: it is none of these, or Python that does not parse.
    """
    if isinstance(tests, Tests):
        return tests
    if isinstance(tests, str):
        return AssertTests(tests)
    if isinstance(tests, Mapping):
        return _of_inputs(tests)
    if isinstance(tests, Sequence) and not isinstance(tests, bytes):
        if all(isinstance(part, str) for part in tests):
            return AssertTests("\n".join(tests))
        if all(isinstance(part, Case) for part in tests):
            return StdinTests(tuple(tests))
        if all(isinstance(part, Mapping) for part in tests):
            return _of_cases(tests)
    raise UserError(f"Tests of code are a text, a list of asserts or of cases with input and output; not {_short(tests)}.")


def _of_cases(cases: Sequence[Mapping]) -> Tests:
    for case in cases:
        if not {"input", "output"} <= set(case):
            raise UserError(f'A case of a test needs "input" and "output"; there is none in {_short(dict(case))}.')
    names = {case.get("fn_name") or case.get("func_name") for case in cases}
    if names == {None}:
        if any(case.get("testtype") == "functional" for case in cases):
            raise UserError('A case with testtype "functional" needs the name of its function as "fn_name".')
        return StdinTests(tuple(Case(as_text(case["input"]), as_text(case["output"])) for case in cases))
    if len(names) > 1:
        raise UserError(f"All cases of one problem test the same function, not {', '.join(sorted(map(str, names)))}.")
    for case in cases:
        if not isinstance(case["input"], list):
            raise UserError(f'The "input" of a case of a function is the list of its arguments, not {_short(case["input"])}.')
    return FunctionTests(str(names.pop()), tuple((case["input"], case["output"]) for case in cases))


def _of_inputs(tests: Mapping) -> Tests:
    inputs, outputs, name = tests.get("inputs"), tests.get("outputs"), tests.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise UserError('Tests with "inputs" and "outputs" need two lists of the same length; these are '
                        f"{_short(inputs)} and {_short(outputs)}.")
    if name is None:
        return StdinTests(tuple(Case(as_text(given), as_text(wanted)) for given, wanted in zip(inputs, outputs)))
    arguments = [given if isinstance(given, list) else [given] for given in inputs]
    return FunctionTests(str(name), tuple(zip(arguments, outputs)), unwrap=True)


def as_text(value: object) -> str:
    """Standard input or output as text; APPS has lists of lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def defines(source: str, name: str) -> bool:
    """Whether Python source defines a function or a class of that name at its top level."""
    tree = _parsed(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return tree is not None and any(isinstance(node, kinds) and node.name == name for node in tree.body)


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parses(source: str) -> bool:
    return _parsed(source) is not None


def _check_syntax(source: str) -> None:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"These tests are not Python: {error}. They begin {source.strip()[:60]!r}.") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
