"""What the package imports is declared: a dependency of a dependency may disappear."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
ELSEWHERE = ROOT / "spoutnik" / "export" / "readers" / "answer.py"  # runs in the interpreter of the program that it asks


def imported_modules(when_loaded: bool = False) -> set[str]:
    """Top-level names of everything imported under spoutnik/ into its own process, or of what loading its files imports."""
    trees = [ast.parse(file.read_text("utf-8")) for file in (ROOT / "spoutnik").rglob("*.py") if file != ELSEWHERE]
    nodes = [node for tree in trees for node in (tree.body if when_loaded else ast.walk(tree))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


def test_every_third_party_import_is_declared_in_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    extras = [requirement for extra, listed in optional.items() if extra != "dev" for requirement in listed]
    always, perhaps = (names_of(requirements) for requirements in (project["dependencies"], extras))
    distributions = {"pynvml": ["nvidia-ml-py"]} | packages_distributions()  # where an extra is not installed
    for module in imported_modules() - set(sys.stdlib_module_names) - {"spoutnik"}:
        assert (always | perhaps) & {normalized(name) for name in distributions.get(module, [module])}, module
    for module in imported_modules(when_loaded=True) - set(sys.stdlib_module_names) - {"spoutnik"}:  # extras are imported late
        assert always & {normalized(name) for name in distributions.get(module, [module])}, module


def names_of(requirements: list[str]) -> set[str]:
    return {normalized(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def normalized(name: str) -> str:
    return name.lower().replace("_", "-")
