"""Intervals that respect how the samples were drawn: several per problem, problems drawn at random."""

import numpy as np
from scipy import stats


def mean_interval(per_problem: list[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of per-problem means with its confidence interval, clipped to [0, 1].

    Problems are the unit (the samples of one problem are not independent): Student's t over problem means, and Wilson's
    interval where all of them agree, since t would claim certainty. Returns (mean, low, high).
    """
    values = np.asarray(per_problem, dtype=float)
    if len(values) == 0:
        return float("nan"), float("nan"), float("nan")
    mean = float(values.mean())
    if len(values) < 2 or values.std() == 0:
        interval = stats.binomtest(round(mean * len(values)), len(values)).proportion_ci(confidence, method="wilson")
        return mean, float(interval.low), float(interval.high)
    low, high = stats.t.interval(confidence, len(values) - 1, loc=mean, scale=stats.sem(values))
    return mean, max(float(low), 0.0), min(float(high), 1.0)
