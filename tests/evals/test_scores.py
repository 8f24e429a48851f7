"""Scores over saved samples: pass@1, pass@k, cons@k, shares, lengths."""

import itertools
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_samples import row, rows_of

from spoutnik.errors import UserError
from spoutnik.evals.scores import answer_classes, best_of, consensus_at_k, pass_at_1, pass_at_k, shares
from spoutnik.evals.statistics import mean_interval


def test_pass_at_1_is_the_mean_over_problems_with_the_problem_as_unit():
    score = pass_at_1(rows_of([[1, 0], [1, 1], [0, 0]]) + [row("p3", 0, 1)])
    assert score["mean"] == pytest.approx((0.5 + 1 + 0 + 1) / 4) and (score["problems"], score["samples"]) == (4, 7)
    assert (score["low"], score["high"]) == mean_interval([0.5, 1, 0, 1])[1:]


def test_intervals_take_the_strata_of_the_rows():
    grades = [[1, 0], [1, 1]] * 40 + [[0, 0], [1, 0]] * 40
    rows = rows_of(grades)
    plain = pass_at_1(rows)
    for each in rows:
        each["level"] = 1 if int(each["problem"][1:]) < 80 else 2
    stratified = pass_at_1(rows)
    assert stratified["high"] - stratified["low"] < 0.8 * (plain["high"] - plain["low"])


@given(n=st.integers(1, 9), data=st.data())
@settings(max_examples=60, deadline=None)
def test_best_of_k_is_the_mean_over_all_choices_of_k(n, data):
    k = data.draw(st.integers(1, n))
    grades = data.draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=n, max_size=n))
    every = [max(chosen) for chosen in itertools.combinations(grades, k)]
    assert best_of(k, grades) == pytest.approx(sum(every) / len(every))


def test_pass_at_k_is_the_paper_s():
    rows = rows_of([[1, 1, 0, 0, 0, 0], [0] * 6])
    assert pass_at_k(rows, 3)["mean"] == pytest.approx((1 - comb(4, 3) / comb(6, 3)) / 2)
    assert pass_at_k(rows, 1)["mean"] == pytest.approx(pass_at_1(rows)["mean"])


@pytest.mark.parametrize("score", [pass_at_k, consensus_at_k])
@pytest.mark.parametrize("k, sentence", [(2, "needs more than 2 samples.*p1 has 2"), (0, "at least 1")])
def test_k_samples_and_no_more_are_refused(score, k, sentence):
    with pytest.raises(UserError, match=sentence):
        score(rows_of([[1, 0, 0], [1, 0]]), k)


def answers(*texts: str | None) -> list[dict]:
    return [row("p", number, float(text == "5"), text or "", extracted=text, answered=text is not None)
            for number, text in enumerate(texts)]


def test_the_majority_of_the_votes_is_graded():
    assert consensus_at_k(answers("5", "5", "5", "5", "6", "7"), 5)["mean"] == 1.0
    assert consensus_at_k(answers("6", "6", "6", "6", "6", "5"), 5)["mean"] == 0.0


def test_cons_at_1_is_pass_at_1_and_ties_are_shared():
    rows = answers("5", "6", "6", "7")
    assert consensus_at_k(rows, 1)["mean"] == pytest.approx(0.25, abs=0.06)
    pairs = [(a, b) for a, b in itertools.combinations("5667", 2)]
    exact = sum(0.5 if a != b and "5" in (a, b) else 0.0 for a, b in pairs) / len(pairs)
    assert consensus_at_k(rows, 2)["mean"] == pytest.approx(exact, abs=0.05)
    assert consensus_at_k(rows, 2) == consensus_at_k(rows, 2)


def test_what_has_no_answer_does_not_vote():
    assert consensus_at_k(answers("5", None, None, None, None, "5"), 5)["mean"] == 1.0
    assert consensus_at_k(answers(None, None, None), 2)["mean"] == 0.0


def test_answers_are_classed_by_the_grader_and_by_the_equality_that_is_given():
    rows = answers("5", "6", "6.0", None) + [row("p", 4, 1.0, "5.0")]
    assert answer_classes(rows) == [0, 1, 2, -1, 0]
    assert answer_classes(rows, lambda a, b: float(a) == float(b)) == [0, 1, 1, -1, 0]


def test_programs_cannot_be_voted_on():
    with pytest.raises(UserError, match="no gold answer"):
        consensus_at_k([row("p", number, 1.0, gold="") for number in range(3)], 2)


def test_shares_and_lengths():
    rows = [row("a", 0, 0.0, finished=False, answered=False, extracted=None, thought_tokens=100), row("a", 1, 1.0),
            row("b", 0, 1.0, thought_tokens=8)]
    of = shares(rows)
    assert of["truncated"]["mean"] == of["without_answer"]["mean"] == 0.25
    assert of["thought_tokens"]["mean"] == 30 and of["thought_tokens"]["high"] > 60
