"""What the package imports is declared: a dependency of a dependency may disappear."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
ELSEWHERE = ROOT / "spoutnik" / "export" / "readers" / "answer.py"  # runs in the interpreter of the program that it asks


def imported_modules() -> set[str]:
    """Top-level names of everything imported under spoutnik/ into its own process."""
    files = [file for file in (ROOT / "spoutnik").rglob("*.py") if file != ELSEWHERE]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


def test_every_third_party_import_is_declared_in_pyproject():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    names = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in declared}
    distributions = packages_distributions()
    for module in imported_modules() - set(sys.stdlib_module_names) - {"spoutnik"}:
        assert names & {name.lower().replace("_", "-") for name in distributions.get(module, [module])}, module
