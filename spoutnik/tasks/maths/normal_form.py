"""Normal form of an expression: a quotient of polynomials with rational coefficients in atoms.

Atoms are variables, i, pi, e, roots of primes, and whatever has no rules here (sin(x), a root of a sum), by its normal form.
Roots of different primes are independent over the rationals (Besicovitch 1940): without atoms of the last kind, two expressions
are equal if and only if the difference of their normal forms is zero. Sizes are bounded before anything is computed.
"""

from fractions import Fraction
from functools import lru_cache
from math import comb, factorial
from typing import NamedTuple

from spoutnik.tasks.maths.nodes import Node, TooLarge
from spoutnik.tasks.maths.polynomial import MAX_BITS, MAX_WORK, UNIT, Polynomial, added, bounded, monomial_of, product, work

MAX_FACTORIAL = 20_000
_TRIAL = 10_000  # primes below are divided out of a radicand
_OPAQUE = "~"  # the first sign of an atom without rules


class Undefined(Exception):
    """The expression has no value: 1/0."""


class Quotient(NamedTuple):
    top: Polynomial
    bottom: Polynomial

    @property
    def opaque(self) -> bool:
        """Does it hold atoms without rules, so that two unlike normal forms may be equal?"""
        return any(atom[0] == _OPAQUE for part in self for monomial in part for atom, _ in monomial)

    def constant(self) -> Fraction | None:
        """Its value, where that is a rational number."""
        if self.bottom.keys() <= {()} and self.top.keys() <= {()}:
            return self.top.get((), Fraction(0)) / self.bottom[()]
        return None

    def key(self) -> str:
        """The same text for the same normal form."""
        scale = self.bottom[min(self.bottom)]
        return "|".join(";".join(f"{monomial}{_text(value / scale)}" for monomial, value in sorted(part.items()))
                        for part in self)


def _text(value: Fraction) -> str:
    return f"{value.numerator:x}/{value.denominator:x}"


def rational(value: Fraction | int) -> Quotient:
    return Quotient({(): Fraction(value)} if value else {}, UNIT)


def atom(name: str, exponent: Fraction | int = 1) -> Quotient:
    return Quotient({((name, Fraction(exponent)),): Fraction(1)}, UNIT)


def normal_form(node: Node) -> Quotient:
    """The normal form of a tree.

    Raises:
        TooLarge: numbers or polynomials beyond the limits.
        Undefined: a division by zero.
    """
    work.left = MAX_WORK
    return _form(node)


def _form(node: Node) -> Quotient:
    match node.op:
        case "number":
            return rational(bounded(node.args[0]))
        case "symbol":
            return _symbol(node.args[0])
        case "sum":
            return _sum([_form(term) for term in node.args])
        case "product":
            total = _form(node.args[0])
            for factor in node.args[1:]:
                total = multiply(total, _form(factor))
            return total
        case "power":
            return _power(_form(node.args[0]), _form(node.args[1]))
        case "root":
            return _root(_form(node.args[0]), _form(node.args[1]))
        case "factorial":
            return _factorial(_form(node.args[0]))
    return _call(node.args[0], [_form(argument) for argument in node.args[1:]])


def difference_is_zero(one: Quotient, other: Quotient) -> bool:
    """Are two normal forms the same quotient?"""
    work.left = MAX_WORK
    left, right = product(one.top, other.bottom), product(other.top, one.bottom)
    return left == right


def _symbol(name: str) -> Quotient:
    return atom({"pi": "π", "i": "i", "e": "e"}.get(name, "$" + name))


def _sum(terms: list[Quotient]) -> Quotient:
    while len(terms) > 1:  # in pairs, so that common denominators stay small
        pairs = [_plus(*terms[at:at + 2]) if len(terms[at:at + 2]) == 2 else terms[at] for at in range(0, len(terms), 2)]
        terms = pairs
    return terms[0]


def _plus(one: Quotient, other: Quotient) -> Quotient:
    if one.bottom == other.bottom:
        return Quotient(added(one.top, other.top), one.bottom)
    return _reduced(added(product(one.top, other.bottom), product(other.top, one.bottom)), product(one.bottom, other.bottom))


def multiply(one: Quotient, other: Quotient) -> Quotient:
    return _reduced(product(one.top, other.top), product(one.bottom, other.bottom))


def _reduced(top: Polynomial, bottom: Polynomial) -> Quotient:
    """A quotient whose denominator is not one monomial of numbers alone, where that is possible."""
    if not bottom:
        raise Undefined("a division by zero")
    if len(bottom) == 1:
        (monomial, value), = bottom.items()
        inverse = monomial_of({name: -exponent for name, exponent in monomial}, 1 / value)
        return Quotient(product(top, dict([inverse])), UNIT)
    return Quotient(top, bottom)


