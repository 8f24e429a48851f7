"""Verdicts: what the numbers decide, what they do not, and what it would take."""

import math

import numpy as np
import pytest
from scipy import stats

from spoutnik.evals.statistics import crossed_mean, seeds_needed
from spoutnik.experiment.verdicts import DOES_NOT, HOLDS, leaning_of


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
    assert 2 < both.freedom < 399 + 2


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(400):
        _, low, high = crossed_mean(drawn(5, 1, problems=100, seed=seed)).interval()
        covered += low <= 5 <= high
    assert 0.92 < covered / 400 < 0.99


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
    leaning, p = leaning_of(crossed_mean(drawn(mean, 1)), claim, margin)
    assert (p < 0.01) == sure
    if sure:
        assert leaning == verdict


def test_the_seeds_that_are_needed_show_the_effect_as_often_as_promised():
    needed = seeds_needed(1.0, 0.1, 2.0, 0.05)
    rng, shown = np.random.default_rng(0), 0
    for _ in range(1000):
        values = 2.0 + rng.normal(0, 0.1) + rng.normal(0, 1.0, needed)
        error = math.sqrt(values.var(ddof=1) / needed + 0.01)
        shown += abs(values.mean()) > stats.t.ppf(0.975, needed - 1) * error
    assert 3 < needed < 8 and 0.75 < shown / 1000 < 0.95


def test_no_number_of_seeds_makes_up_for_too_few_problems():
    assert seeds_needed(0.5, 2.0, 1.0, 0.05) is None
