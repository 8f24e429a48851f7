"""Ratings of models from blind comparisons: Bradley and Terry's model (1952), by Hunter's MM algorithm (2004), on Elo's scale.

Model i beats model j with probability p_i / (p_i + p_j). A tie, or a vote that both are bad, is half a win for each.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

Outcome = Literal["a", "b", "tie", "bad"]
OUTCOMES: tuple[Outcome, ...] = ("a", "b", "tie", "bad")  # "bad": both are

SCALE, MEAN = 400 / np.log(10), 1000.0  # Elo's: 400 points are odds of ten to one; the models' mean is 1000
PRIOR = 1.0  # drawn games assumed between every two models: without them one win would be worth infinitely much
RESAMPLES = 1000


@dataclass(frozen=True)
class Vote:
    """a, b: the models that answered, as they were shown. outcome: which one was better."""

    a: str
    b: str
    outcome: Outcome


@dataclass(frozen=True)
class Rating:
    """A model's rating. low, high: its 95 % interval. wins, losses: without ties."""

    model: str
    rating: float
    low: float
    high: float
    games: int
    wins: int
    losses: int

    def as_json(self) -> dict:
        return {key: round(value, 1) if isinstance(value, float) else value for key, value in asdict(self).items()}


def fit_strengths(wins: np.ndarray, tolerance: float = 1e-9, max_iterations: int = 20_000) -> np.ndarray:
    """The maximum-likelihood log p, of mean 0.

    Args:
        wins: (..., n, n); [i, j] counts i's wins over j. Leading dimensions are fitted at once.

    Where some models never won against all the others the likelihood has no maximum; then only the order means something.
    """
    wins = np.asarray(wins, dtype=float)
    games = wins + np.swapaxes(wins, -1, -2)
    total_wins = wins.sum(-1)
    logs = np.zeros(total_wins.shape)
    for _ in range(max_iterations):
        p = np.exp(logs)
        expected = (games / (p[..., :, None] + p[..., None, :])).sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            new = np.log(total_wins / expected)
        new = np.clip(np.where(expected > 0, new, 0.0), -50, 50)
        new -= new.mean(-1, keepdims=True)
        if np.abs(new - logs).max(initial=0) < tolerance:
            return new
        logs = new
    return logs


def win_table(pairs: np.ndarray, scores: np.ndarray, models: int) -> np.ndarray:
    """wins (models, models), from pairs (votes, 2): who played, and scores (votes,): the first one's, 1, 0.5 or 0."""
    wins = np.zeros((models, models))
    np.add.at(wins, (pairs[:, 0], pairs[:, 1]), scores)
    np.add.at(wins, (pairs[:, 1], pairs[:, 0]), 1 - scores)
    return wins


def rate(votes: Sequence[Vote], resamples: int = RESAMPLES, seed: int = 0) -> list[Rating]:
    """The models of these votes, the best first. Votes of a model against itself are left out.

    The intervals come from a parametric bootstrap: the same games are simulated from the fitted model and rated. (To resample
    the votes themselves would call a single vote certain.)
    """
    votes = [vote for vote in votes if vote.a != vote.b]
    names = sorted({name for vote in votes for name in (vote.a, vote.b)})
    if not names:
        return []
    index = {name: number for number, name in enumerate(names)}
    wins = win_table(np.array([(index[vote.a], index[vote.b]) for vote in votes]), np.array([_score(vote) for vote in votes]),
                     len(names))
    assumed = PRIOR / 2 * (1 - np.eye(len(names)))
    fitted = fit_strengths(wins + assumed)
    tie_rate = sum(_score(vote) == 0.5 for vote in votes) / len(votes)
    simulated = simulate_games(wins + wins.T, fitted, tie_rate, resamples, np.random.default_rng(seed))
    low, high = np.percentile(fit_strengths(simulated + assumed, tolerance=1e-6), (2.5, 97.5), axis=0)
    rows = []
    for name, i in index.items():
        own = [_score(vote) if vote.a == name else 1 - _score(vote) for vote in votes if name in (vote.a, vote.b)]
        low_i, rating, high_i = (float(MEAN + SCALE * value[i]) for value in (low, fitted, high))
        rows.append(Rating(name, rating, low_i, high_i, len(own), own.count(1.0), own.count(0.0)))
    return sorted(rows, key=lambda row: -row.rating)


def simulate_games(games: np.ndarray, fitted: np.ndarray, tie_rate: float, times: int, rng: np.random.Generator) -> np.ndarray:
    """Win tables (times, n, n) of as many games of each pair, games (n, n), between models of log strength fitted (n,).

    tie_rate: the share of games that are ties; the rest is won so often that the expected scores are the model's.
    """
    n = len(fitted)
    first, second = np.triu_indices(n, 1)
    expected = 1 / (1 + np.exp(fitted[second] - fitted[first]))
    win_rate = np.clip((expected - tie_rate / 2) / max(1 - tie_rate, 1e-9), 0, 1)
    counts = np.broadcast_to(games[first, second].round().astype(int), (times, len(first)))
    ties = rng.binomial(counts, tie_rate)
    scores = rng.binomial(counts - ties, win_rate) + ties / 2
    tables = np.zeros((times, n, n))
    tables[:, first, second], tables[:, second, first] = scores, counts - scores
    return tables


def _score(vote: Vote) -> float:
    """Model a's score in a game."""
    return {"a": 1.0, "b": 0.0}.get(vote.outcome, 0.5)
