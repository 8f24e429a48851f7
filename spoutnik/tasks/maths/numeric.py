"""Values of expressions to many digits, at points chosen once for all: they decide where exact rules are missing.

Digits are significant ones: 10^{-20} and 10^{-21} differ in the first.
"""

import hashlib
import threading

import mpmath

from spoutnik.tasks.maths.nodes import Node, TooLarge
from spoutnik.tasks.maths.normal_form import Undefined

DIGITS, AGREEING_DIGITS = 60, 40
_POINTS = 4
_MAX_EXPONENT = 100_000
_MAX_FACTORIAL = 20_000
_FUNCTIONS = {"sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
              "arccos": "acos", "arctan": "atan", "arccot": "acot", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
              "coth": "coth",
              "floor": "floor", "ceil": "ceil", "Re": "re", "Im": "im", "arg": "arg", "arcsec": "asec", "arccsc": "acsc"}
UNKNOWN_FUNCTIONS = ("f", "g", "F", "G")
_CONSTANTS = ("pi", "e", "i")
_contexts = threading.local()  # mpmath's own is one for all threads


class NoValue(Exception):
    """The expression has no value that is known here."""


def agree(one: Node, other: Node) -> bool | None:
    """Have two expressions the same values? None: they have none at any point, or none that is known.

    Raises:
        TooLarge: a value is beyond what is computed.
    """
    names, compared = sorted(symbols(one) | symbols(other)), 0
    for turn in range(_POINTS if names else 1):
        evaluation = Evaluation({name: _point(name, turn) for name in names})
        try:
            values = [evaluation.value(node) for node in (one, other)]
        except (Undefined, ZeroDivisionError, ValueError, OverflowError):
            continue
        except (NoValue, TypeError, mpmath.libmp.NoConvergence):
            return None
        if not all(map(mpmath.isfinite, values)):
            continue
        compared += 1
        if not evaluation.close(*values):
            return False
    return True if compared else None


def real_value(node: Node) -> mpmath.mpf | None:
    """The value of an expression without variables, None where there is none or it is not real."""
    evaluation = Evaluation({})
    try:
        value = evaluation.value(node)
    except (Undefined, ZeroDivisionError, ValueError, OverflowError, NoValue, TooLarge, KeyError, TypeError):
        return None
    return mpmath.re(value) if mpmath.im(value) == 0 and mpmath.isfinite(value) else None


def symbols(node: Node) -> set[str]:
    """The variables of an expression."""
    stack, names = [node], set()
    while stack:
        node = stack.pop()
        if node.op == "symbol" and node.args[0] not in _CONSTANTS:
            names.add(node.args[0])
        stack.extend(part for part in node.args if isinstance(part, Node))
    return names


def _point(name: str, turn: int) -> float:
    """A value for a variable: the same for the same name, of either sign, no zero or pole of a usual function."""
    digest = int.from_bytes(hashlib.sha256(f"{turn} {name}".encode("utf-8", "replace")).digest()[:6], "big")
    value = 0.3 + digest / 2**47
    return -value if turn == 1 else value


class Evaluation:
    """Values at one point, in a context of mpmath that belongs to this thread."""

    def __init__(self, point: dict[str, float]):
        if not hasattr(_contexts, "context"):
            _contexts.context = mpmath.MPContext()
            _contexts.context.dps = DIGITS
        self._context = _contexts.context
        self._point = {name: self._context.mpf(value) for name, value in point.items()}

    def close(self, one, other) -> bool:
        """Do two values agree? A zero agrees with what cancellation leaves of one."""
        larger, smaller = max(abs(one), abs(other)), min(abs(one), abs(other))
        tolerance = self._context.mpf(10) ** -AGREEING_DIGITS * larger
        return abs(one - other) <= tolerance or not smaller and larger < self._context.mpf(10) ** (10 - DIGITS)

    def value(self, node: Node):
        """The value of a tree: an mpf or mpc."""
        context, parts = self._context, [part for part in node.args if isinstance(part, Node)]
        match node.op:
            case "number":
                return context.mpf(node.args[0].numerator) / node.args[0].denominator
            case "symbol":
                return self._symbol(node.args[0])
            case "sum":
                return context.fsum(map(self.value, parts))
            case "product":
                return context.fprod(map(self.value, parts))
            case "power":
                return self._power(*map(self.value, parts))
            case "root":
                return self._root(*map(self.value, parts))
            case "factorial":
                return context.factorial(_bounded(self.value(parts[0]), _MAX_FACTORIAL))
        return self._call(node.args[0], list(map(self.value, parts)))

    def _symbol(self, name: str):
        if name in _CONSTANTS:
            return {"pi": +self._context.pi, "e": +self._context.e, "i": self._context.mpc(0, 1)}[name]
        if name == "infty":
            raise NoValue(name)
        return self._point[name]

    def _power(self, base, exponent):
        _bounded(exponent)
        if base:
            _bounded(exponent * self._context.log(abs(base)))
        elif self._context.re(exponent) <= 0:
            raise Undefined("0^0")
        return base**exponent

    def _root(self, radicand, degree):
        if self._context.im(radicand) == 0 and radicand < 0 and degree == int(self._context.re(degree)) and int(degree) % 2:
            return -self._context.root(-radicand, int(degree))
        return self._power(radicand, 1 / degree)

    def _call(self, name: str, arguments: list):
        first, context = arguments[0], self._context
        if name == "abs":
            return abs(first)
        if name == "exp":
            return context.exp(_bounded(first))
        if name in ("ln", "log", "lg"):  # log without a base: of ten, as in schools
            base = context.e if name == "ln" else arguments[1] if len(arguments) > 1 else context.mpf(10)
            return context.log(first) / context.log(base)
        if name in ("max", "min"):
            return max(arguments) if name == "max" else min(arguments)
        if name == "binom":
            return context.binomial(*(_bounded(argument, _MAX_FACTORIAL) for argument in arguments))
        if name in UNKNOWN_FUNCTIONS:  # a curve without period or symmetry stands for it
            return context.exp(context.sin(_bounded(first) * context.mpf(_point(name, 0)) + context.mpf(_point(name, 2))))
        if name in _FUNCTIONS and len(arguments) == 1:
            return getattr(context, _FUNCTIONS[name])(_bounded(first))
        raise NoValue(name)


def _bounded(value, limit: float = _MAX_EXPONENT):
    if abs(value) > limit:
        raise TooLarge("a value beyond what is computed")
    return value
