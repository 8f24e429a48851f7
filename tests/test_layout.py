"""The layout: a package imports only from those above it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# CONTRIBUTING.md, "Where things go", says the same in words.
ORDER = ("spoutnik", "errors", "validation", "tables", "terminal_markdown", "files", "units", "endpoint_wire", "endpoint",
         "world", "parallel", "native", "hardware", "model", "text", "gguf_folder", "hub", "hub_data", "row_files", "locate",
         "loading", "engine", "tasks", "generation", "train", "evals", "documents", "recipe", "experiment", "scale", "store",
         "arena", "export", "serve", "page", "commands", "__main__")


def imported(node: ast.AST) -> list[str]:
    """The names of this project that an import statement asks for."""
    names = []
    if isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    return [name for name in names if name.split(".")[0] == "spoutnik"]


def package(name: str) -> str:
    """spoutnik.engine.llm.LLM -> engine; spoutnik.__version__ -> spoutnik, the package itself."""
    second = name.split(".")[1] if "." in name else "spoutnik"
    return second if second in ORDER else "spoutnik"


def test_a_package_imports_only_from_those_above_it():
    wrong = []
    for file in sorted((ROOT / "spoutnik").rglob("*.py")):
        parts = file.relative_to(ROOT / "spoutnik").with_suffix("").parts
        here = "spoutnik" if parts == ("__init__",) else parts[0]
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            for name in imported(node):
                if ORDER.index(package(name)) > ORDER.index(here):
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} imports {name}")
    assert not wrong, "\n".join(wrong)