def _power(base: Quotient, exponent: Quotient) -> Quotient:
    power = exponent.constant()
    if power is None:
        return _opaque("power", base, exponent)
    if power.denominator == 1:
        return _whole_power(base, power.numerator)
    return _root(_whole_power(base, power.numerator), rational(power.denominator))


def _whole_power(base: Quotient, power: int) -> Quotient:
    if power < 0:
        base, power = _reduced(base.bottom, base.top), -power
    if len(base.top) <= 1 and len(base.bottom) == 1:
        if not base.top:
            if not power:
                raise Undefined("0^0")
            return base
        (monomial, value), = base.top.items()
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if power.bit_length() > 64 or abs(value) != 1 and bits * power > MAX_BITS or any(
                name[0] == "#" and power > 10_000 for name, _ in monomial):
            raise TooLarge("a power of too many digits")
        return Quotient(dict([monomial_of({name: exponent * power for name, exponent in monomial}, value**power)]), UNIT)
    if power > 200:
        raise TooLarge("a power of too many terms")
    result = Quotient(UNIT, UNIT)
    for bit in bin(power)[2:]:
        result = multiply(result, result)
        if bit == "1":
            result = multiply(result, base)
    return result


def _root(radicand: Quotient, degree: Quotient) -> Quotient:
    n = degree.constant()
    if n is None or n.denominator != 1 or not 1 <= n <= 1000:
        return _opaque("root", radicand, degree)
    n = n.numerator
    if not radicand.top or n == 1:
        return radicand
    if len(radicand.top) != 1 or len(radicand.bottom) != 1:
        return _opaque("root", radicand, degree)
    (monomial, value), = radicand.top.items()
    if any(name not in ("e", "π") and name[0] != "#" for name, _ in monomial) or value < 0 and n % 2 == 0 and n != 2:
        return _opaque("root", radicand, degree)
    exponents = {name: exponent / n for name, exponent in monomial}
    for part, sign in ((abs(value.numerator), 1), (value.denominator, -1)):
        factors, rest = _factors(part)
        for prime, count in factors:
            exponents[f"#{prime}"] = exponents.get(f"#{prime}", Fraction(0)) + Fraction(sign * count, n)
        if rest > 1:  # of large primes: not taken apart, so not told equal by rules alone
            exponents[f"{_OPAQUE}{rest:x}"] = Fraction(sign, n)
    if value < 0 and n == 2:
        exponents["i"] = Fraction(1)
    sign = -1 if value < 0 and n % 2 else 1
    return Quotient(dict([monomial_of(exponents, Fraction(sign))]), UNIT)


@lru_cache(4096)
def _factors(value: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """(primes with their powers, what is left of primes above _TRIAL and no prime itself)."""
    if value.bit_length() > 4096:
        return (), value
    factors, divisor = [], 2
    while divisor < _TRIAL and divisor * divisor <= value:
        count = 0
        while value % divisor == 0:
            value, count = value // divisor, count + 1
        if count:
            factors.append((divisor, count))
        divisor += 1 if divisor == 2 else 2
    if 1 < value < _TRIAL * _TRIAL:
        factors.append((value, 1))
        value = 1
    return tuple(factors), value


def _factorial(argument: Quotient) -> Quotient:
    n = argument.constant()
    if n is None or n.denominator != 1 or n < 0:
        return _opaque("factorial", argument)
    if n > MAX_FACTORIAL:
        raise TooLarge("a factorial of too many digits")
    return rational(factorial(n.numerator))


def _call(name: str, arguments: list[Quotient]) -> Quotient:
    values = [argument.constant() for argument in arguments]
    if all(value is not None for value in values):
        if name == "abs":
            return rational(abs(values[0]))
        if name in ("floor", "ceil"):
            return rational(values[0] // 1 if name == "floor" else -(-values[0] // 1))
        if name == "binom" and all(value.denominator == 1 and 0 <= value <= 5000 for value in values):
            return rational(comb(values[0].numerator, values[1].numerator))
    if name == "exp" and len(arguments) == 1:
        return _power(atom("e"), arguments[0])
    return _opaque(name, *arguments)


def _opaque(name: str, *arguments: Quotient) -> Quotient:
    keys = ",".join(argument.key() for argument in arguments)
    if len(keys) > 20_000:
        raise TooLarge("an expression of too many parts")
    return atom(f"{_OPAQUE}{name}({keys})")
