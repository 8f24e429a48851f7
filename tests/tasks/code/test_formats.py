"""Rows of the benchmarks' formats, made by hand."""

import base64
import json
import os
import pickle
import zlib

import pytest
from code_helpers import needs_bubblewrap
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.tasks.code import AssertTests, Case, FunctionTests, HumanEvalTests, StdinTests, extract_code, formats, passes
from spoutnik.tasks.code.outputs import same_output

HUMANEVAL = {"task_id": "H/0", "prompt": 'def double(x: int) -> int:\n    """Twice x."""\n', "entry_point": "double",
             "canonical_solution": "    return 2 * x\n", "test": "def check(candidate):\n    assert candidate(2) == 4\n"}
MBPP = {"task_id": 1, "text": "Add.", "code": "class P:\n    v = 2\ndef add(a, b):\r\n  return a + b",
        "test_setup_code": "p = P()", "test_list": ["assert add(p.v, 1) == 3", "assert int(add(2, 2)) == 4"],
        "challenge_test_list": []}


def packed(cases: list) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def test_humaneval():
    assert formats.humaneval(HUMANEVAL) == HumanEvalTests(HUMANEVAL["prompt"], HUMANEVAL["test"], "double")
    for key in ("prompt", "test", "entry_point"):
        with pytest.raises(UserError, match=f'"{key}" is missing'):
            formats.humaneval({name: value for name, value in HUMANEVAL.items() if name != key})


def test_mbpp_and_its_sanitized_variant():
    assert formats.mbpp(MBPP) == AssertTests("\n".join(MBPP["test_list"]), "p = P()", ("add",))
    sanitized = {"task_id": 2, "prompt": "Add.", "code": "def add(a, b): return a + b", "test_imports": ["import math"],
                 "test_list": ["assert math.isclose(add(1, 2), 3)"]}
    assert formats.mbpp(sanitized) == AssertTests("assert math.isclose(add(1, 2), 3)", "import math\n", ("add",))
    with pytest.raises(UserError, match="test_list"):
        formats.mbpp({"text": "Add.", "test_list": []})


@needs_bubblewrap
def test_references_of_humaneval_and_mbpp_pass():
    assert passes(HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"], formats.humaneval(HUMANEVAL))
    assert passes(MBPP["code"], formats.mbpp(MBPP))


def test_livecodebench_by_standard_input_and_by_function():
    public = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
    private = [{"input": "2 2\n", "output": "4\n", "testtype": "stdin"}]
    row = {"public_test_cases": json.dumps(public), "private_test_cases": packed(private), "metadata": "{}"}
    assert formats.livecodebench(row) == StdinTests((Case("1 2\n", "3\n"), Case("2 2\n", "4\n")))
    calls = [{"input": "[1, 2]\n\"a\"", "output": "[2, 1]", "testtype": "functional"}]
    row = {"public_test_cases": json.dumps(calls), "private_test_cases": json.dumps(calls), "metadata": '{"func_name": "turn"}'}
    assert formats.livecodebench(row) == FunctionTests("turn", (([[1, 2], "a"], [2, 1]),) * 2)
    with pytest.raises(UserError, match="func_name"):
        formats.livecodebench(row | {"metadata": "{}"})
    with pytest.raises(UserError, match="no JSON"):
        formats.livecodebench(row | {"public_test_cases": "[{"})


class Runs:
    """What a hostile file of tests would hold: unpickling it calls a function."""

    def __reduce__(self):
        return os.system, ("touch /tmp/spoutnik-unpickled",)


def test_pickled_tests_run_nothing():
    hostile = base64.b64encode(zlib.compress(pickle.dumps(Runs()))).decode()
    with pytest.raises(UserError, match="where only a text is allowed"):
        formats.unpack_private(hostile)
    assert not os.path.exists("/tmp/spoutnik-unpickled")


@given(st.one_of(st.text(), st.binary().map(lambda data: base64.b64encode(data).decode()),
                 st.binary().map(lambda data: base64.b64encode(zlib.compress(data)).decode()),
                 st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
                     lambda value: base64.b64encode(zlib.compress(pickle.dumps(value))).decode())))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_broken_private_tests_are_a_sentence(text: str):
    try:
        assert isinstance(formats.unpack_private(text), list)
    except UserError:
        pass


def test_apps_and_taco():
    row = {"input_output": json.dumps({"inputs": ["1\n2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]})}
    assert formats.apps(row) == StdinTests((Case("1\n2\n", "3\n"), Case("3\n4", "7")))
    row = {"input_output": {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}}
    assert formats.apps(row) == FunctionTests("add", (([1, 2], [3]),), unwrap=True)
    for broken in ({}, {"input_output": ""}, {"input_output": "{"}, {"input_output": '{"inputs": [1], "outputs": []}'}):
        with pytest.raises(UserError):
            formats.apps(broken)


def test_codeforces():
    row = {"official_tests": [{"input": "1\n", "output": "2\n"}], "official_tests_complete": True, "input_mode": "file",
           "generated_checker": "print(1)", "time_limit": 2.0, "memory_limit": 256.0}
    assert formats.codeforces(row) == StdinTests((Case("1\n", "2\n"),), "print(1)", 2.0, 256 << 20, ("input.txt", "output.txt"))
    assert formats.codeforces({"official_tests": row["official_tests"]}) == StdinTests((Case("1\n", "2\n"),))
    for broken in ({"official_tests": []}, row | {"official_tests_complete": False}, row | {"input_mode": "magic"}):
        with pytest.raises(UserError):
            formats.codeforces(broken)


def test_outputs_are_compared_token_by_token():
    assert same_output("1 2\n3\n", " 1  2\n\n3")
    assert same_output("0.333333333", "0.3333333") and same_output("1e9", "1000000000") and same_output("2.0", "2")
    for expected, actual in (("1 2", "1"), ("3", "3.0"), ("10000000", "10000001"), ("0.5", "0.6"), ("YES", "yes"),
                             ("0.5", "nan"), ("0.5", "half"), ("", "0"), ("1.e", "1.f")):
        assert not same_output(expected, actual)


CODE = "def f(x):\n    return x\n"


def test_code_is_found_in_an_answer():
    assert extract_code(f"First:\n```python\nx = 1\n```\nBetter:\n```python\n{CODE}```\nOutput:\n```\n1\n```") == CODE
    assert extract_code(f"```\n{CODE}```") == CODE
    assert extract_code(f"~~~py\n{CODE}~~~") == CODE
    assert extract_code(f"```python\n{CODE}") == CODE  # cut off
    assert extract_code(f"1. So:\n   ```python\n   {CODE.replace(chr(10) + ' ', chr(10) + '    ')}   ```\n") == CODE
    assert extract_code(CODE.replace("\n", "\r\n")) == CODE
    assert extract_code("````python\ns = '''\n```\n'''\n````") == "s = '''\n```\n'''\n"
    assert extract_code("    return x\n\nThis returns x.", continues=True) == "    return x\n\n"
    example = f"```python\n{CODE}```\nCall it:\n```python\nprint(f(1))\n```"
    assert extract_code(example) == "print(f(1))\n" and extract_code(example, names=("f",)) == CODE
    for answer in ("", " \n", "The answer is `f`.", "```rust\nfn main() {}\n```", "    return x\n", "\0"):
        assert extract_code(answer) is None


@given(st.text(alphabet=st.sampled_from("`~python \n\tdef:=1x\0\\'\"")))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_text_has_code_or_none(text: str):
    code = extract_code(text, continues=True)
    assert code is None or isinstance(code, str)
