"""Tasks by the names that recipes and commands have for them. Only here: everything else is handed tasks."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.tasks import FAMILIES, Task
from spoutnik.tasks.family import HeldOut
from spoutnik.tasks.gym.sets import EXCLUDED, SETS
from spoutnik.tasks.gym.task import PREFIX, GymTask
from spoutnik.tasks.own import read_task
from spoutnik.validation import did_you_mean

_BY_STRUCTURE = {name: type(family)("structure") for name, family in FAMILIES.items()}


def is_file_name(name: str) -> bool:
    """Whether a task's name is that of a user's file."""
    return "/" in name or Path(name).suffix in (".jsonl", ".json", ".csv", ".parquet", ".py")


def task_names() -> list[str]:
    """All that need no file."""
    return [*FAMILIES, *(PREFIX + name for name in SETS if name not in EXCLUDED)]


def find_task(name: str, held_out: HeldOut = "instance") -> Task:
    """The task of a name. held_out: how a family's problems are split.

    Raises:
        UserError: there is none, with the nearest name, or with the reason why it is left out.
    """
    if name in FAMILIES:
        return (FAMILIES if held_out == "instance" else _BY_STRUCTURE)[name]
    gym_name = name.removeprefix(PREFIX) if name.startswith(PREFIX) else None
    if gym_name in EXCLUDED:
        raise UserError(f"The task '{name}' is left out: {EXCLUDED[gym_name]} Choose another; `spoutnik tasks` lists them.")
    if gym_name in SETS:
        return _gym_task(gym_name)
    if is_file_name(name):
        path = Path(name).expanduser()
        state = path.stat() if path.exists() else None
        return _own_task(path, state and (state.st_mtime_ns, state.st_size))
    raise UserError(f"There is no task '{name}'.{did_you_mean(name, task_names())} `spoutnik tasks` lists them.")


def find_tasks(names: Iterable[str], held_out: HeldOut = "instance") -> list[Task]:
    """The tasks of several names, each once; a pattern (gym-*) stands for all that it matches. Raises as `find_task`."""
    tasks = []
    for name in names:
        matching = [name] if not is_pattern(name) else [each for each in task_names() if fnmatchcase(each, name)]
        if not matching:
            raise UserError(f"No task is called like '{name}'. `spoutnik tasks` lists them.")
        tasks += [find_task(each, held_out) for each in matching]
    return list({task.name: task for task in tasks}.values())


def raw_gym_tasks(names: Iterable[str]) -> list[GymTask]:
    """reasoning-gym's sets of these names and patterns, those that are left out as well, with its scorers alone: for the audit.

    Raises:
        UserError: a name is none of them.
    """
    known = {PREFIX + name: name for name in SETS}
    chosen: dict[str, GymTask] = {}
    for name in names:
        matching = [each for each in known if fnmatchcase(each, name)]
        if not matching:
            raise UserError(f"No set of reasoning-gym is called '{name}'.{did_you_mean(name, known)}")
        chosen |= {each: GymTask(known[each], raw=True) for each in matching}
    return list(chosen.values())


def is_pattern(name: str) -> bool:
    """Whether a name stands for all that it matches."""
    return any(character in name for character in "*?[")


@lru_cache(16)
def _own_task(path: Path, state: tuple[int, int] | None) -> Task:
    """Read once for as long as the file stays as it is."""
    return read_task(path)


@cache
def _gym_task(name: str) -> GymTask:
    return GymTask(name)
