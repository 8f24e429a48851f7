"""Intervals cover the truth as often as they claim, and tests say what textbooks say."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spoutnik.evals.statistics import (
    amount_interval,
    bootstrap_interval,
    difference_interval,
    equivalence_test,
    holm,
    mean_interval,
    p_not_below,
    sign_flip_test,
    standard_error,
    wilson,
)


def coverage(mean: float, problems: int, samples: int, repeats: int = 400) -> float:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(repeats):
        shares = rng.binomial(samples, rng.beta(mean, 1 - mean, size=problems)) / samples
        _, low, high = mean_interval(shares)
        covered += low <= mean <= high
    return covered / repeats


@pytest.mark.parametrize("mean, problems, samples", [(0.3, 360, 2), (0.05, 164, 1), (0.95, 360, 2), (0.3, 100, 4)])
def test_intervals_of_a_hundred_problems_and_more_cover_nearly_95_percent(mean, problems, samples):
    assert 0.92 <= coverage(mean, problems, samples) <= 0.98


@pytest.mark.parametrize("mean", [0.3, 0.05, 0.95])
def test_intervals_of_few_problems_with_many_samples_cover_at_least_95_percent(mean):
    assert coverage(mean, 30, 32) >= 0.95  # as independent samples: about 0.4


def test_wilson_is_scipy_s_and_takes_fractions():
    theirs = stats.binomtest(7, 30).proportion_ci(0.95, "wilson")
    assert wilson(7 / 30, 30) == pytest.approx((theirs.low, theirs.high))
    low, high = mean_interval([0.25, 0.5, 0.5, 0.75])[1:]
    assert 0 < low < 0.5 < high < 1 and low == pytest.approx(1 - high)


@pytest.mark.parametrize("value, problems", [(0.0, 30), (1.0, 30), (0.0, 500), (1.0, 500)])
def test_nothing_right_or_wrong_is_no_certainty(value, problems):
    mean, low, high = mean_interval([value] * problems)
    assert mean == value and 0.005 < high - low < 0.13
    assert low == 0.0 if value == 0 else high == 1.0


def test_no_problems_have_no_interval():
    assert all(map(math.isnan, mean_interval([])))
    assert all(map(math.isnan, bootstrap_interval(0, lambda drawn: 1.0)))
    assert amount_interval([3.0])[0] == 3.0 and math.isnan(amount_interval([3.0])[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=150))
@settings(max_examples=60, deadline=None)
def test_an_interval_holds_the_mean_and_stays_within_0_and_1(shares):
    mean, low, high = mean_interval(shares)
    assert 0.0 <= low <= mean + 1e-12 and mean - 1e-12 <= high <= 1.0


def test_strata_take_the_variance_between_them_out():
    shares = [0.1, 0.2] * 60 + [0.8, 0.9] * 60
    strata = ["easy"] * 120 + ["hard"] * 120
    narrow, wide = mean_interval(shares, strata), mean_interval(shares)
    assert narrow[0] == wide[0] == pytest.approx(0.5)
    assert narrow[2] - narrow[1] < 0.2 * (wide[2] - wide[1])
    assert standard_error(shares)[0] == pytest.approx(stats.sem(shares)) and standard_error(shares)[1] == 239


def test_strata_of_one_problem_count_as_one_stratum():
    shares = [0.0, 1.0, 0.5, 0.25]
    assert standard_error(shares, list("abcd")) == pytest.approx(standard_error(shares))
    assert standard_error(shares, list("aaab")) == pytest.approx(standard_error(shares))
    error, freedom = standard_error(shares, list("aabc"))
    assert freedom == 2 and error == pytest.approx(math.sqrt((2 * 0.5 + 2 * 0.03125) / 16))


def test_sign_flips_are_counted_exactly_where_they_are_few():
    differences = [0.5, 0.25, -0.25, 1.0, 0.0]
    signs = itertools.product((1, -1), repeat=4)
    sums = [abs(sum(s * d for s, d in zip(sign, differences[:4], strict=True))) for sign in signs]
    assert sign_flip_test(differences) == sum(each >= 1.5 for each in sums) / 16
    assert sign_flip_test([0.0] * 9) == 1.0
    assert sign_flip_test([1.0] * 10) == 2 / 1024


def test_random_sign_flips_agree_with_t_and_are_the_same_every_time():
    differences = list(np.random.default_rng(0).normal(0.1, 0.5, size=80))
    p = sign_flip_test(differences)
    assert p == sign_flip_test(differences) and p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
    assert sign_flip_test([1.0] * 50) == pytest.approx(1 / 20001)


def test_sign_flips_reject_true_nulls_as_rarely_as_they_claim():
    rng = np.random.default_rng(1)
    p_values = [sign_flip_test(rng.integers(-2, 3, size=12) / 2) for _ in range(300)]
    assert sum(p <= 0.05 for p in p_values) / 300 <= 0.08


def test_equivalence_needs_problems_and_a_margin():
    near = [0.5, -0.5] * 200
    assert equivalence_test(near, 0.06) < 0.05 < equivalence_test(near, 0.02)
    assert equivalence_test([0.5, -0.5] * 10, 0.06) > 0.05
    worse = [-0.25 + value for value in near]
    assert p_not_below(worse, -0.06) > 0.99 and p_not_below([-value for value in worse], -0.06) < 1e-6
    assert equivalence_test(worse, 0.06) > 0.99
    theirs = stats.ttest_1samp(near, -0.06, alternative="greater").pvalue
    assert p_not_below(near, -0.06) == pytest.approx(theirs)


def test_differences_that_all_agree_are_no_certainty():
    mean, low, high = difference_interval([0.0] * 100)
    assert mean == 0 and 0.01 < high < 0.05 and low == -high
    assert equivalence_test([0.0] * 100, 0.05) < 0.05 < equivalence_test([0.0] * 20, 0.05)
    assert difference_interval([1.0] * 5)[2] == 1.0


def test_holm_is_the_textbook_s():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_bootstrap_agrees_with_student_on_a_mean():
    values = np.random.default_rng(2).beta(2, 3, size=200)
    ours = bootstrap_interval(200, lambda drawn: float(values[drawn].mean()))
    assert ours == pytest.approx(mean_interval(values), abs=0.01)
