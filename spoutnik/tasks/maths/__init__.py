"""Maths answers: what an answer comes to (`extract`), whether it is the gold one (`equal`), and whether it answers its question
(`answers`).

`equal` reads both sides with a grammar of its own and compares them exactly: rational numbers, roots, pi, polynomials in
variables, tuples, sets, lists, intervals, bases, percents, units. math-verify is asked only where that grammar ends, in
processes that the system ends after a second (`statistics` counts them). Nothing that is read here is ever executed.
"""

from spoutnik.tasks.maths.equality import answers, equal
from spoutnik.tasks.maths.extraction import extract
from spoutnik.tasks.maths.pool import Statistics, pool

__all__ = ["Statistics", "answers", "equal", "extract", "statistics"]


def statistics() -> Statistics:
    """How often math-verify was asked since the start of the program, and how often it had to be ended."""
    return pool.statistics()
