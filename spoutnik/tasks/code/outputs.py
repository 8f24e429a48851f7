"""Comparing what a program wrote with what it should have written."""

import math

TOLERANCE = 1e-6  # relative and absolute, of numbers that are not whole


def same_output(expected: str, actual: str, tolerance: float = TOLERANCE) -> bool:
    """Whether two outputs have the same tokens, white space apart. Where the expected token is a decimal number, a number
    within `tolerance` of it will do."""
    wanted, given = expected.split(), actual.split()
    return len(wanted) == len(given) and all(one == other or _close(one, other, tolerance)
                                             for one, other in zip(wanted, given))


def _close(expected: str, actual: str, tolerance: float) -> bool:
    if not any(sign in expected for sign in ".eE"):
        return False  # whole numbers and words are exact
    try:
        wanted, given = float(expected), float(actual)
    except ValueError:
        return False
    return math.isfinite(wanted) and math.isfinite(given) and math.isclose(wanted, given, rel_tol=tolerance, abs_tol=tolerance)
