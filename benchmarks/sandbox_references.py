"""Verdicts of the sandbox on HumanEval and MBPP: all references must pass, and no fake.

    python benchmarks/sandbox_references.py --humaneval HumanEval.jsonl.gz --mbpp mbpp.jsonl [--threads 2] [--sandbox rlimit]

The fakes are each reference with the functions under test defined again below it: one leaves with sys.exit(0), one returns an
object that is equal to everything, one returns None. The last line is JSON: for each benchmark the problems, the references
that pass, and the fakes that pass by their kind.
"""

import argparse
import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from spoutnik.tasks.code import Sandbox, formats, passes, use_sandbox

EQUAL = """class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __hash__(self): return 0
    def __bool__(self): return True
    def __abs__(self): return 0
    def __sub__(self, other): return 0
    def __rsub__(self, other): return 0
    def __float__(self): return 0.0
    def __int__(self): return 0
    def __iter__(self): return iter(())
    def __len__(self): return 0
"""
FAKES = {"sys.exit(0)": ("import sys", "sys.exit(0)"), "always equal": (EQUAL, "return Equal()"), "None": ("", "return None")}


def read(path: Path) -> list[dict]:
    """The rows of a JSONL file, compressed or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def fake(reference: str, names: list[str], kind: str) -> str:
    """The reference with the functions under test defined again."""
    head, body = FAKES[kind]
    functions = "\n".join(f"def {name}(*args, **named):\n    {body}" for name in names)
    return f"{reference}\n{head}\n{functions}\n"


def problems(name: str, path: Path) -> list[tuple]:
    """(Task, reference, tests, names of the functions under test) of each problem."""
    if name == "humaneval":
        return [(row["task_id"], row["prompt"] + row["canonical_solution"], formats.humaneval(row), [row["entry_point"]])
                for row in read(path)]
    rows = [(row, formats.mbpp(row)) for row in read(path)]
    return [(row["task_id"], row["code"], tests, list(tests.entry_points)) for row, tests in rows]


def main() -> None:
    """Grade references and fakes, and print what is wrong and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--humaneval", type=Path)
    parser.add_argument("--mbpp", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for a problem; generous: the machine may be busy")
    parser.add_argument("--sandbox", choices=("bubblewrap", "rlimit"), default="bubblewrap")
    options = parser.parse_args()
    use_sandbox(Sandbox(options.sandbox))
    report, start = {}, time.monotonic()
    for name in ("humaneval", "mbpp"):
        path = getattr(options, name)
        if path is None:
            continue
        tasks = problems(name, path)
        report[name] = {"problems": len(tasks)}
        for kind in ("references", *FAKES):
            def verdict(task: tuple, kind: str = kind) -> bool:
                _, reference, tests, names = task
                return passes(reference if kind == "references" else fake(reference, names, kind), tests, options.timeout)

            with ThreadPoolExecutor(options.threads) as pool:
                verdicts = list(pool.map(verdict, tasks))
            report[name][kind] = sum(verdicts)
            wrong = [task[0] for task, passed in zip(tasks, verdicts) if passed != (kind == "references")]
            print(f"{name} {kind}: {sum(verdicts)} of {len(tasks)} pass; wrong: {wrong}; {time.monotonic() - start:.0f} s",
                  flush=True)
    print(json.dumps(report | {"seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
