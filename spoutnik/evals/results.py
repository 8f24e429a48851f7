"""An evaluation's result: scores with intervals, what was cut or could not be read, and all that is needed to repeat it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from spoutnik.evals.samples import Sample
from spoutnik.evals.statistics import mean_interval

FILE = "evaluation.json"
MANY = 0.05  # a larger share of replies that were cut, or without an answer, decides more than the model does


def by_problem(samples: Iterable[Sample]) -> list[list[Sample]]:
    """The samples of each problem, in the order in which the problems first come."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.problem].append(sample)
    return list(groups.values())


def pass_at_1(samples: Sequence[Sample], grade: Callable[[Sample], float] = lambda sample: sample.correct) -> dict[str, float]:
    """The mean over problems of their samples' means, with its 95 % interval; the problem is the unit."""
    means = [sum(map(grade, group)) / len(group) for group in by_problem(samples)]
    mean, low, high = mean_interval(means)
    return {"mean": mean, "low": low, "high": high, "problems": len(means), "samples": len(samples)}


def shares(samples: Sequence[Sample]) -> dict[str, float]:
    """Of replies that were cut, well-formed, without an answer that can be read; and mean lengths in tokens."""
    count = max(len(samples), 1)
    return {"truncated": sum(not sample.finished for sample in samples) / count,
            "without_answer": sum(not sample.answered for sample in samples) / count,
            "well_formed": sum(sample.well_formed for sample in samples) / count,
            "verifier_errors": sum(sample.verifier_error is not None for sample in samples) / count,
            "tokens": sum(sample.tokens for sample in samples) / count,
            "thought_tokens": sum(sample.thought_tokens for sample in samples) / count}


def warnings(name: str, of: dict[str, float], limit: int) -> list[str]:
    """Sentences on what makes a score say less than it seems to."""
    texts = []
    if of["truncated"] > MANY:
        texts.append(f"{name}: {of['truncated']:.1%} of the replies were cut at the limit of {limit} tokens (or the model's "
                     "positions) and count as wrong. Raise --max-tokens, or read the score as one under this limit.")
    if of["without_answer"] - of["truncated"] > MANY:
        texts.append(f"{name}: {of['without_answer']:.1%} of the replies hold no answer that can be read, "
                     f"{of['truncated']:.1%} because they were cut. Look at samples.jsonl: the style or the prompt may not "
                     "suit the model.")
    if of["verifier_errors"]:
        texts.append(f"{name}: the verifier failed on {of['verifier_errors']:.2%} of the replies, which count as wrong; "
                     "samples.jsonl says with what (verifier_error).")
    return texts
