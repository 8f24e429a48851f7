"""What findings compare: a number of each problem's samples, or one number of a stage, by the metric's name."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from spoutnik.errors import UserError
from spoutnik.evals.saved import Row, read_rows
from spoutnik.evals.scores import best_of, by_problem, stratum, vote_share
from spoutnik.recipe.artifacts import Artifact
from spoutnik.tasks.language import language_consistency, reflection_count
from spoutnik.validation import did_you_mean

Rows = Sequence[Row]


@dataclass(frozen=True)
class Metric:
    """title: what is measured, with its unit. factor: from what is measured to that unit. of_samples: of one problem's samples;
    None where the metric is of the whole stage. per: where it is a rate, of what: the sum of `of_samples` over all problems is
    divided by the sum of this, so that problems in which there is nothing of it (no thought) do not count as a rate of 0."""

    title: str
    factor: float = 1.0
    of_samples: Callable[[Rows], float] | None = None
    unit: str = ""
    per: Callable[[Rows], float] | None = None

    @property
    def per_problem(self) -> bool:
        return self.of_samples is not None


def _mean(value: Callable[[Row], float]) -> Callable[[Rows], float]:
    return lambda rows: float(np.mean([value(row) for row in rows]))


def _reflections(row: Row) -> float:
    return reflection_count(row["thought"])


def _thinks(row: Row) -> float:
    return float(bool(row["thought"].strip()))


def _tokens(row: Row) -> float:
    return row["thought_tokens"]


def _share(title: str, value: Callable[[Row], float]) -> Metric:
    return Metric(f"{title}, %", 100, _mean(value), "points")


METRICS = {
    "accuracy": _share("right answers (pass@1)", lambda row: row["correct"]),
    "dialogues": _share("right answers to questions with earlier turns", lambda row: row["correct"]),
    "well_formed": _share("well-formed replies", lambda row: float(row["well_formed"])),
    "truncated": _share("replies that were cut", lambda row: float(not row["finished"])),
    "language": _share("words of a reply in the language of the question",
                       lambda row: language_consistency(row["thought"] + " " + row["answer"], row["language"])),
    "reflecting": _share("thoughts that check, doubt or retry", lambda row: float(_reflections(row) > 0)),
    "thinking": _share("replies with a thought", _thinks),
    "thought_tokens": Metric("thought tokens per reply (0 without a thought)", 1, _mean(_tokens), "tokens"),
    "tokens_per_thought": Metric("tokens per thought", 1, _mean(_tokens), "tokens", _mean(_thinks)),
    "reflections": Metric("reflection words per reply", 1, _mean(_reflections), "words"),
    "reflections_per_100_tokens": Metric("reflection words per 100 thought tokens", 100, _mean(_reflections), "words",
                                         _mean(_tokens)),
    "helpfulness": Metric("answers to general prompts, by the rubric, %", 100, None, "points"),
    "core_seconds": Metric("core-seconds of the stage", 1, None, "core-seconds"),
}
_WITH_K = ("pass", "cons")
_SHARES = ("accuracy", "well_formed", "truncated", "zero_variance", "clipped", "validation_accuracy", "language")
_OF_LOG = {"log": "at the end of training", "area": "mean over all of training", "made": "of the stage"}


def check_metric(name: str) -> str:
    """The name. Raises ValueError where there is no such metric."""
    kind, _, k = name.partition("@")
    if name in METRICS or name.partition(".")[0] in _OF_LOG and name.partition(".")[2]:
        return name
    if kind in _WITH_K and k.isdigit() and int(k) > 1:
        return name
    raise ValueError(f"there is no metric '{name}'.{did_you_mean(name, METRICS)} There are {', '.join(METRICS)}, pass@K, "
                     "cons@K, of the training log log.KEY and area.KEY, and of the manifest made.KEY")


def metric_of(name: str) -> Metric:
    """Of a name that `check_metric` takes."""
    kind, _, k = name.partition("@")
    if kind == "pass":
        return Metric(f"problems solved in {k} tries (pass@{k}), %", 100,
                      lambda rows: best_of(int(k), [row["correct"] for row in rows]), "points")
    if kind == "cons":
        return Metric(f"majority of {k} right (cons@{k}), %", 100,
                      lambda rows: vote_share(rows, int(k), None, np.random.default_rng(0)), "points")
    source, _, key = name.partition(".")
    if name in METRICS:
        return METRICS[name]
    title, is_share = f"{key.replace('_', ' ')} {_OF_LOG[source]}", key in _SHARES
    return Metric(f"{title}, %", 100, None, "points") if is_share else Metric(title)


def least_samples(name: str) -> int:
    """How many samples of a problem a metric needs."""
    kind, _, k = name.partition("@")
    return int(k) + 1 if kind in _WITH_K and k else 1


def needs_evaluation(name: str) -> bool:
    """Whether a metric is read from an evaluation of the stage's model; else its log and manifest are enough."""
    return metric_of(name).per_problem or name == "helpfulness"


