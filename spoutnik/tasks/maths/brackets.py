"""Answers taken apart along their brackets: ( ), [ ], \\{ \\}, the braces of LaTeX and its environments."""

import re
from collections.abc import Callable

BRACKETS = re.compile(r"\\[{}]|\\(?:begin|end)(?![A-Za-z])|\\.|[()\[\]{}]", re.DOTALL)


def _depths(text: str, braces: bool) -> list[tuple[int, int, int]]:
    """(start, end, depth) of the pieces between brackets; braces of LaTeX count too, or not."""
    pieces, depth, start = [], 0, 0
    for bracket in BRACKETS.finditer(text):
        sign = bracket[0]
        opening = sign in ("(", "[", "\\{", "\\begin") or braces and sign == "{"
        if not opening and sign not in (")", "]", "\\}", "\\end") and not (braces and sign == "}"):
            continue
        at = bracket.start() if opening else bracket.end()
        pieces.append((start, at, depth))
        start, depth = at, depth + 1 if opening else max(depth - 1, 0)
    return [*pieces, (start, len(text), depth)]


def outside_brackets(text: str, change: Callable[[str], str]) -> str:
    """The text with its pieces outside of ( ), [ ] and \\{ \\} changed."""
    return "".join(text[start:end] if depth else change(text[start:end]) for start, end, depth in _depths(text, False))


def top_level(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Where the pattern occurs outside of all brackets and environments."""
    return [match for start, end, depth in _depths(text, True) if not depth for match in pattern.finditer(text, start, end)]


def split(text: str, pattern: re.Pattern[str]) -> list[str]:
    parts, start = [], 0
    for match in top_level(text, pattern):
        parts.append(text[start:match.start()])
        start = match.end()
    return [*parts, text[start:]]


def has_semicolon(text: str) -> bool:
    return ";" in text and len(split(text, re.compile(";"))) > 1


def closing(text: str, start: int) -> int:
    """The end of the bracket that closes the one before `start`, of whatever kind; -1 for none."""
    depth = 1
    for bracket in BRACKETS.finditer(text, start):
        sign = bracket[0]
        depth += (sign in ("(", "[", "\\{", "{")) - (sign in (")", "]", "\\}", "}"))
        if not depth:
            return bracket.end()
    return -1
