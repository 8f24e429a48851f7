"""The code that says what is right, as part of what decides a stage's result.

RL, rejection sampling and evaluation are decided by the tasks' verifiers and by the language check: a change of their code
makes other rewards, other traces and other scores. Comments and blank lines do not count. Artifacts of FORMAT 2 were first made
without this part of their keys: a module that still is what it was then adds nothing, so that they are found.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from spoutnik.tasks.problem import Task

_TASKS = "spoutnik.tasks"
# The language check, module by module: the first of them reads the wordings of all families.
_LANGUAGE = [f"{_TASKS}.{name}" for name in ("language", "language_count", "identification", "function_words", "prose")]

# What a module was, or what it became by changes under which every verdict stayed the same.
FIRST = {
    "answers": "f78e8a727492d667", "expressions": "9a62fe3d3ef0ee76", "families.arithmetic": "d10f64ff0db0c12b",
    "families.bases": "8ec697bba59c2838", "families.calendar": "b2ea1e9d1fed6899", "families.countdown": "ffebd13c4afa2888",
    "families.equations": "c0a2f47b56d25ce5", "families.letters": "9705276ab7a66a33", "families.liars": "015acc817293b5e0",
    "families.operations": "3681346109204f95", "families.ordering": "e182547e3b379739", "families.spell": "c97f02ad10211708",
    "family": "beedb9e8fe39d8db", "function_words": "4bff5bc7311e00b8", "identification": "46f239828572a9ed",
    "language": "7887552627debe14", "language_count": "9c2a516bde1724a9", "names": "010e3921d2c603bc",
    "paths": "2bd510856949ce60", "phrases": "763e185e6e43cb9e", "problem": "89ad150e81e52002", "prose": "6b2877cb90ee9e00",
    "steps": "02dae6dbaff0b694", "vocabulary": "5d470e7f5182a1e8", "word_list": "2321eea8595e68e1",
    "wording": "205555efc7f8db99",
}


def verifier_code(tasks: Sequence[Task]) -> dict[str, str]:
    """Module -> hash, of the modules behind the verifiers of these tasks that are not what they first were; and of tasks that
    were read from files, task -> hash."""
    tasks = [each for task in tasks for each in (task, *task.parts)]
    modules = set(_LANGUAGE).union(*(_behind(type(task).__module__) for task in tasks))
    hashes = {module.removeprefix(f"{_TASKS}."): code_hash(_source_of(module)) for module in sorted(modules)}
    return ({module: value for module, value in hashes.items() if FIRST.get(module) != value}
            | {f"task {task.name}": task.content for task in tasks if task.content})


def code_hash(source: str) -> str:
    """Of a module's text without comments, blank lines and spaces at line ends."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    text = "\n".join(stripped for line in lines if (stripped := line.rstrip()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _behind(module: str) -> frozenset[str]:
    """A module and what it imports, directly or not, from the package of tasks; and of a verifier that is a package, all of it:
    some of its modules run in processes of their own, which nobody imports."""
    known, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting += _imports(_source_of(name)) + _modules_beside(name)
    return frozenset(known)


def _modules_beside(module: str) -> list[str]:
    path = _path_of(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    if package in (_TASKS, f"{_TASKS}.families"):  # each of these stands for itself
        return []
    folder = path.parent
    return [f"{package}.{'.'.join(each.relative_to(folder).with_suffix('').parts)}" for each in sorted(folder.rglob("*.py"))
            if each.name != "__init__.py"]


def _imports(source: str) -> list[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module]
    names = [node.module for node in nodes] + [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
    return [name for name in names if name.startswith(f"{_TASKS}.") and _path_of(name) is not None]


def _source_of(module: str) -> str:
    return _path_of(module).read_text(encoding="utf-8")


@cache
def _path_of(module: str) -> Path | None:
    """Where a module's text is; None where the name is none of a module."""
    root = Path(find_spec(_TASKS).origin).parent
    folder = root.joinpath(*module.removeprefix(f"{_TASKS}.").split("."))
    return next((path for path in (folder.with_suffix(".py"), folder / "__init__.py") if path.is_file()), None)
