"""An evaluation's result: scores with intervals, what was cut or could not be read, and sentences where that is much."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.evals.comparison import Comparison, compare, corrected
from spoutnik.evals.samples import Sample
from spoutnik.evals.scores import Score, mean_score, pass_at_1

FILE = "evaluation.json"
MANY = 0.05  # a larger share of replies that were cut, or without an answer, decides more than the model does


def scores_of(samples: Sequence[Sample], names: tuple[str, str], by_task: bool,
              regrade: tuple[str, Callable[[Sample], float]] | None, metrics: Mapping[str, Score]) -> dict[str, Score]:
    """Shares that are right by name. names: of the bench and of its pass@1. by_task: also of each task. regrade: a second
    score's name and its grade of a sample. metrics: of `spoutnik.evals.metrics`, whose pass@k and cons@k are told too."""
    scores = {" ".join(names): metrics["pass@1"]}
    scores |= {f"{names[0]} {name}": score for name, score in metrics.items()
               if name.startswith(("pass@", "cons@")) and name != "pass@1"}
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


def compare_folders(reference: Path, others: Sequence[Path], margin: float | None = None) -> tuple[list[Comparison], list[str]]:
    """Evaluations against one, bench by bench; their p-values are corrected together (Holm). A folder is one bench's, or one
    of several benches.

    Returns:
        the comparisons, and sentences on benches that are not in both.

    Raises:
        UserError: they have no bench in common, or were made otherwise; the sentence says what differs.
    """
    comparisons, notes = [], []
    for other in others:
        left, right = _benches(reference), _benches(other)
        if len(left) == len(right) == 1:  # whatever their folders' names are
            left, right = {name: folder for name in right for folder in left.values()}, right
        common = [name for name in left if name in right]
        if not common:
            raise UserError(f"{reference} and {other} have no benchmark in common: {', '.join(left)} and {', '.join(right)}. "
                            "Give two evaluations of the same benchmark.")
        notes += [f"{name}: only one of {reference} and {other} has it; left out."
                  for name in [*left, *right] if name not in common]
        for name in common:
            each = compare(left[name], right[name], margin)
            comparisons.append(replace(each, a=f"{each.a} ({name})", b=f"{each.b} ({name})") if len(common) > 1 else each)
    return corrected(comparisons), notes


def _benches(folder: Path) -> dict[str, Path]:
    """The folders of the benches in it by name; itself, where it is one bench's."""
    if (folder / FILE).exists():
        return {folder.resolve().name: folder}
    benches = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{FILE}"))}
    if not benches:
        raise UserError(f"{folder}: holds no evaluation. Give a folder that `spoutnik eval` wrote (evals/NAME, or one of a "
                        "benchmark in it).")
    return benches
