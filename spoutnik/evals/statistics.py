"""Intervals and tests that respect how samples are drawn: several of each problem, problems at random.

The problem is the unit: the samples of one problem resemble each other, and as if they were independent a 95 % interval
covers the truth in half of all cases (Miller 2024, arXiv 2411.00640). benchmarks/intervals.py measures the coverage.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

FEW_PROBLEMS = 100  # below, Student's interval is too narrow near the edges
NEAR_THE_EDGE = 10  # right or wrong answers, in problems, below which Student's interval leans the wrong way
EXACT_FLIPS = 14  # non-zero differences up to which all assignments of signs are counted
RANDOM_FLIPS = 20_000
RESAMPLES = 2_000

Interval = tuple[float, float, float]  # mean, low, high


def mean_interval(per_problem: Sequence[float], strata: Sequence[Hashable] | None = None, confidence: float = 0.95) -> Interval:
    """Mean of per-problem means in [0, 1] with its confidence interval: (mean, low, high), nan without problems.

    From 100 problems Student's t, with the variance within strata where strata are given; below, and where fewer than ten
    problems' worth are right or wrong (there it would touch 0 or 1, or nearly), Wilson's interval with problems as trials.

    Args:
        strata: what each problem belongs to (family and level, subject), where the test set holds fixed numbers of each.
    """
    if len(per_problem) == 0:
        return math.nan, math.nan, math.nan
    mean = float(np.mean(per_problem))
    if len(per_problem) >= FEW_PROBLEMS and min(mean, 1 - mean) * len(per_problem) >= NEAR_THE_EDGE:
        _, low, high = amount_interval(per_problem, strata, confidence)
        return mean, max(low, 0.0), min(high, 1.0)
    return mean, *wilson(mean, len(per_problem), confidence)


def wilson(share: float, problems: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share; of means that are fractions it is somewhat too wide, since they vary less than 0 and 1."""
    z2 = float(stats.norm.ppf(0.5 + confidence / 2)) ** 2
    middle = share + z2 / (2 * problems)
    half = math.sqrt(z2 * (share * (1 - share) / problems + z2 / (4 * problems**2)))
    low, high = (middle - half) / (1 + z2 / problems), (middle + half) / (1 + z2 / problems)
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)  # exactly, not by rounding


def amount_interval(per_problem: Sequence[float], strata: Sequence[Hashable] | None = None,
                    confidence: float = 0.95) -> Interval:
    """Mean of amounts without bounds (tokens) with Student's interval over problems: (mean, low, high); no interval (nan) of
    fewer than two problems."""
    if len(per_problem) < 2:
        return (float(per_problem[0]) if len(per_problem) else math.nan), math.nan, math.nan
    error, freedom = standard_error(per_problem, strata)
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    mean = float(np.mean(per_problem))
    return mean, mean - half, mean + half


def standard_error(values: Sequence[float], strata: Sequence[Hashable] | None = None) -> tuple[float, int]:
    """Standard error of the mean and its degrees of freedom, with the variance within strata.

    Strata of a single problem, which have no variance, count as one stratum.
    """
    array = np.asarray(values, dtype=float)
    groups = _groups(strata, len(array)) if strata is not None else [np.arange(len(array))]
    total = sum(len(group) * float(array[group].var(ddof=1)) for group in groups) / len(array) ** 2
    return math.sqrt(total), len(array) - len(groups)


def _groups(strata: Sequence[Hashable], count: int) -> list[np.ndarray]:
    """The positions of each stratum; each has at least two."""
    assert len(strata) == count, "a stratum for each problem"
    positions: dict[Hashable, list[int]] = {}
    for position, stratum in enumerate(strata):
        positions.setdefault(stratum, []).append(position)
    groups = [group for group in positions.values() if len(group) > 1]
    single = [group[0] for group in positions.values() if len(group) == 1]
    if len(single) > 1:
        groups.append(single)
    elif single and groups:
        groups[-1] = groups[-1] + single
    return [np.array(group) for group in groups or [range(count)]]


