"""Verdicts: what the numbers decide, what they do not, and what it would take."""

import math

import numpy as np
import pytest
from scipy import stats

from spoutnik.evals.statistics import crossed_mean, seeds_needed, shaffer
from spoutnik.experiment.finding import DOES_NOT, HOLDS, UNDECIDED, ComparedSide, Finding
from spoutnik.experiment.intervals import p_values_of
from spoutnik.experiment.verdicts import _with_verdict


def drawn(mean: float, between_seeds: float, seeds: int = 3, problems: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    of_seeds, of_problems = rng.normal(0, between_seeds, (seeds, 1)), rng.normal(0, 30, problems)
    return mean + of_seeds + of_problems + rng.normal(0, 40, (seeds, problems))


def test_a_mean_over_seeds_alone_is_students():
    values = np.array([[1.0], [2.0], [4.0]])
    one = crossed_mean(values)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values[:, 0]))
    assert one.interval() == pytest.approx((values.mean(), low, high)) and one.problem_error == 0


def test_seeds_and_problems_both_widen_the_interval():
    values = drawn(5, 3)
    both = crossed_mean(values)
    assert both.error > values.mean(axis=1).std(ddof=1) / math.sqrt(3)
    assert both.error > both.problem_error > 0
    low, high = both.interval()[1:]
    assert (both.p_above(low), both.p_below(high)) == pytest.approx((0.025, 0.025))
    assert both.p_above(5.5) + both.p_below(5.5) == pytest.approx(1)
    half = math.hypot(*(stats.t.isf(0.025, freedom) * error for error, freedom in both.parts))
    assert high - low == pytest.approx(2 * half) and [freedom for _, freedom in both.parts] == [2, 399]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(400):
        _, low, high = crossed_mean(drawn(5, 1, problems=100, seed=seed)).interval()
        covered += low <= 5 <= high
    assert 0.92 < covered / 400 < 0.995


def test_three_seeds_that_happen_to_agree_are_no_proof():
    """At the level of a page of 24 findings; one variance with Satterthwaite's degrees of freedom is wrong in 1 to 2 %."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(3000):
        values = rng.normal(0, 3, (3, 1)) + rng.normal(0, 30, 900)
        wrong += crossed_mean(values).p_above(0) < 0.05 / 48
    assert wrong / 3000 < 0.004


@pytest.mark.parametrize("mean, claim, margin, verdict, sure", [
    (40, "higher", 5, HOLDS, True),
    (-40, "higher", 5, DOES_NOT, True),
    (-40, "lower", 5, HOLDS, True),
    (0, "equal", 30, HOLDS, True),
    (40, "equal", 10, DOES_NOT, True),
    (0, "higher", 30, DOES_NOT, True),
    (2, "higher", 5, HOLDS, False),
])
def test_what_the_numbers_lean_to(mean, claim, margin, verdict, sure):
    holds, does_not = p_values_of(crossed_mean(drawn(mean, 1)), claim, margin)
    assert (min(holds, does_not) < 0.01) == sure
    if sure:
        assert verdict == (HOLDS if holds < does_not else DOES_NOT)


def test_a_tiny_margin_is_no_licence_to_test_twice():
    """Equal within next to nothing: a difference is refuted by a two-sided test, not by the better of two one-sided ones."""
    values = drawn(0, 1)
    one = crossed_mean(values - values.mean() + 1.0)
    assert p_values_of(one, "equal", 1e-9)[1] == pytest.approx(2 * one.p_above(0), rel=1e-6)


def verdict_of(holds: float, does_not: float) -> Finding:
    a, b = (ComparedSide(variant, "s", "accuracy", "right answers, %") for variant in "vw")
    one = Finding("f", "?", "-", "accuracy", "right answers, %", "points", a, b, "higher", 2.0, "w: another", 4, "-", models=3,
                  problems=100, difference=1.0, seed_deviation=0.1, problem_error=0.1, p_holds=holds / 4,
                  p_does_not=does_not / 4)
    return _with_verdict(one, (holds, does_not), 4)


def test_both_what_is_shown_and_that_it_is_little_are_told():
    both = verdict_of(0.01, 0.001)
    assert both.verdict == HOLDS and both.remark == "but by less than 2 points, which is refuted as well."
    assert both.p_adjusted == 0.01
    assert (verdict_of(0.01, 0.5).verdict, verdict_of(0.5, 0.01).verdict) == (HOLDS, DOES_NOT)


def test_what_is_shown_alone_and_not_among_others_is_undecided_and_told():
    one = verdict_of(0.1, 1.0)
    assert one.verdict == UNDECIDED and one.alone == HOLDS
    assert one.remark.startswith("alone it would be 'holds' (p = 0.025), which is not enough among 4 findings (p = 0.1).")
    assert verdict_of(0.4, 1.0).alone == UNDECIDED


def test_a_page_without_differences_is_right_in_95_of_100_cases():
    """Differences of 0 that are told from 0 and from four standard errors: Holm of the smaller p-values is wrong in 30 %."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        seen = rng.normal(0, 1, 24)
        pairs = zip(np.minimum(1, 2 * stats.norm.sf(seen)), stats.norm.cdf(seen - 4))
        wrong += any(holds < 0.05 for holds, _ in shaffer(list(pairs)))
    assert wrong / 400 <= 0.06


def test_a_pair_counts_until_both_of_its_hypotheses_are_refuted():
    assert shaffer([]) == []
    adjusted = shaffer([(0.001, 0.002), (0.02, 0.9), (0.03, 0.04)])
    assert [x for pair in adjusted for x in pair] == pytest.approx([0.003, 0.006, 0.04, 0.9, 0.06, 0.08])


def test_the_seeds_that_are_needed_show_the_effect_as_often_as_promised():
    needed = seeds_needed(1.0, 0.1, 2.0, 0.05)
    shares = {}
    for seeds in (needed - 1, needed):
        rng, shown = np.random.default_rng(0), 0
        for _ in range(2000):
            values = 2.0 + rng.normal(0, 0.1) + rng.normal(0, 1.0, seeds)
            error = values.std(ddof=1) / math.sqrt(seeds)
            shown += values.mean() > math.hypot(stats.t.ppf(0.975, seeds - 1) * error, 1.96 * 0.1)
        shares[seeds] = shown / 2000
    assert shares[needed] > 0.78 and shares[needed - 1] < 0.82


def test_no_number_of_seeds_makes_up_for_too_few_problems():
    assert seeds_needed(0.5, 2.0, 1.0, 0.05) is None
