"""Findings measured: paired differences over seeds and problems, their intervals and p-values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from spoutnik.errors import UserError
from spoutnik.evals.statistics import CrossedMean, crossed_mean, standard_error
from spoutnik.experiment.finding import ComparedSide, Finding, SeedResult
from spoutnik.experiment.grid import Grid
from spoutnik.experiment.intervals import decided
from spoutnik.experiment.measures import Measured, better_layout, measure, metric_of
from spoutnik.experiment.store import Store
from spoutnik.experiment.variants import AS_IT_IS
from spoutnik.files import sha256_json
from spoutnik.recipe.artifacts import Artifact
from spoutnik.train.loop import Cost


def measured_finding(name: str, grid: Grid, store: Store, failed: Mapping[str, str]) -> Finding:
    """A finding without its verdict. failed: symbol -> sentence of the jobs that failed.

    Raises:
        UserError: it compares what its stages do not have.
    """
    result, asked = _asked(name, grid), grid.findings[name].sides
    experiment = grid.experiment_of(name)
    missing = [(seed, symbol) for seed in experiment.seeds for side in asked for symbol in grid.measured[name, side, seed]
               if symbol and symbol not in store.artifacts]
    if missing:
        seed, symbol = missing[0]
        why = failed.get(symbol, "is not made yet")
        seeds = ", ".join(map(str, sorted({seed for seed, _ in missing})))
        return replace(result, obstacle=f"seed {seeds} is missing ({grid.jobs[symbol].title}: {why}): without it the others "
                                        "would be a choice. Mend it and run the same command again.")
    sides = {side: [_artifact(grid, store, name, side, seed) for seed in experiment.seeds] for side in asked}
    layouts = {side: better_layout(sides[side]) if of.layout == "best" else of.layout for side, (of, _) in asked.items()}
    measured = {side: [measure(metric, artifact, layouts[side]) for artifact in sides[side]]
                for side, (_, metric) in asked.items()}
    models = [sha256_json([a.content, b.content])[:16] for a, b in zip(sides["a"], sides["b"], strict=True)]
    seeds = tuple(SeedResult(seed, of, float(a.mean), float(b.mean), *_spent(grid, store, name, seed))
                  for seed, of, a, b in zip(experiment.seeds, models, measured["a"], measured["b"], strict=True))
    result = replace(result, seeds=seeds, a=replace(result.a, layout=layouts["a"]), b=replace(result.b, layout=layouts["b"]))
    if any(math.isnan(one.mean) for both in measured.values() for one in both):
        return replace(result, obstacle="the models of a side have nothing to measure: not one of their replies has a thought.")
    return finding_of_differences(result, *_differences(name, measured["a"], measured["b"]))


def _asked(name: str, grid: Grid) -> Finding:
    """What a finding asks, without numbers."""
    settings, experiment = grid.findings[name], grid.experiment_of(name)
    metric = metric_of(settings.metric)
    a, b = (ComparedSide(side.variant, side.stage, own, metric_of(own).title) for side, own in settings.sides.values())
    return Finding(name, settings.question, settings.paper, settings.metric, metric.title, metric.unit, a, b, settings.claim,
                   settings.margin, _varied(name, grid), experiment.evaluation_of(settings).samples,
                   grid.definitions[name], settings.paper_number, settings.note)


def _varied(name: str, grid: Grid) -> str:
    """What differs between the two sides."""
    settings = grid.findings[name]
    a, b = settings.a, settings.b
    if a.variant == b.variant and a.stage == b.stage:
        return "how the same samples are read" if a.metric or b.metric else "the layout"
    if a.variant == b.variant:
        return f"the stage: {a.stage}, {b.stage}"
    words = {side.variant: grid.experiment_of(name).varied[side.variant] for side in (a, b)}
    parts = [f"{variant}: {what}" for variant, what in words.items() if what != AS_IT_IS]
    return "; ".join(parts) + (f" (stages {a.stage}, {b.stage})" if a.stage != b.stage else "")


def finding_of_differences(result: Finding, differences: np.ndarray, strata: list | None) -> Finding:
    """With interval and p-values, as far as the numbers give them.

    Args:
        result: with its seeds.
        differences: b - a, (seeds, problems); (seeds, 1) where strata is None, of whole stages.
        strata: of the problems.
    """
    pairs = [seed.models for seed in result.seeds]
    of_models = np.array([np.mean([row for pair, row in zip(pairs, differences) if pair == one], axis=0)
                          for one in dict.fromkeys(pairs)])
    result = replace(result, models=len(of_models), problems=of_models.shape[1] if strata else 0)
    if len(of_models) < 2 and of_models.shape[1] < 2:
        return decided(result, CrossedMean(float(of_models.mean()), (), 1, math.nan, 0.0))
    return decided(result, _never_certain(crossed_mean(of_models, strata), of_models, strata, metric_of(result.metric).factor))


def _artifact(grid: Grid, store: Store, finding: str, side: str, seed: int) -> Artifact:
    made, evaluated = grid.measured[finding, side, seed]
    return store.artifacts[evaluated or made]


def _spent(grid: Grid, store: Store, finding: str, seed: int) -> list[float]:
    """Core-seconds of each side's stage with all stages before it, and of each side's stage alone."""
    stages = [grid.measured[finding, side, seed][0] for side in "ab"]
    return [*(sum((store.artifacts[symbol].cost for symbol in grid.below(made)), Cost()).core_seconds for made in stages),
            *(store.artifacts[made].cost.core_seconds for made in stages)]


def _differences(name: str, a: Sequence[Measured], b: Sequence[Measured]) -> tuple[np.ndarray, list | None]:
    """b - a, (seeds, problems), with the problems' strata; (seeds, 1) and None where the metric is of whole stages."""
    if any(one.values is None for one in (*a, *b)):
        return np.array([[right.mean - left.mean] for left, right in zip(a, b, strict=True)]), None
    keys = list(a[0].values)
    if any(one.values.keys() != a[0].values.keys() for one in (*a, *b)):
        raise UserError(f"findings.{name}: its two sides were not asked the same problems, so that they cannot be paired. "
                        "Compare the same kind of metric on both.")
    rows = [[right.values[key] - left.values[key] for key in keys] for left, right in zip(a, b, strict=True)]
    return np.array(rows), [a[0].strata[key] for key in keys]


def _never_certain(crossed: CrossedMean, values: np.ndarray, strata: list | None, unit: float) -> CrossedMean:
    """Differences that all agree are no proof of certainty: as if one more problem had gone each way. unit: by how much; of
    shares all the way."""
    if crossed.error > 0 or strata is None:
        return crossed
    unit = max(unit, float(abs(values).max()))
    error, freedom = standard_error([*values.mean(axis=0), unit, -unit])
    return replace(crossed, parts=((error, freedom),), problem_error=error)
