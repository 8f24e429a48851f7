"""The tests' process: runs the tests, which are ours, with stand-ins for what the solution defines.

`assert candidate(2) == 4` calls the solution in its own process and compares the plain data that comes back here, where the
solution cannot reach.
"""

import builtins
import json
import math
import os
import random
import symtable
import sys

from . import program, remote, wire

FILE_NAME = "<tests>"


def free_names(source: str) -> set[str]:
    """Global names that the source uses and does not bind."""
    tables, used, bound = [symtable.symtable(source, FILE_NAME, "exec")], set(), set()
    for table in tables:  # grows on the way
        tables.extend(table.get_children())
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if top and (symbol.is_assigned() or symbol.is_imported()):
                bound.add(symbol.get_name())
            elif symbol.is_referenced() and (top or symbol.is_global()):
                used.add(symbol.get_name())
    return used - bound


def candidates(source: str, free: set[str]) -> set[str]:
    """The names to be asked of the solution: those that are no built-in ones. Tests that use one built-in name alone
    (`assert sum(10, 15) == 25`) mean the solution's function of that name.
    """
    foreign = {name for name in free if not hasattr(builtins, name)}
    if foreign:
        return foreign
    return free if len(free) == 1 else set()


def same(result: object, expected: object) -> bool:
    """Whether a result is the expected value of a benchmark's JSON: tuples are lists there, keys texts, floats rounded."""
    if isinstance(expected, (list, tuple)):
        return (isinstance(result, (list, tuple)) and len(result) == len(expected)
                and all(same(mine, theirs) for mine, theirs in zip(result, expected)))
    if isinstance(expected, dict):
        return (isinstance(result, dict) and {str(key) for key in result} == {str(key) for key in expected}
                and all(same(value, expected[key if key in expected else str(key)]) for key, value in result.items()))
    if isinstance(expected, float) or isinstance(result, float):
        numbers = isinstance(result, (int, float)) and isinstance(expected, (int, float))
        return numbers and math.isclose(result, expected, rel_tol=1e-6, abs_tol=1e-6)
    return type(result) is type(expected) and result == expected


def _run_code(parts: dict, tests: remote.Tests) -> None:
    """Run tests written in Python."""
    namespace = program.module_of("tests")
    exec(compile(parts["trusted"], FILE_NAME, "exec", dont_inherit=True), namespace)  # a prompt with its helpers
    source = f"{parts['setup']}\n{parts['code']}"
    free = free_names(source)
    asked = set(parts["entry_points"]) or candidates(source, free)
    used = False
    for name in asked | {name for name in free if not hasattr(builtins, name) and name not in namespace}:
        present, value = tests.name(name)
        if present:
            namespace[name] = value
            used = used or name in free
    exec(compile(source, FILE_NAME, "exec", dont_inherit=True), namespace)
    if parts["check"]:
        present, candidate = tests.name(parts["entry_points"][0] if parts["entry_points"] else None)
        if not present:
            raise remote.Refused("The solution does not define the function under test.")
        namespace["check"](candidate)
    if tests.calls == 0 and not used:
        raise remote.Refused("The tests use nothing that the solution defines.")


def _run_cases(parts: dict, tests: remote.Tests) -> None:
    """Call a function, or the method of that name of the class `Solution`, and compare its results."""
    present, function = tests.name(parts["function"])
    if not present:
        present, solution = tests.name("Solution")
        if not present:
            raise remote.Refused(f"The solution does not define {parts['function']}.")
        function = getattr(solution(), parts["function"])
    for number, (args, expected) in enumerate(parts["cases"], 1):
        result = function(*args)
        alone = parts["unwrap"] and isinstance(expected, list) and len(expected) == 1
        if not (same(result, expected) or (alone and same(result, expected[0]))):
            raise remote.Refused(f"Case {number}: another result than expected.")


def _run(job: dict, tests: remote.Tests) -> None:
    parts = json.loads(program.source_of(job))
    random.seed(0)  # tests that draw their cases draw the same ones every time
    first = tests.peer.receive()
    if "defined" not in first:
        raise remote.Refused(f"The solution does not run: {first.get('failed')}")
    if "cases" in parts:
        _run_cases(parts, tests)
    else:
        _run_code(parts, tests)


def run(job: dict) -> None:
    """Run the tests and write the verdict, {"passed", "reason"}, to standard output's file, which only this process has."""
    report = os.dup(1)
    os.dup2(2, 1)
    tests = remote.Tests(job["channel"])
    try:
        _run(job, tests)
        reason = tests.failure
    except wire.Closed:
        reason = "The solution ended before its tests did."
    except BaseException as error:
        reason = tests.failure or _place(error)
    os.write(report, json.dumps({"passed": not reason, "reason": reason[:2000]}).encode("ascii"))
    sys.stdout.flush()
    os._exit(0)


def _place(error: BaseException) -> str:
    """What failed and at which line of the tests."""
    line, trace = 0, error.__traceback__
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == FILE_NAME else line
        trace = trace.tb_next
    return f"{type(error).__name__} in line {line} of the tests: {error}"