@dataclass(frozen=True)
class Measured:
    """One side of a finding with one seed, in the metric's unit. values: problem -> value; None of a whole stage."""

    mean: float
    values: dict[Hashable, float] | None = None
    strata: dict[Hashable, Hashable] | None = None


def measure(name: str, artifact: Artifact, layout: str) -> Measured:
    """artifact: with its evaluation, where the metric needs one. layout: of a base, "forum" or "textbook".

    Raises:
        UserError: the stage has no such number.
    """
    metric = metric_of(name)
    if not metric.per_problem:
        return Measured(metric.factor * _of_stage(name, artifact))
    file = {"dialogues": "dialogues.jsonl"}.get(name, "textbook.jsonl" if layout == "textbook" else "samples.jsonl")
    path = artifact.evaluation_folder / file
    if not path.exists():
        raise UserError(f"{artifact.stage}: its evaluation has no {file}: {name} in layout {layout} is not of a "
                        f"{artifact.kind} stage. Compare another metric or layout.")
    groups = by_problem(read_rows(path)[0])
    strata = {key: stratum(rows[0]) for key, rows in groups.items()}
    of_problems = np.array([metric.of_samples(rows) for rows in groups.values()])
    if metric.per is not None:
        of_problems = _linearised(of_problems, np.array([metric.per(rows) for rows in groups.values()]))
    of_problems = metric.factor * of_problems
    return Measured(float(of_problems.mean()), dict(zip(groups, of_problems.tolist(), strict=True)), strata)


def _linearised(counts: np.ndarray, of: np.ndarray) -> np.ndarray:
    """A number for each problem, whose mean is the rate sum(counts) / sum(of), and whose spread is that of the rate (Cochran's
    ratio estimator); nan where there is nothing of which it would be a rate."""
    if not of.sum():
        return np.full(len(of), np.nan)
    rate = counts.sum() / of.sum()
    return rate + (counts - rate * of) / of.mean()


def better_layout(artifacts: Sequence[Artifact]) -> str:
    """In which layout bases are right more often, over all of them."""
    def mean(*path: str) -> float:
        total = 0.0
        for artifact in artifacts:
            value = artifact.evaluation
            for key in path:
                value = value.get(key, {})
            total += value.get("mean", 0.0)
        return total

    return "textbook" if mean("as_textbook", "accuracy") > mean("accuracy") else "forum"


def _of_stage(name: str, artifact: Artifact) -> float:
    source, _, key = name.partition(".")
    if name == "core_seconds":
        return artifact.cost.core_seconds
    if name == "helpfulness":
        of = artifact.evaluation.get("helpfulness")
        if of is None:
            raise UserError(f"{artifact.stage}: a {artifact.kind} stage's model is not asked general prompts. Compare another "
                            "metric.")
        return (of["content"] + of["form"]) / 2
    if source == "made":
        metrics = artifact.manifest["metrics"]
        if key not in metrics:
            raise UserError(f"{artifact.stage}: its manifest has no metric '{key}', but {', '.join(metrics)}. Correct "
                            f"made.{key}.")
        return metrics[key]
    values = [row[key] for row in artifact.log if key in row]
    if not values:
        known = sorted({name for row in artifact.log for name in row})
        raise UserError(f"{artifact.stage}: its log has no '{key}', but {', '.join(known) or 'no rows'}. Correct {name}.")
    return float(np.mean(values if source == "area" else values[-max(1, len(values) // 10):]))
