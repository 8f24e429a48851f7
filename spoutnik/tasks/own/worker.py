"""The process in which a user's Python file runs: it reads calls from its input and writes what they return, a line of JSON
each. It imports the standard library alone, and what the file itself imports.

An alarm of the system ends the process when loading the file, or a call, takes far too long and nobody kills it: it must not
outlive its parent.
What the file prints goes to the standard error output.
"""

import importlib.util
import inspect
import json
import os
import signal
import sys
import traceback

MOST_PROBLEMS = 1_000_000


def load(path):
    """The user's module, after what is wrong with it was looked for."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    specification = importlib.util.spec_from_file_location("own_task", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules["own_task"] = module
    specification.loader.exec_module(module)
    verify = getattr(module, "verify", None)
    if not callable(verify):
        raise LookupError("has no function verify(prompt, answer, gold)")
    try:
        inspect.signature(verify).bind("", "", "")
    except TypeError as error:
        raise LookupError("verify must take three arguments: prompt, answer, gold") from error
    return module


def number(value):
    """A grade as a float; None where it is no number. numpy's numbers are some."""
    if isinstance(value, (str, bytes, bytearray)) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def answer(module, call):
    if call["function"] == "verify":
        value = module.verify(call["prompt"], call["answer"], call["gold"])
        return {"grade": number(value), "shown": repr(value)[:80]}
    if not hasattr(module, "problems"):
        return {"rows": None}
    rows = []
    for row in module.problems():
        rows.append(row)
        if len(rows) > MOST_PROBLEMS:
            raise ValueError(f"problems() gives more than {MOST_PROBLEMS}")
    json.dumps(rows)  # told as an error of problems()
    return {"rows": rows}


def where(error, path):
    """The user's line that an error comes from."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    return f", line {lines[-1]}" if lines else ""


def reply(work, path):
    try:
        return work()
    except BaseException as error:  # also SystemExit: the file is told, whatever it raises
        return {"error": f"{type(error).__name__}: {error}"[:300], "where": where(error, path)}


def main(path):
    calls, output = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    modules = []

    def write(value):
        output.write(json.dumps(value) + "\n")
        output.flush()

    def begin():
        modules.append(load(path))
        return {"ready": True}

    signal.alarm(int(sys.argv[2]) + 5)
    write(reply(begin, path))
    signal.alarm(0)
    for line in calls:
        call = json.loads(line)
        signal.alarm(int(call["seconds"]) + 5)
        write(reply(lambda: answer(modules[0], call), path))  # noqa: B023
        signal.alarm(0)


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
