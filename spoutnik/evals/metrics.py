"""Everything that is told of an evaluation's saved samples, each number with its 95 % interval over problems."""

from collections.abc import Sequence

from spoutnik.evals.saved import Row
from spoutnik.evals.scores import Equal, Score, by_problem, consensus_at_k, pass_at_1, pass_at_k, shares
from spoutnik.evals.trust import abstention, calibration
from spoutnik.tasks.problem import Task


def metrics(rows: Sequence[Row], k: Sequence[int] = (), equal: Equal | None = None) -> dict[str, Score]:
    """The metrics of one benchmark's samples by their names.

    pass@1, truncated, without_answer, thought_tokens, abstained and accuracy_when_answering are always there; pass@k for each
    of `k`, with cons@k where the problems have a gold answer; brier and ece of the votes where each problem has two samples.

    Args:
        equal: whether two answers say the same, for votes; see `equality_of`.

    Raises:
        UserError: for a k that needs more samples than there are.
    """
    votable = any(row.get("gold") for row in rows)
    scores = {"pass@1": pass_at_1(rows)}
    for each in k:
        scores[f"pass@{each}"] = pass_at_k(rows, each)
        if votable:
            scores[f"cons@{each}"] = consensus_at_k(rows, each, equal)
    scores |= shares(rows)
    abstaining = abstention(rows)
    scores |= {"abstained": abstaining.share, "accuracy_when_answering": abstaining.accuracy}
    if votable and min(map(len, by_problem(rows).values())) > 1:
        of_votes = calibration(rows, equal)
        scores |= {"brier": of_votes.brier, "ece": of_votes.ece}
    return scores


def equality_of(task: Task) -> Equal | None:
    """How two answers to a task are compared, where it says so; else they are compared as texts."""
    return getattr(task, "same", None)
