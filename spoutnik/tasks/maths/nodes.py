"""Expressions as trees, and the errors of reading and computing them."""

from fractions import Fraction
from typing import NamedTuple

_CHUNK = 4000  # digits: int() refuses more than 4,300 at once


class Unreadable(Exception):
    """The text is no expression of this grammar; another reader may know more."""


class TooLarge(Exception):
    """The expression is deeper, longer or larger than what is computed here; nobody should compute it."""


class Node(NamedTuple):
    """op: number (a Fraction), symbol (a name), sum, product, power (base, exponent), root (radicand, degree), factorial,
    call (function's name, arguments)."""

    op: str
    args: tuple


MINUS_ONE = Node("number", (Fraction(-1),))


def number(value: int | Fraction) -> Node:
    return Node("number", (Fraction(value),))


def negative(node: Node) -> Node:
    return number(-node.args[0]) if node.op == "number" else Node("product", (MINUS_ONE, node))


def integer_of(digits: str) -> int:
    """The value of decimal digits, as many as there are."""
    value = 0
    for start in range(0, len(digits), _CHUNK):
        chunk = digits[start:start + _CHUNK]
        value = value * 10**len(chunk) + int(chunk)
    return value
