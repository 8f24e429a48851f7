"""Whether a text is Python, and what it defines."""

import ast

NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # what ast.parse raises on text that is not, or too deep


def parses(source: str) -> bool:
    """Whether a text is Python source."""
    return _tree(source) is not None


def defines(source: str, name: str) -> bool:
    """Whether Python source defines a function or a class of that name at its top level."""
    tree = _tree(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return tree is not None and any(isinstance(node, kinds) and node.name == name for node in tree.body)


def _tree(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except NOT_PYTHON:
        return None
