"""Stages of a run compared on the same problems: differences with paired intervals, a base in its best layout."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spoutnik.evals.comparison import paired
from spoutnik.evals.scores import by_problem, stratum
from spoutnik.files import read_jsonl
from spoutnik.recipe.artifacts import Artifact


@dataclass(frozen=True)
class Pair:
    """b against a in pass@1, shares in [-1, 1]. low, high: 95 % interval over problems. layout: in which a base was asked."""

    a: str
    b: str
    problems: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    layout: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether the difference is more than chance."""
        return self.low > 0 or self.high < 0


def best_layout(evaluation: dict) -> str:
    """The layout in which a base is right more often; "" for a model that converses."""
    if "as_textbook" not in evaluation:
        return ""
    return "textbook" if evaluation["as_textbook"]["accuracy"]["mean"] > evaluation["accuracy"]["mean"] else "forum"


def _grades(artifact: Artifact) -> tuple[dict, dict, str]:
    """Problem -> mean grade, and its stratum; the layout."""
    layout = best_layout(artifact.evaluation)
    path = artifact.evaluation_folder / "textbook.jsonl"
    rows = read_jsonl(path) if layout == "textbook" and path.exists() else artifact.samples
    groups = by_problem(row for row in rows if "problem" in row)  # evaluations of older code have none
    return ({key: float(np.mean([row["correct"] for row in group])) for key, group in groups.items()},
            {key: stratum(group[0]) for key, group in groups.items()}, layout)


def pair(a: Artifact, b: Artifact) -> Pair | None:
    """None where one is not evaluated, or not on the same problems."""
    if a.evaluation is None or b.evaluation is None:
        return None
    (before, strata, layout), (after, _, _) = _grades(a), _grades(b)
    if not before or before.keys() != after.keys():
        return None
    compared = paired([after[key] - before[key] for key in before], [strata[key] for key in before])
    return Pair(a.stage, b.stage, len(before), float(np.mean(list(before.values()))), float(np.mean(list(after.values()))),
                compared.difference, compared.low, compared.high, layout)


def paired_with_start(artifacts: Sequence[Artifact]) -> list[Pair]:
    """Every stage against the one whose model it began with."""
    known = {artifact.stage: artifact for artifact in artifacts}
    pairs = [pair(known[start], artifact) for artifact in artifacts
             if (start := artifact.inputs.get("start")) in known and artifact.evaluation is not None]
    return [each for each in pairs if each is not None]


def paired_with_root(artifacts: Sequence[Artifact]) -> list[Pair]:
    """Every stage against the base that it descends from, where that is not its own start."""
    known, pairs = {artifact.stage: artifact for artifact in artifacts}, []
    for artifact in artifacts:
        root = artifact
        while (start := root.inputs.get("start")) in known:
            root = known[start]
        if root is not artifact and artifact.inputs.get("start") != root.stage and artifact.kind != "midtrain":
            pairs.append(pair(root, artifact))
    return [each for each in pairs if each is not None]