def bootstrap_interval(problems: int, statistic: Callable[[np.ndarray], float], confidence: float = 0.95,
                       seed: int = 0) -> Interval:
    """A statistic that is no mean over problems, with the percentile interval over problems that are drawn with replacement:
    (value, low, high); nan without problems.

    Args:
        statistic: of the problems at these positions (int array); nan where it has no value.
    """
    if problems == 0:
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(problems, size=problems)) for _ in range(RESAMPLES)]
    value = float(statistic(np.arange(problems)))
    if not math.isfinite(value):
        return math.nan, math.nan, math.nan
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return value, float(low), float(high)


def sign_flip_test(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of "the mean difference is 0": the share of assignments of signs with a mean at least as far from 0.

    All of them where at most 14 differences are not 0, else 20,000 random ones and the observed one.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if len(values) == 0:
        return 1.0
    observed = abs(values.sum()) * (1 - 1e-9)  # sums of the same numbers in another order differ in the last bits
    if len(values) <= EXACT_FLIPS:
        bits = np.arange(1 << len(values))[:, None] >> np.arange(len(values)) & 1
        return float((abs((2 * bits - 1) @ values) >= observed).mean())
    rng, further = np.random.default_rng(seed), 0
    for _ in range(RANDOM_FLIPS // 1000):
        signs = rng.integers(0, 2, size=(1000, len(values))) * 2 - 1
        further += int((abs(signs @ values) >= observed).sum())
    return (further + 1) / (RANDOM_FLIPS + 1)


def difference_interval(differences: Sequence[float], strata: Sequence[Hashable] | None = None,
                        confidence: float = 0.95) -> Interval:
    """Mean of paired differences in [-1, 1] with Student's interval over problems: (mean, low, high).

    Where all differences agree, which is no proof of certainty, as if one more problem had gone each way.
    """
    mean, error, freedom = _difference_error(differences, strata)
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    return mean, max(mean - half, -1.0), min(mean + half, 1.0)


def p_not_below(differences: Sequence[float], bound: float, strata: Sequence[Hashable] | None = None) -> float:
    """One-sided p-value of "the mean difference is at most `bound`", which a small value refutes (Student)."""
    mean, error, freedom = _difference_error(differences, strata)
    return float(stats.t.sf((mean - bound) / error, freedom))


def equivalence_test(differences: Sequence[float], margin: float, strata: Sequence[Hashable] | None = None) -> float:
    """TOST: the p-value of "the mean difference is `margin` or more, one way or the other", the larger of two one-sided
    ones; below 0.05 the two are equivalent within the margin (Schuirmann 1987)."""
    opposite = [-value for value in differences]
    return max(p_not_below(differences, -margin, strata), p_not_below(opposite, -margin, strata))


def _difference_error(differences: Sequence[float], strata: Sequence[Hashable] | None) -> tuple[float, float, int]:
    mean = float(np.mean(differences))
    if len(set(differences)) > 1:
        error, freedom = standard_error(differences, strata)
        if error > 0:
            return mean, error, freedom
    error, freedom = standard_error([*differences, 1.0, -1.0])
    return mean, error, freedom


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the order given: those below 0.05 hold together at 95 %."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def shaffer(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corrected p-values of pairs of hypotheses of which at most one is true each, in the order given: those below 0.05 are
    refuted together at 95 %, however the tests depend on each other.

    Shaffer 1986 (JASA 81:826): as many hypotheses can still be true as there are pairs of which one is not refuted yet. Holm's
    correction of each pair's smaller p-value would count a pair off once one of the two is refuted, though the other may be the
    true one: of 24 differences of 0 that are told from 0 and from 4 standard errors, one is then wrong in 30 % of cases.
    """
    order = sorted(((p, pair, side) for pair, both in enumerate(pairs) for side, p in enumerate(both)))
    adjusted, refuted = [[0.0, 0.0] for _ in pairs], [0] * len(pairs)
    possible, largest = len(pairs), 0.0
    for p, pair, side in order:
        largest = max(largest, min(1.0, possible * p))
        adjusted[pair][side] = largest
        refuted[pair] += 1
        possible -= refuted[pair] == 2
    return [(first, second) for first, second in adjusted]


@dataclass(frozen=True)
class CrossedMean:
    """A mean over seeds and problems. parts: of seeds and of problems, as far as there are several: standard error of the mean
    and Student's degrees of freedom. seed_deviation: standard deviation of the seeds' means, nan for a single seed.
    problem_error: the problems' part of the error, 0 where there are no problems."""

    mean: float
    parts: tuple[tuple[float, int], ...]
    seeds: int
    seed_deviation: float
    problem_error: float

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.hypot(*(error for error, _ in self.parts))

    def half(self, tail: float) -> float:
        """Half of the interval beyond which `tail` of the cases lie, on either side: each part's own, added as squares."""
        return math.hypot(*(float(stats.t.isf(tail, freedom)) * error for error, freedom in self.parts))

    def interval(self, confidence: float = 0.95) -> Interval:
        half = self.half((1 - confidence) / 2)
        return self.mean, self.mean - half, self.mean + half

    def p_above(self, bound: float) -> float:
        """One-sided p-value of "the mean is at most `bound`", which a small value refutes."""
        if not self.error:
            return float(self.mean <= bound)
        tail = self._tail(abs(self.mean - bound))
        return tail if self.mean > bound else 1 - tail

    def p_below(self, bound: float) -> float:
        """One-sided p-value of "the mean is at least `bound`"."""
        return replace(self, mean=-self.mean).p_above(-bound)

    def _tail(self, distance: float) -> float:
        """The tail whose half interval is `distance`: at most 0.5."""
        parts = [(error, freedom) for error, freedom in self.parts if error > 0]
        least, most = (max(float(stats.t.sf(distance / (error * wider), freedom)) for error, freedom in parts)
                       for wider in (1, math.sqrt(len(parts))))
        if least == most or least == 0:
            return least
        return math.exp(optimize.brentq(lambda tail: self.half(math.exp(tail)) - distance, math.log(least), math.log(most)))


def crossed_mean(values: np.ndarray, strata: Sequence[Hashable] | None = None) -> CrossedMean:
    """The mean of values (seeds, problems) where seeds and problems are both drawn at random, and every seed meets the same
    problems.

    The half width of its interval is that of Student's over seeds and that of Student's over problems, added as squares, as in
    MOVER (Zou and Donner 2008). It is too wide rather than too narrow: what neither explains counts in both. One interval for
    the sum of the variances, with Satterthwaite's degrees of freedom, is narrower, but of three seeds that happen to agree it
    makes a proof: at 0.2 %, where several findings are told apart, it errs in up to 2 % of cases (benchmarks/intervals.py).

    Args:
        values: (S, N); (S, 1) where there are no problems.
        strata: of the problems.
    """
    seeds, problems = values.shape
    assert seeds > 1 or problems > 1, "one number has no variance"
    parts: list[tuple[float, int]] = []
    deviation, problem_error = math.nan, 0.0
    if seeds > 1:
        deviation = float(values.mean(axis=1).std(ddof=1))
        parts.append((deviation / math.sqrt(seeds), seeds - 1))
    if problems > 1:
        problem_error, freedom = standard_error(values.mean(axis=0), strata)
        parts.append((problem_error, freedom))
    return CrossedMean(float(values.mean()), tuple(parts), seeds, deviation, problem_error)


def seeds_needed(deviation: float, problem_error: float, effect: float, alpha: float, power: float = 0.8,
                 most: int = 200) -> int | None:
    """How many seeds show an effect in a share `power` of experiments, by the intervals of `crossed_mean` at 1 - `alpha`; None
    where `most` do not.

    Args:
        deviation, problem_error: as of CrossedMean.
    """
    shares = (np.arange(200) + 0.5) / 200
    of_problems = float(stats.norm.isf(alpha / 2)) * problem_error
    for seeds in range(2, most + 1):
        seen = deviation * np.sqrt(stats.chi2.ppf(shares, seeds - 1) / (seeds - 1))  # what the seeds' deviation may look like
        half = np.hypot(float(stats.t.isf(alpha / 2, seeds - 1)) * seen / math.sqrt(seeds), of_problems)
        error = math.hypot(deviation / math.sqrt(seeds), problem_error)
        shown = stats.norm.cdf((effect - half) / error).mean() if error else float(effect > 0)
        if shown >= power:
            return seeds
    return None
