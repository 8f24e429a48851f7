"""Bradley and Terry's model against closed forms, an optimiser and simulated votes; the arena's draws and votes."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from spoutnik.arena.matches import Match, VoteStore
from spoutnik.arena.ratings import MEAN, OUTCOMES, SCALE, Vote, fit_strengths, rate, simulate_games, win_table
from spoutnik.errors import UserError
from spoutnik.store.history import History


def test_two_models_have_a_closed_form():
    """p_a / p_b is the ratio of the wins."""
    a, b = fit_strengths(np.array([[0, 7], [3, 0]]))
    assert a - b == pytest.approx(np.log(7 / 3))
    assert a + b == pytest.approx(0)


def test_an_even_circle_makes_all_equal():
    assert fit_strengths(np.array([[0, 4, 1], [1, 0, 4], [4, 1, 0]])) == pytest.approx([0, 0, 0], abs=1e-7)


def test_expected_wins_are_those_that_happened():
    """What makes it the maximum of the likelihood: the gradient is zero. And an optimiser finds nothing better."""
    wins = np.array([[0, 5, 2, 9], [3, 0, 6, 4], [1, 2, 0, 7], [1, 5, 3, 0]], dtype=float)
    games, logs = wins + wins.T, fit_strengths(wins)
    chance = 1 / (1 + np.exp(logs[None, :] - logs[:, None]))
    assert (games * chance).sum(1) - np.diag(games * chance) == pytest.approx(wins.sum(1), abs=1e-6)
    found = minimize(lambda x: (wins * np.log1p(np.exp(x[None, :] - x[:, None]))).sum(), np.zeros(4)).x
    assert logs == pytest.approx(found - found.mean(), abs=1e-4)


def test_many_tables_at_once_are_what_each_is_alone():
    rng = np.random.default_rng(0)
    tables = rng.integers(1, 9, (5, 3, 3)) * (1 - np.eye(3))
    assert fit_strengths(tables) == pytest.approx(np.stack([fit_strengths(one) for one in tables]), abs=1e-7)


def test_ties_are_half_wins():
    tied = rate([Vote("x", "y", "tie")] * 2 + [Vote("x", "y", "bad")] * 2 + [Vote("x", "y", "a")] * 2)
    halved = rate([Vote("x", "y", "a")] * 4 + [Vote("y", "x", "a")] * 2)
    assert [one.rating for one in tied] == pytest.approx([one.rating for one in halved])
    assert (tied[0].games, tied[0].wins, tied[0].losses) == (6, 2, 0)
    assert np.array_equal(win_table(np.array([[0, 1], [1, 0]]), np.array([0.5, 1.0]), 2), [[0, 0.5], [1.5, 0]])


def test_ratings_are_on_elos_scale():
    """Ten wins to one, and the drawn game that is assumed."""
    first, last = rate([Vote("x", "y", "a")] * 10 + [Vote("x", "y", "b")])
    assert first.rating - last.rating == pytest.approx(400 * np.log10(10.5 / 1.5))
    assert first.rating + last.rating == pytest.approx(2 * MEAN)


def test_one_vote_says_little_and_no_vote_nothing():
    first, last = rate([Vote("x", "y", "b")])
    assert (first.model, last.model) == ("y", "x")
    assert first.low < last.rating + 1 and last.high > first.rating - 1
    assert rate([]) == rate([Vote("x", "x", "a")]) == []


def test_models_that_never_met_are_rated_too():
    rows = rate([Vote("a", "b", "a"), Vote("c", "d", "a")] * 5)
    assert {row.model for row in rows[:2]} == {"a", "c"} and all(np.isfinite([row.low, row.high]).all() for row in rows)


def test_games_played_again_give_what_was_fitted():
    fitted, games = np.array([0.6, -0.1, -0.5]), np.array([[0, 40, 20], [40, 0, 30], [20, 30, 0]])
    again = simulate_games(games, fitted, 0.2, 4000, np.random.default_rng(1))
    assert np.allclose(again + again.transpose(0, 2, 1), games)
    chance = 1 / (1 + np.exp(fitted[None, :] - fitted[:, None]))
    assert again.mean(0) == pytest.approx(games * chance * (1 - np.eye(3)), abs=0.3)


def test_the_intervals_hold_what_is_true():
    """Of simulated votes among models of known strength, with one tie in five."""
    rng, true = np.random.default_rng(3), {"a": 0.8, "b": 0.0, "c": -0.2, "d": -0.6}
    held = []
    for seed in range(40):
        votes = []
        for _ in range(80):
            one, other = rng.choice(list(true), 2, replace=False)
            chance = 1 / (1 + np.exp(true[other] - true[one]))
            decided = "a" if rng.random() < (chance - 0.1) / 0.8 else "b"
            votes.append(Vote(str(one), str(other), "tie" if rng.random() < 0.2 else decided))
        held += [row.low <= MEAN + SCALE * true[row.model] <= row.high for row in rate(votes, resamples=200, seed=seed)]
    assert 0.88 < np.mean(held) < 0.99


@given(st.lists(st.builds(Vote, *[st.sampled_from("abcd")] * 2, st.sampled_from(OUTCOMES)), max_size=30))
def test_any_votes_have_finite_ratings_in_order(votes):
    rows = rate(votes, resamples=20)
    assert [row.rating for row in rows] == sorted((row.rating for row in rows), reverse=True)
    for row in rows:
        assert np.isfinite([row.rating, row.low, row.high]).all() and row.wins + row.losses <= row.games
        assert set(row.as_json()) == {"model", "rating", "low", "high", "games", "wins", "losses"}


def test_a_match_is_between_two_and_blind():
    rng = random.Random(0)
    matches = [Match.draw(["x", "y", "z"], ["z"], rng) for _ in range(60)]
    assert all(match.a != match.b and "z" in (match.a, match.b) for match in matches)
    assert {(match.a, match.b) for match in matches} == {("z", "x"), ("x", "z"), ("z", "y"), ("y", "z")}
    assert Match.draw(["x"], ["y"], rng) in (Match("x", "y"), Match("y", "x"))
    for few in ([], ["x"]):
        with pytest.raises(UserError, match="compares two models"):
            Match.draw(few)


@pytest.mark.parametrize("kept", [True, False])
def test_votes_come_back_as_they_were_recorded(tmp_path, kept):
    store = VoteStore(History(tmp_path / "history.db") if kept else None)
    match = Match("tie", "neither")  # models may be called anything
    for outcome in OUTCOMES:
        store.record(match, outcome, "Why?", ("So.", "No."))
    assert store.votes() == [Vote(match.a, match.b, outcome) for outcome in OUTCOMES]
    with pytest.raises(UserError, match="must be one of"):
        store.record(match, "c", "Why?", ("So.", "No."))
    if kept:
        assert store.history.votes()[0].extras == {"outcome": "a", "question": "Why?", "answers": ["So.", "No."]}
