"""Reports that are kept: a task is audited again when its code, its problems or the attacks are others."""

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from spoutnik.errors import RunError
from spoutnik.files import read_json, sha256_json, write_json
from spoutnik.native.build import cache_folder
from spoutnik.tasks.audit.isolation import audit_tasks
from spoutnik.tasks.audit.probe import exemptions_of
from spoutnik.tasks.audit.report import Report, report_from_json
from spoutnik.tasks.problem import Task

_TASKS = Path(__file__).parents[1]
_LIBRARIES = ("reasoning-gym", "math-verify", "sympy", "jsonschema")  # that verifiers ask


def cached_audit(tasks: Sequence[Task], problems: int = 50, seed: int = 0, fresh: bool = False,
                 progress: Callable[[int], None] = lambda done: None) -> Iterator[Report]:
    """The report on each task, in their order, from the cache where it is there. fresh: audits all the same. Raises as
    `audit_tasks`."""
    known = {} if fresh else {task.name: report for task in tasks if (report := _kept(task, problems, seed)) is not None}
    new = audit_tasks([task for task in tasks if task.name not in known], problems, seed)
    for done, task in enumerate(tasks, start=1):
        report = known.get(task.name)
        if report is None:
            report = next(new)
            _keep(task, problems, seed, report)
        progress(done)
        yield report


def kept_audits(tasks: Sequence[Task], problems: int = 50, seed: int = 0) -> list[Report]:
    """The reports that are in the cache; nothing is audited."""
    return [report for task in tasks if (report := _kept(task, problems, seed)) is not None]


def _kept(task: Task, problems: int, seed: int) -> Report | None:
    path = _path(task, problems, seed)
    try:
        report = report_from_json(read_json(path)) if path.exists() else None
    except (RunError, KeyError, TypeError):  # half a disk, or somebody's editor: it is made again
        return None
    if report is not None:
        report.exemptions = exemptions_of(task)
    return report


def _keep(task: Task, problems: int, seed: int, report: Report) -> None:
    """An audit that was interrupted may end otherwise on a machine that is less busy."""
    if not report.interrupted:
        with contextlib.suppress(RunError):  # a folder that cannot be written keeps nothing
            write_json(_path(task, problems, seed), report.as_json())


def _path(task: Task, problems: int, seed: int) -> Path:
    """Where the report lies. Its name is a hash of all that decides it: the code of all tasks and attacks, that of the task
    where it is none of ours, the files that it was read from."""
    kind = type(task)
    decides = {"task": task.name, "class": f"{kind.__module__}.{kind.__qualname__}", "code": _code_of_tasks(),
               "own": _own_code(kind), "problems": problems, "seed": seed, "libraries": _versions(),
               "content": task.content}
    return cache_folder() / "audits" / f"{sha256_json(decides)[:32]}.json"


@cache
def _code_of_tasks() -> str:
    files = sorted(_TASKS.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _own_code(kind: type) -> str:
    file = inspect.getsourcefile(kind)
    if file is None or Path(file).is_relative_to(_TASKS):
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
