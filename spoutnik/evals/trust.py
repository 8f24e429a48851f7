"""How far answers can be trusted: whether agreement of the samples tells what is right, what happens where a model says that it
does not know, and what a harmless rewording changes. Over saved samples, each number with its 95 % interval.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spoutnik.errors import UserError
from spoutnik.evals.comparison import Comparison, paired
from spoutnik.evals.saved import Row
from spoutnik.evals.scores import Equal, Score, answer_classes, by_problem, mean_score, stratum
from spoutnik.evals.statistics import bootstrap_interval, mean_interval
from spoutnik.tasks.abstention import abstains

BINS = 5


@dataclass(frozen=True)
class Bin:
    """Problems of like agreement. confidence: their mean agreement; accuracy: the share of their votes that is right."""

    problems: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Whether agreement is confidence.

    brier: the mean squared distance of agreement from right or wrong (0 is best, 0.25 is what "half" always gives). ece: the
    mean distance of confidence from accuracy over bins of equally many problems; chance alone makes it positive, the more so
    the fewer problems there are, so the Brier score is the one to compare.
    """

    brier: Score
    ece: Score
    bins: list[Bin]


def calibration(rows: Sequence[Row], equal: Equal | None = None) -> Calibration:
    """Of the votes: a problem's confidence is the share of its samples, answered or not, with its most frequent answer.

    Raises:
        UserError: a problem has a single sample, whose agreement with itself says nothing.
    """
    groups = list(by_problem(rows).values())
    if min(map(len, groups), default=0) < 2:
        raise UserError("calibration: needs at least 2 samples of each problem, better 8 or more. Sample more.")
    votes = [_vote(group, equal) for group in groups]
    confidence, right = np.array([vote[0] for vote in votes]), np.array([vote[1] for vote in votes])
    squared = list((confidence - right) ** 2)
    brier = _named(mean_interval(squared, [stratum(group[0]) for group in groups]), len(groups), len(rows))
    bins = min(BINS, len(groups))
    ece = bootstrap_interval(len(groups), lambda drawn: _ece(confidence[drawn], right[drawn], bins))
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return Calibration(brier, _named(ece, len(groups), len(rows)),
                       [Bin(len(part), float(confidence[part].mean()), float(right[part].mean())) for part in parts])


def _vote(rows: Sequence[Row], equal: Equal | None) -> tuple[float, float]:
    """(share of samples with the most frequent answer, its mean grade); of equally frequent ones the mean."""
    classes = answer_classes(rows, equal)
    counts = Counter(one for one in classes if one >= 0)
    if not counts:
        return 0.0, 0.0
    most = max(counts.values())
    winners = [one for one, count in counts.items() if count == most]
    grades = [row["correct"] for row, one in zip(rows, classes) if one in winners]
    return most / len(rows), float(np.mean(grades))


def _ece(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return float(sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts) / len(confidence))


@dataclass(frozen=True)
class Abstaining:
    """What happens where a model says that it does not know. share: of the samples. accuracy: of the others, nan where there
    are none; accuracy_overall: of all, abstaining counts as not right."""

    share: Score
    accuracy: Score
    accuracy_overall: Score


def abstention(rows: Sequence[Row]) -> Abstaining:
    """How often samples abstain, and how often they are right where they answer."""
    groups = list(by_problem(rows).values())
    answering = np.array([[not _abstained(row) for row in group].count(True) for group in groups], dtype=float)
    right = np.array([sum(row["correct"] for row in group if not _abstained(row)) for group in groups], dtype=float)

    def accuracy(drawn: np.ndarray) -> float:
        total = answering[drawn].sum()
        return float(right[drawn].sum() / total) if total else math.nan

    given = answering > 0
    shares = right[given] / answering[given]
    if given.any() and len(set(shares)) == 1:  # all right or all wrong: drawing them again would claim certainty
        interval = mean_interval(list(shares))
    else:
        interval = bootstrap_interval(len(groups), accuracy)
    return Abstaining(mean_score(rows, lambda row: float(_abstained(row))),
                      _named(interval, int(given.sum()), int(answering.sum())),
                      mean_score(rows, lambda row: 0.0 if _abstained(row) else row["correct"]))


def _abstained(row: Row) -> bool:
    return bool(row["well_formed"]) and abstains(str(row["answer"]))


@dataclass(frozen=True)
class Sensitivity:
    """What a harmless rewording changes. comparison: reworded against original, paired by problem. changed: the share of
    problems whose mean grade is on the other side of one half."""

    comparison: Comparison
    changed: Score


def sensitivity(original: Sequence[Row], reworded: Sequence[Row], pairs: Sequence[tuple[str, str]],
                margin: float | None = None) -> Sensitivity:
    """The effect of a rewording on the same problems.

    Args:
        pairs: (problem id of the original, of the reworded one); see spoutnik.evals.rewording.
        margin: a difference that would not matter, as a share.

    Raises:
        UserError: a problem has no samples.
    """
    means = [{name: (float(np.mean([row["correct"] for row in group])), group) for (_, name), group in by_problem(rows).items()}
             for rows in (original, reworded)]
    missing = [name for pair in pairs for name, known in zip(pair, means, strict=True) if name not in known]
    if missing or not pairs:
        raise UserError(f"rewording: {len(missing)} of {len(pairs)} problems have no samples"
                        f"{f' ({missing[0]})' if missing else ''}. Evaluate both wordings to the end.")
    before, after = ([known[name][0] for name in names] for known, names in zip(means, zip(*pairs, strict=True), strict=True))
    differences = [new - old for old, new in zip(before, after, strict=True)]
    strata = [stratum(means[0][name][1][0]) for name, _ in pairs]
    changed = [float((new >= 0.5) != (old >= 0.5)) for old, new in zip(before, after, strict=True)]
    return Sensitivity(paired(differences, strata, margin), _named(mean_interval(changed, strata), len(pairs), len(reworded)))


def _named(interval: tuple[float, float, float], problems: int, samples: int) -> Score:
    mean, low, high = interval
    return {"mean": mean, "low": low, "high": high, "problems": problems, "samples": samples}
