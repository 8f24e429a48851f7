"""Votes over answers."""

import pytest

from spoutnik.generation.voting import Agreement, final_answer, tally


@pytest.mark.parametrize("answer, final", [
    ("42", "42"), ("The answer is 42.", "42"), ("**1,234**", "1,234"),
    (r"Thus $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
    ("Paris", "paris"), ("(8 + 5) + 3", "(8 + 5) + 3"), ("", ""),
    ("There are twelve months in a year, and each has at least four weeks; so with thirty days each\nit makes 360 days.",
     "360")])
def test_what_an_answer_comes_to(answer, final):
    assert final_answer(answer) == final


@pytest.mark.parametrize("one, other, agree", [("1/2", r"\frac{1}{2}", True), ("0.5", "1/2", True), ("3", "4", False),
                                               ("paris", "london", False), ("x^{2}-1", "(x-1)(x+1)", True)])
def test_mathematics_agrees_by_value(one, other, agree):
    same = Agreement()
    assert same(one, other) == same(other, one) == agree


def test_what_takes_for_ever_to_compute_is_an_answer_like_others():
    verdict = tally(["0.5", "99^{99*99*99*99}", "1/2"])
    assert (verdict.index, verdict.agreement) == (0, 2 / 3)


def test_patience_has_an_end(monkeypatch):
    comparisons = []
    monkeypatch.setattr("spoutnik.generation.voting.checker.equivalent", lambda *texts: comparisons.append(texts))
    assert tally([*map(str, range(20)), "7"]).index == 7 and len(comparisons) == 3


def test_the_majority_speaks():
    verdict = tally(["41", "The answer is 42.", "42", "", r"\boxed{42}", "41"])
    assert (verdict.index, verdict.agreement, verdict.runners_up) == (1, 0.5, [("41", 2)])


def test_the_first_of_equals_and_nobody():
    assert tally(["b", "a", "a", "b"]).index == 0
    assert tally(["", ""]).agreement == 0.0
