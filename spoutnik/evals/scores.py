"""Scores over saved samples: pass@1, pass@k, cons@k, what was cut or has no answer, lengths; each with its 95 % interval.

A score is {"mean", "low", "high", "problems", "samples"}. The problem is the unit of every interval, and problems of one
stratum (task, level, language, subject) resemble each other.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import comb

import numpy as np

from spoutnik.errors import UserError
from spoutnik.evals.saved import Row
from spoutnik.evals.statistics import amount_interval, mean_interval

REDRAWS = 400  # votes that are drawn of a problem's samples

Score = dict[str, float]
Equal = Callable[[str, str], bool]  # whether two answers say the same


def by_problem(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """The samples of each problem, by (task, problem), in the order in which the problems first come."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["task"]), str(row["problem"])), []).append(row)
    return groups


def stratum(row: Row) -> Hashable:
    """What the row's problem is one of."""
    return tuple(row.get(name) for name in ("task", "stratum", "level", "language"))


def mean_score(rows: Sequence[Row], value: Callable[[Row], float], bounded: bool = True) -> Score:
    """The mean over problems of a value's mean over their samples. bounded: it lies in [0, 1]."""
    groups = by_problem(rows)
    return _score(groups, [float(np.mean([value(row) for row in group])) for group in groups.values()], bounded)


def pass_at_1(rows: Sequence[Row]) -> Score:
    """The mean grade of a sample."""
    return mean_score(rows, lambda row: row["correct"])


def pass_at_k(rows: Sequence[Row], k: int) -> Score:
    """The chance that the best of k samples is right, without bias from n > k of each problem (Chen et al. 2021).

    Raises:
        UserError: a problem has not more than k samples.
    """
    groups = by_problem(rows)
    _need_more_than(k, groups, "pass")
    return _score(groups, [best_of(k, [row["correct"] for row in group]) for group in groups.values()])


def best_of(k: int, grades: Sequence[float]) -> float:
    """The expected largest of k grades drawn of n without replacement; for grades of 0 and 1, c of them 1, this is
    1 - C(n-c, k) / C(n, k)."""
    n = len(grades)
    return sum(grade * (comb(rank, k - 1) / comb(n, k)) for rank, grade in enumerate(sorted(grades)))


def consensus_at_k(rows: Sequence[Row], k: int, equal: Equal | None = None, seed: int = 0) -> Score:
    """The chance that the most frequent answer of k samples is right, from votes of k of the n > k samples of each problem.

    Samples without an answer do not vote; of equally frequent answers each wins as often.

    Args:
        equal: of two answers, for those that are wrong; without it they are equal as texts. Right answers equal the gold one.

    Raises:
        UserError: a problem has not more than k samples, or there is nothing that could be voted on.
    """
    groups = by_problem(rows)
    _need_more_than(k, groups, "cons")
    if not any(row.get("gold") for row in rows):
        raise UserError(f"cons@{k}: these problems have no gold answer, so their samples (programs, texts) cannot be voted on. "
                        "Ask for pass@1 or pass@k.")
    rng = np.random.default_rng(seed)
    return _score(groups, [vote_share(group, k, equal, rng) for group in groups.values()])


def answer_classes(rows: Sequence[Row], equal: Equal | None = None) -> list[int]:
    """The class of each sample's answer among equal ones, -1 for none; the right answers are class 0."""
    representatives: list[str] = []
    classes = []
    for row in rows:
        answer = row.get("extracted")
        if not row["answered"] or answer is None:
            classes.append(-1)
        elif row["correct"] == 1:
            classes.append(0)
        else:
            text = str(answer).strip()
            index = next((index for index, other in enumerate(representatives)
                          if text == other or (equal is not None and equal(other, text))), None)
            if index is None:
                index = len(representatives)
                representatives.append(text)
            classes.append(index + 1)
    return classes


def vote_share(rows: Sequence[Row], k: int, equal: Equal | None, rng: np.random.Generator) -> float:
    """Of one problem's samples, how often votes of k of them win with a right answer."""
    classes = np.array(answer_classes(rows, equal))
    count = int(classes.max()) + 1
    if count <= 0:
        return 0.0
    grades = np.array([np.mean([row["correct"] for row, one in zip(rows, classes) if one == index] or [0.0])
                       for index in range(count)])
    drawn = classes[rng.random((REDRAWS, len(rows))).argsort(axis=1)[:, :k]]
    votes = (drawn[:, :, None] == np.arange(count)).sum(axis=1)
    winners = (votes == votes.max(axis=1, keepdims=True)) & (votes > 0)
    return float(((winners * grades).sum(axis=1) / np.maximum(winners.sum(axis=1), 1)).mean())


def shares(rows: Sequence[Row]) -> dict[str, Score]:
    """Of replies that were cut (`truncated`) and that hold no answer (`without_answer`), and the mean `thought_tokens`."""
    return {"truncated": mean_score(rows, lambda row: float(not row["finished"])),
            "without_answer": mean_score(rows, lambda row: float(not row["answered"])),
            "thought_tokens": mean_score(rows, lambda row: row["thought_tokens"], bounded=False)}


def _score(groups: Mapping[tuple[str, str], Sequence[Row]], values: Sequence[float], bounded: bool = True) -> Score:
    strata = [stratum(group[0]) for group in groups.values()]
    mean, low, high = (mean_interval if bounded else amount_interval)(values, strata)
    return {"mean": mean, "low": low, "high": high, "problems": len(values), "samples": sum(map(len, groups.values()))}


def _need_more_than(k: int, groups: Mapping[tuple[str, str], Sequence[Row]], kind: str) -> None:
    if k < 1:
        raise UserError(f"{kind}@{k}: k must be at least 1.")
    fewest = min(map(len, groups.values()), default=0)
    if fewest <= k:
        problem = next((name for (_, name), group in groups.items() if len(group) == fewest), "no problem")
        raise UserError(f"{kind}@{k}: needs more than {k} samples of each problem, and {problem} has {fewest}. Sample more, or "
                        "choose a smaller k.")
