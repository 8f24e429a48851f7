"""Reading an arithmetic expression safely: numbers, + - * / and parentheses, nothing else, and never `eval`."""

import ast
import operator
import re
from fractions import Fraction

from spoutnik.tasks.answers import as_integer, clean

MAX_LENGTH = 120  # characters: bounds both the depth of the tree and the size of the numbers
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_ALLOWED = re.compile(r"[0-9+\-*/() ]+")


def numbers_and_value(answer: str) -> tuple[list[int], Fraction] | None:
    """The numbers that an expression uses and its exact value, or None when it is not such an expression.

    `expression = value` is read too, provided that the stated value is the right one.
    """
    text = clean(answer).replace("×", "*").replace("÷", "/").replace("\u2212", "-")
    left, equals, right = text.partition("=")
    left = left.strip()
    if len(left) > MAX_LENGTH or not _ALLOWED.fullmatch(left):
        return None
    try:
        numbers: list[int] = []
        value = _evaluate(ast.parse(left, mode="eval").body, numbers)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    if equals and as_integer(right) != value:
        return None
    return numbers, value


def _evaluate(node: ast.expr, numbers: list[int]) -> Fraction:
    """The value of a parsed expression; the literals it meets are appended to `numbers`."""
    match node:
        case ast.Constant(value=int() as number):
            numbers.append(number)
            return Fraction(number)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATIONS:
            return _OPERATIONS[type(sign)](_evaluate(left, numbers), _evaluate(right, numbers))
    raise ValueError("Only numbers, + - * / and parentheses are read.")
