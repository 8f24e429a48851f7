"""Tasks by the names that recipes and commands have for them. Only here: everything else is handed tasks."""

from collections.abc import Iterable
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.tasks import FAMILIES, Task
from spoutnik.validation import did_you_mean


def is_file_name(name: str) -> bool:
    """Whether a task's name is that of a user's file."""
    return "/" in name or Path(name).suffix in (".jsonl", ".json", ".csv", ".parquet", ".py")


def task_names() -> list[str]:
    """All that need no file."""
    return list(FAMILIES)


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        UserError: there is none, with the nearest name.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    raise UserError(f"There is no task '{name}'.{did_you_mean(name, task_names())} `spoutnik tasks` lists them.")


def find_tasks(names: Iterable[str]) -> list[Task]:
    """The tasks of several names. Raises as `find_task`."""
    return [find_task(name) for name in names]
