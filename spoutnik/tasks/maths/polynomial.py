"""Polynomials with rational coefficients in atoms, of bounded size: products and sums of their terms in normal form."""

import threading
from fractions import Fraction

from spoutnik.tasks.maths.nodes import TooLarge

MAX_BITS = 1 << 19  # of one coefficient
MAX_TERMS = 200  # of one polynomial
MAX_WORK = 30_000  # products of two terms in one normal form: about 0.2 s

Monomial = tuple[tuple[str, Fraction], ...]  # (atom, exponent) in the order of the atoms
Polynomial = dict[Monomial, Fraction]
UNIT: Polynomial = {(): Fraction(1)}
work = threading.local()  # left: products of terms that this thread may still compute for its normal form


def proportional(one: Polynomial, other: Polynomial) -> bool:
    """Is one a multiple of the other by a number that is not zero?"""
    if one.keys() != other.keys():
        return False
    return len({value / other[monomial] for monomial, value in one.items()}) <= 1


def bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise TooLarge("a number of too many digits")
    return value


def added(one: Polynomial, other: Polynomial) -> Polynomial:
    total = dict(one)
    for monomial, value in other.items():
        if value := total.pop(monomial, Fraction(0)) + value:
            total[monomial] = bounded(value)
    if len(total) > MAX_TERMS:
        raise TooLarge("a polynomial of too many terms")
    return total


def product(one: Polynomial, other: Polynomial) -> Polynomial:
    work.left -= len(one) * len(other)
    if work.left < 0:
        raise TooLarge("products of too many terms")
    total: Polynomial = {}
    for left, a in one.items():
        for right, b in other.items():
            work.left -= (bits := a.numerator.bit_length() + b.numerator.bit_length()) // 1000
            if bits > MAX_BITS:
                raise TooLarge("a number of too many digits")
            if not left or not right:
                monomial, value = left or right, a * b
            else:
                exponents = dict(left)
                for name, exponent in right:
                    exponents[name] = exponents.get(name, 0) + exponent
                monomial, value = monomial_of(exponents, a * b)
            if value := total.pop(monomial, Fraction(0)) + value:
                total[monomial] = value
    if len(total) > MAX_TERMS:
        raise TooLarge("a polynomial of too many terms")
    return total


def monomial_of(exponents: dict[str, Fraction], value: Fraction) -> tuple[Monomial, Fraction]:
    """One term in its normal form: whole powers of primes and of i belong to the coefficient."""
    kept = []
    for name, exponent in sorted(exponents.items()):
        if name[0] == "#":
            whole = exponent.numerator // exponent.denominator
            value *= Fraction(int(name[1:])) ** whole
            exponent -= whole
        elif name == "i" and exponent.denominator == 1:
            value, exponent = (-value if exponent % 4 >= 2 else value), exponent % 2
        if exponent:
            kept.append((name, exponent))
    return tuple(kept), bounded(value)
