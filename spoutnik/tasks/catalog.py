"""Tasks by the names that recipes and commands have for them. Only here: everything else is handed tasks."""

from collections.abc import Iterable

from spoutnik.errors import UserError
from spoutnik.tasks import FAMILIES, Task
from spoutnik.tasks.family import HeldOut
from spoutnik.validation import did_you_mean

_BY_STRUCTURE = {name: type(family)("structure") for name, family in FAMILIES.items()}


def task_names() -> list[str]:
    """All that need no file."""
    return list(FAMILIES)


def find_task(name: str, held_out: HeldOut = "instance") -> Task:
    """The task of a name. held_out: how a family's problems are split.

    Raises:
        UserError: there is none, with the nearest name.
    """
    if name in FAMILIES:
        return (FAMILIES if held_out == "instance" else _BY_STRUCTURE)[name]
    raise UserError(f"There is no task '{name}'.{did_you_mean(name, task_names())} `spoutnik tasks` lists them.")


def find_tasks(names: Iterable[str], held_out: HeldOut = "instance") -> list[Task]:
    """The tasks of several names. Raises as `find_task`."""
    return [find_task(name, held_out) for name in names]
