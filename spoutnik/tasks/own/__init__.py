"""Users' own tasks: a file of rows that name their verifiers, or a Python file that grades.

A row is {"prompt", "answer", "verifier": "math|choice|exact|regex|numeric|code|json|judge"} with the options of its verifier
(`rows`). A Python file has `verify(prompt: str, answer: str, gold: str) -> bool | float`, and `problems()`, which gives rows
without "verifier", or a file of such rows of the same name beside it (`script`).
"""

from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.row_files import SUFFIXES
from spoutnik.tasks.own.script import ScriptTask
from spoutnik.tasks.own.task import OwnProblem, OwnTask, read_file

__all__ = ["OwnProblem", "OwnTask", "ScriptTask", "read_task"]


def read_task(path: Path) -> OwnTask:
    """The task of a user's file. Raises UserError for whatever is wrong with the file, with file, line and remedy."""
    if path.suffix != ".py":
        return read_file(path)
    if not path.is_file():
        raise UserError(f"{path}: is not there. Name a Python file with verify(prompt, answer, gold), or rows "
                        f"({', '.join(SUFFIXES)}).")
    return ScriptTask(path)
