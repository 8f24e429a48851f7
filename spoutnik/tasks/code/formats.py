"""Rows of published benchmarks as tests: HumanEval, MBPP, LiveCodeBench, APPS, TACO, Codeforces (open-r1).

Each function takes one row (a mapping as the benchmark's JSON has it) and returns tests. UserError names the key that is
missing or wrong; the reader of the file adds its name and the line.
"""

import ast
import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping

from spoutnik.errors import UserError
from spoutnik.tasks.code.suites import AssertTests, Case, FunctionTests, HumanEvalTests, StdinTests, Tests, as_tests, as_text

MAX_UNPACKED = 1 << 30  # bytes of a problem's private tests: the largest of LiveCodeBench have some hundred million


def humaneval(row: Mapping) -> HumanEvalTests:
    """HumanEval (openai/human-eval): prompt, test, entry_point."""
    return HumanEvalTests(*(_text(row, key) for key in ("prompt", "test", "entry_point")))


def mbpp(row: Mapping) -> AssertTests:
    """MBPP: test_list, with test_setup_code after the solution; the sanitized variant: test_list, test_imports. Another
    common file calls the list `test`."""
    asserts = row.get("test_list", row.get("test"))
    if not isinstance(asserts, list) or not asserts or not all(isinstance(line, str) for line in asserts):
        raise UserError('MBPP needs "test_list", a list of asserts.')
    imports = row.get("test_imports") or []
    setup = "\n".join([*imports, _text(row, "test_setup_code", "")])
    return AssertTests("\n".join(asserts), setup, _tested_functions(_text(row, "code", ""), asserts))


def _tested_functions(reference: str, asserts: list[str]) -> tuple[str, ...]:
    """The functions of the reference solution that the asserts call; a solution must have them by these names."""
    try:
        own = {node.name for node in ast.parse(reference).body if isinstance(node, ast.FunctionDef)}
        calls = [node.func.id for line in asserts for node in ast.walk(ast.parse(line.strip()))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    except (SyntaxError, ValueError):
        return ()  # AssertTests says what is wrong with the asserts; the reference is only asked for names
    return tuple(dict.fromkeys(name for name in calls if name in own))


def livecodebench(row: Mapping) -> Tests:
    """LiveCodeBench: public_test_cases and private_test_cases (packed), by standard input or by a function
    (metadata.func_name)."""
    cases = _json(row, "public_test_cases", []) + unpack_private(row.get("private_test_cases") or "[]")
    if not cases or not all(isinstance(case, Mapping) and {"input", "output"} <= set(case) for case in cases):
        raise UserError('LiveCodeBench needs test cases with "input" and "output".')
    functional = {case.get("testtype") == "functional" for case in cases}
    if functional == {False}:
        return StdinTests(tuple(Case(as_text(case["input"]), as_text(case["output"])) for case in cases))
    name = _json(row, "metadata", {}).get("func_name")
    if functional != {True} or not isinstance(name, str):
        raise UserError('A functional problem of LiveCodeBench needs "func_name" in its metadata and functional cases alone.')
    return FunctionTests(name, tuple((_arguments(case["input"]), _value(case["output"])) for case in cases))


def unpack_private(packed: object) -> list:
    """LiveCodeBench's private tests: JSON as it is, or base64 of zlib of a pickled string with JSON."""
    if not isinstance(packed, str):
        raise UserError('"private_test_cases" is no text.')
    try:
        if packed.lstrip().startswith("["):
            return json.loads(packed)
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(packed, validate=True), MAX_UNPACKED)
        if unpacker.unconsumed_tail:
            raise UserError(f'"private_test_cases" hold more than {MAX_UNPACKED >> 20} MB.')
        cases = json.loads(StringUnpickler(io.BytesIO(data)).load())
    except (ValueError, TypeError, EOFError, binascii.Error, zlib.error, pickle.UnpicklingError, RecursionError, IndexError,
            AttributeError, KeyError, OverflowError) as error:
        raise UserError(f'"private_test_cases" are neither JSON nor base64(zlib(pickle(JSON text))): {error}') from None
    if not isinstance(cases, list):
        raise UserError('"private_test_cases" hold no list.')
    return cases


class StringUnpickler(pickle.Unpickler):
    """An unpickler for plain values: a name of a module or a class in the data, which would run code, is refused."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it names {module}.{name}, where only a text is allowed")

    def persistent_load(self, number: object) -> object:
        raise pickle.UnpicklingError("it refers to something outside")


def apps(row: Mapping) -> Tests:
    """APPS and TACO: input_output, JSON with inputs, outputs and for functions fn_name."""
    tests = _json(row, "input_output", None)
    if not isinstance(tests, Mapping) or not tests.get("inputs"):
        raise UserError('APPS and TACO need "input_output" with "inputs" and "outputs"; this problem has none.')
    return as_tests(tests)


def codeforces(row: Mapping) -> StdinTests:
    """open-r1/codeforces: official_tests, input_mode, generated_checker, time_limit in seconds, memory_limit in megabytes.

    Raises UserError where official_tests_complete is false: passing a part of the tests is no proof.
    """
    cases = row.get("official_tests")
    if not cases or not all(isinstance(case, Mapping) and {"input", "output"} <= set(case) for case in cases):
        raise UserError('Codeforces needs "official_tests" with "input" and "output".')
    if row.get("official_tests_complete") is False:
        raise UserError('"official_tests_complete" is false: the problem has more tests than are published.')
    mode = row.get("input_mode") or "stdio"
    if mode not in ("stdio", "file"):
        raise UserError(f'"input_mode" is {mode!r}; programs read from "stdio" or "file".')
    memory = row.get("memory_limit")
    return StdinTests(tuple(Case(as_text(case["input"]), as_text(case["output"])) for case in cases),
                      checker=row.get("generated_checker") or None, time_limit=row.get("time_limit"),
                      memory_limit=None if memory is None else int(memory * (1 << 20)),
                      files=("input.txt", "output.txt") if mode == "file" else None)


def _text(row: Mapping, key: str, default: str | None = None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str):
        raise UserError(f'"{key}" is missing or no text.')
    return value


def _json(row: Mapping, key: str, default: object) -> object:
    """A value that some files hold as JSON text."""
    value = row.get(key, default)
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else default
        except (ValueError, RecursionError) as error:
            raise UserError(f'"{key}" is no JSON: {error}') from None
    if default is not None and not isinstance(value, type(default)):
        raise UserError(f'"{key}" is no {"list" if isinstance(default, list) else "object"}.')
    return value


def _arguments(text: object) -> list:
    """The arguments of a call: one JSON value a line."""
    return [_value(line) for line in as_text(text).split("\n") if line.strip()]


def _value(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        raise UserError(f"A functional case holds what is no JSON: {str(text)[:60]!r}.") from None
