"""An evaluation's result: scores with intervals, what was cut or could not be read, and sentences where that is much."""

from collections.abc import Callable, Mapping, Sequence

from spoutnik.evals.samples import Sample
from spoutnik.evals.scores import Score, mean_score, pass_at_1

FILE = "evaluation.json"
MANY = 0.05  # a larger share of replies that were cut, or without an answer, decides more than the model does


def scores_of(samples: Sequence[Sample], names: tuple[str, str], by_task: bool,
              regrade: tuple[str, Callable[[Sample], float]] | None) -> dict[str, Score]:
    """pass@1 by name. names: of the bench and of the score. by_task: also of each task. regrade: a second score's name and its
    grade of a sample."""
    scores = {" ".join(names): pass_at_1([sample.row() for sample in samples])}
    if by_task:
        for task in dict.fromkeys(sample.task for sample in samples):
            scores[task] = pass_at_1([sample.row() for sample in samples if sample.task == task])
    if regrade is not None:
        name, grade = regrade
        scores[name] = mean_score([sample.row() | {"regraded": grade(sample)} for sample in samples],
                                  lambda row: row["regraded"])
    return scores


def shares_of(samples: Sequence[Sample]) -> dict[str, float]:
    """Of replies that were cut, well-formed, without an answer that can be read; and mean lengths in tokens."""
    count = max(len(samples), 1)
    return {"truncated": sum(not sample.finished for sample in samples) / count,
            "without_answer": sum(not sample.answered for sample in samples) / count,
            "well_formed": sum(sample.well_formed for sample in samples) / count,
            "verifier_errors": sum(sample.verifier_error is not None for sample in samples) / count,
            "tokens": sum(sample.tokens for sample in samples) / count,
            "thought_tokens": sum(sample.thought_tokens for sample in samples) / count}


def warnings(name: str, shares: Mapping[str, float], limit: int) -> list[str]:
    """Sentences on what makes a score say less than it seems to."""
    texts = []
    if shares["truncated"] > MANY:
        texts.append(f"{name}: {shares['truncated']:.1%} of the replies were cut at the limit of {limit:,} tokens (or at the "
                     "model's positions) and count as wrong. Raise --max-tokens, or read the score as one under this limit.")
    if shares["without_answer"] - shares["truncated"] > MANY:
        texts.append(f"{name}: {shares['without_answer']:.1%} of the replies hold no answer that can be read, "
                     f"{shares['truncated']:.1%} because they were cut. Look at samples.jsonl: the style or the prompt may not "
                     "suit the model.")
    if shares["verifier_errors"]:
        texts.append(f"{name}: the verifier failed on {shares['verifier_errors']:.2%} of the replies, which count as wrong; "
                     "samples.jsonl says with what (verifier_error).")
    return texts


