"""What decides the samples of an evaluation, as plain data: samples of two identities are not put into one file, and scores of
two protocols are not compared."""

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import spoutnik
from spoutnik.errors import UserError
from spoutnik.evals.asking import LONGEST_REPLY, AskingSettings
from spoutnik.evals.models import EvaluatedModel
from spoutnik.files import sha256_json
from spoutnik.tasks import Problem, Task
from spoutnik.tasks.prompt_styles import Style
from spoutnik.tasks.verifier_code import code_hash

CUT_REPLIES = "a reply that is cut at the limit, or that never closes its thought, counts as wrong"
_LIBRARIES = ("torch", "tokenizers", "jinja2", "math-verify", "sympy", "reasoning-gym", "jsonschema")  # that decide a verdict
_PARSERS = ("spoutnik.text.thought", "spoutnik.tasks.prompt_styles", "spoutnik.evals.models")
_QUESTION = "{question}"


def identity(model: EvaluatedModel, task_name: str, problems: Sequence[Problem], style: Style, settings: AskingSettings,
             data: str) -> dict:
    """What decides the sample of a problem. How many samples and problems there are is no part of it: more of them are added
    to those that are there.

    Args:
        data: hash of all problems of the task, with what verifies them.
    """
    probe = Problem(problems[0].task, 1, problems[0].language, _QUESTION, "", {})
    prompt = style.prompt(probe)
    asked = {"style": style.name, "prompt": prompt.text or [list(turn) for turn in prompt.messages], "stop": list(prompt.stop)}
    sampling = settings.model_dump(exclude={"samples", "max_tokens"}) | {"max_tokens": settings.max_tokens or LONGEST_REPLY}
    return {"task": task_name, "data": data, **asked, **sampling, "cut_replies": CUT_REPLIES,
            "verifier": code_behind(tasks_of(problems)), "parser": code_of(_PARSERS), "libraries": versions(),
            "spoutnik": spoutnik.__version__, "model": model.facts() | {"max_tokens": model.limit(settings),
                                                                            "rendered_prompt": model.rendered(prompt)}}


def check_same(kept: dict, wanted: dict, where: Path) -> None:
    """Raises UserError where samples were made otherwise than is wanted now."""
    for name, new in wanted.items():
        old = kept.get(name)
        if old != new:
            if isinstance(new, dict) and isinstance(old, dict):
                part = next(key for key in {**old, **new} if old.get(key) != new.get(key))
                name, old, new = f"{name}.{part}", old.get(part), new.get(part)
            raise UserError(f"{where}: these samples were made with {name} = {_short(old)}, and now it is {_short(new)}. Give "
                            "another --out, or remove that folder.")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."


def problems_hash(task: Task, problems: Iterable[Problem]) -> str:
    texts = [json.dumps([p.prompt, p.answer, p.data], sort_keys=True, default=repr) for p in problems]
    return sha256_json([task.content, *texts])[:16]


def tasks_of(problems: Iterable[Problem]) -> list[Task]:
    return list({id(problem.task): problem.task for problem in problems}.values())


def versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_behind(tasks: Iterable[Task]) -> str:
    """Hash of the code that verifies the tasks: their modules and what these import, directly or not, from spoutnik.tasks."""
    return code_of(sorted({type(task).__module__ for task in tasks}))


def code_of(modules: Sequence[str]) -> str:
    """Hash of modules and of what they import from spoutnik.tasks, without comments and layout."""
    waiting, known = list(modules), set()
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting += _imports(name)
    digest = hashlib.sha256()
    for name in sorted(known):
        digest.update(f"{name} {_hash(name)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def _hash(module: str) -> str:
    return code_hash(_source(module))


@cache
def _imports(module: str) -> list[str]:
    """What it imports from spoutnik.tasks: modules and packages, but not the package of all tasks itself."""
    nodes = [node for node in ast.walk(ast.parse(_source(module))) if isinstance(node, ast.ImportFrom) and node.module]
    names = [node.module for node in nodes] + [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
    return [name for name in names if name.startswith("spoutnik.tasks.") and _path_of(name) is not None]


@cache
def _source(module: str) -> str:
    """Empty for a module without a source file."""
    path = _path_of(module)
    return path.read_text(encoding="utf-8") if path is not None else ""


@cache
def _path_of(module: str) -> Path | None:
    """Where its source is; None where the name is none of a module."""
    if module in sys.modules:
        try:
            return Path(inspect.getsourcefile(sys.modules[module]) or "/nowhere") if module != "__main__" else None
        except TypeError:
            return None
    parent = module.rpartition(".")[0]
    if parent and _path_of(parent) is None:
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None
