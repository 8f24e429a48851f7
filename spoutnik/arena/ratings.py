"""Ratings of models from blind comparisons: Bradley and Terry's model (1952), by Hunter's MM algorithm (2004), on Elo's scale.

Model i beats model j with probability p_i / (p_i + p_j). A tie, also one of two bad answers, is half a win for each.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

Outcome = Literal["a", "b", "tie", "bad"]
OUTCOMES: tuple[Outcome, ...] = ("a", "b", "tie", "bad")  # "bad": both are

SCALE, MIDDLE = 400 / np.log(10), 1000.0  # Elo's: 400 points are odds of ten to one, the models' mean is 1000
PRIOR = 1.0  # drawn games assumed between every two models: without them one victory would be worth infinitely much
RESAMPLES = 1000


@dataclass(frozen=True)
class Vote:
    """a, b: the models that answered, as they were shown. outcome: which one was better."""

    a: str
    b: str
    outcome: Outcome


@dataclass(frozen=True)
class Rating:
    """low, high: where the rating lies 95 times of 100 when the games are played again. wins, losses: ties are in neither."""

    model: str
    rating: float
    low: float
    high: float
    games: int
    wins: int
    losses: int

    def as_json(self) -> dict:
        return {key: round(value, 1) if isinstance(value, float) else value for key, value in asdict(self).items()}


def strengths(wins: np.ndarray, tolerance: float = 1e-9, most: int = 20_000) -> np.ndarray:
    """The maximum of the likelihood: log p, of mean 0.

    wins (..., n, n): [i, j] counts i's wins over j. Many tables are fitted at once. Where some models never won against all
    the others, the likelihood has no maximum and the result only says who is first.
    """
    wins = np.asarray(wins, dtype=float)
    games = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(-1)
    logs = np.zeros(won.shape)
    for _ in range(most):
        p = np.exp(logs)
        expected = (games / (p[..., :, None] + p[..., None, :])).sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            new = np.log(won / expected)
        new = np.clip(np.where(expected > 0, new, 0.0), -50, 50)
        new -= new.mean(-1, keepdims=True)
        if np.abs(new - logs).max(initial=0) < tolerance:
            return new
        logs = new
    return logs


def table(pairs: np.ndarray, points: np.ndarray, models: int) -> np.ndarray:
    """wins (models, models). pairs (votes, 2): who played; points (votes,): the first one's, 1, 0.5 or 0."""
    wins = np.zeros((models, models))
    np.add.at(wins, (pairs[:, 0], pairs[:, 1]), points)
    np.add.at(wins, (pairs[:, 1], pairs[:, 0]), 1 - points)
    return wins


def rate(votes: Sequence[Vote], prior: float = PRIOR, resamples: int = RESAMPLES, seed: int = 0) -> list[Rating]:
    """The models of these votes, the best first. Votes of a model against itself say nothing and are left out.

    The intervals are a parametric bootstrap's: the same games are played again, as the fitted model says, and rated. (To draw
    from the votes themselves would call a single vote certain.)
    """
    votes = [vote for vote in votes if vote.a != vote.b]
    names = sorted({name for vote in votes for name in (vote.a, vote.b)})
    if not names:
        return []
    place = {name: number for number, name in enumerate(names)}
    points = table(np.array([(place[vote.a], place[vote.b]) for vote in votes]), np.array([_points(vote) for vote in votes]),
                   len(names))
    drawn = prior / 2 * (1 - np.eye(len(names)))
    fitted = strengths(points + drawn)
    ties = sum(_points(vote) == 0.5 for vote in votes) / len(votes)
    again = played_again(points + points.T, fitted, ties, resamples, np.random.default_rng(seed))
    low, high = np.percentile(strengths(again + drawn, tolerance=1e-6), (2.5, 97.5), axis=0)
    rows = []
    for name, i in place.items():
        own = [_points(vote) if vote.a == name else 1 - _points(vote) for vote in votes if name in (vote.a, vote.b)]
        low_i, middle, high_i = (float(MIDDLE + SCALE * value[i]) for value in (low, fitted, high))
        rows.append(Rating(name, middle, low_i, high_i, len(own), own.count(1.0), own.count(0.0)))
    return sorted(rows, key=lambda row: -row.rating)


def played_again(games: np.ndarray, fitted: np.ndarray, ties: float, times: int, rng: np.random.Generator) -> np.ndarray:
    """Tables of points (times, n, n) of as many games of each pair (n, n), of models as strong as `fitted` (n,).

    ties: the share of games that are drawn; the rest is won so often that the points are as expected.
    """
    n = len(fitted)
    first, second = np.triu_indices(n, 1)
    expected = 1 / (1 + np.exp(fitted[second] - fitted[first]))
    won = np.clip((expected - ties / 2) / max(1 - ties, 1e-9), 0, 1)
    counts = np.broadcast_to(games[first, second].round().astype(int), (times, len(first)))
    drawn = rng.binomial(counts, ties)
    points = rng.binomial(counts - drawn, won) + drawn / 2
    tables = np.zeros((times, n, n))
    tables[:, first, second], tables[:, second, first] = points, counts - points
    return tables


def _points(vote: Vote) -> float:
    """What a gets of a game."""
    return {"a": 1.0, "b": 0.0}.get(vote.outcome, 0.5)
