"""Findings decided: paired differences over seeds and problems, intervals, verdicts that hold together (Holm), and power."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spoutnik.errors import UserError
from spoutnik.evals.statistics import CrossedMean, crossed_mean, holm, seeds_needed, standard_error
from spoutnik.experiment.grid import Grid
from spoutnik.experiment.measures import Measured, better_layout, measure, metric_of
from spoutnik.experiment.schema import Claim, FindingSettings
from spoutnik.experiment.store import Store
from spoutnik.recipe.artifacts import Artifact
from spoutnik.train.loop import Cost

ALPHA, POWER = 0.05, 0.8
HOLDS, DOES_NOT, UNDECIDED = "holds", "does not", "undecided"


@dataclass(frozen=True)
class SeedResult:
    """One seed's two sides, in the metric's unit, and the core-seconds that were spent on each side's model and on what it
    was made from."""

    seed: int
    a: float
    b: float
    core_seconds_a: float
    core_seconds_b: float


@dataclass(frozen=True)
class Decided:
    """A finding with its numbers, in the metric's unit; nan where there are none.

    low, high: 95 % interval of the difference b - a over seeds and problems. p: of the verdict that is nearer, before the
    correction for several findings; p_adjusted: after it. models: how many pairs of models the seeds gave that differ.
    seed_deviation: of the seeds' differences. reason: why it is undecided.
    """

    name: str
    settings: FindingSettings
    seeds: tuple[SeedResult, ...] = ()
    models: int = 0
    problems: int = 0
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seed_deviation: float = math.nan
    problem_error: float = math.nan
    p: float = 1.0
    p_adjusted: float = 1.0
    leaning: str = UNDECIDED
    verdict: str = UNDECIDED
    reason: str = ""
    layouts: tuple[str, str] = ("", "")

    @property
    def means(self) -> tuple[float, float]:
        return tuple(float(np.mean([getattr(one, side) for one in self.seeds])) if self.seeds else math.nan for side in "ab")

    @property
    def core_seconds(self) -> tuple[float, float]:
        """Of each side, a seed's mean."""
        return tuple(float(np.mean([getattr(one, f"core_seconds_{side}") for one in self.seeds])) if self.seeds else math.nan
                     for side in "ab")


def decide(grid: Grid, store: Store, failed: Mapping[str, str]) -> list[Decided]:
    """All findings. failed: symbol -> sentence of the jobs that failed.

    Raises:
        UserError: a finding compares what its stages do not have.
    """
    found = [_measured(name, grid, store, failed) for name in grid.findings]
    adjusted = holm([one.p for one in found])
    return [_with_verdict(one, p, len(found)) for one, p in zip(found, adjusted, strict=True)]


def _measured(name: str, grid: Grid, store: Store, failed: Mapping[str, str]) -> Decided:
    """The finding without its verdict."""
    finding = grid.findings[name]
    missing = [(seed, symbol) for seed in grid.seeds_of[name] for side in finding.sides
               for symbol in grid.measured[name, side, seed] if symbol and symbol not in store.artifacts]
    if missing:
        seed, symbol = missing[0]
        why = failed.get(symbol, "is not made yet")
        seeds = ", ".join(map(str, sorted({seed for seed, _ in missing})))
        return Decided(name, finding, reason=f"seed {seeds} is missing ({grid.jobs[symbol].title}: {why}): without it the "
                                             "others would be a choice. Mend it and run the same command again.")
    sides = {side: [_artifact(grid, store, name, side, seed) for seed in grid.seeds_of[name]] for side in finding.sides}
    layouts = {side: better_layout(sides[side]) if asked.layout == "best" else asked.layout
               for side, (asked, _) in finding.sides.items()}
    measured = {side: [measure(metric, artifact, layouts[side]) for artifact in sides[side]]
                for side, (_, metric) in finding.sides.items()}
    seeds = tuple(SeedResult(seed, a.mean, b.mean, _spent(grid, store, name, "a", seed), _spent(grid, store, name, "b", seed))
                  for seed, a, b in zip(grid.seeds_of[name], measured["a"], measured["b"], strict=True))
    pairs = [(a.content, b.content) for a, b in zip(sides["a"], sides["b"], strict=True)]
    differences, strata = _differences(name, measured["a"], measured["b"])
    of_models = np.array([np.mean([row for pair, row in zip(pairs, differences) if pair == one], axis=0)
                          for one in dict.fromkeys(pairs)])
    result = Decided(name, finding, seeds, len(of_models), of_models.shape[1] if strata else 0, float(of_models.mean()),
                     layouts=(layouts["a"], layouts["b"]))
    if len(of_models) < 2 and of_models.shape[1] < 2:
        return replace(result, reason="one number has no interval: give more seeds.")
    crossed = _never_certain(crossed_mean(of_models, strata), of_models, strata, metric_of(finding.metric).factor)
    _, low, high = crossed.interval()
    leaning, p = leaning_of(crossed, finding.claim, finding.margin)
    if len(of_models) < 2:
        p = 1.0
    return replace(result, low=low, high=high, seed_deviation=crossed.seed_deviation, problem_error=crossed.problem_error,
                   p=p, leaning=leaning)


def _artifact(grid: Grid, store: Store, finding: str, side: str, seed: int) -> Artifact:
    made, evaluated = grid.measured[finding, side, seed]
    return store.artifacts[evaluated or made]


def _spent(grid: Grid, store: Store, finding: str, side: str, seed: int) -> float:
    """Core-seconds of a side's stage and of all stages before it."""
    made, _ = grid.measured[finding, side, seed]
    return sum((store.artifacts[symbol].cost for symbol in grid.below(made)), Cost()).core_seconds


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
    return replace(crossed, error=error, freedom=freedom, problem_error=error)


def leaning_of(crossed: CrossedMean, claim: Claim, margin: float) -> tuple[str, float]:
    """The verdict to which the numbers lean, and its p-value.

    higher, lower: holds where the difference is refuted to be 0 (two-sided t); does not where a difference of `margin` or more
    in the claimed direction is refuted. equal: holds where both "as far as `margin` above" and "below" are refuted (TOST,
    Schuirmann 1987); does not where "within the margin" is. At most one of the two can be true of a finding.
    """
    if claim == "equal":
        holds = max(crossed.p_above(-margin), crossed.p_below(margin))
        against = min(crossed.p_above(margin), crossed.p_below(-margin))
    else:
        above, below = (crossed.p_above, crossed.p_below) if claim == "higher" else (
            lambda bound: crossed.p_below(-bound), lambda bound: crossed.p_above(-bound))
        holds, against = min(1.0, 2 * above(0.0)), below(margin)
    return (HOLDS, holds) if holds <= against else (DOES_NOT, against)


def _with_verdict(one: Decided, p_adjusted: float, findings: int) -> Decided:
    if one.reason:
        return one
    one = replace(one, p_adjusted=p_adjusted)
    if one.models > 1 and p_adjusted < ALPHA:
        return replace(one, verdict=one.leaning)
    return replace(one, reason=_what_it_would_take(one, findings))


def _what_it_would_take(one: Decided, findings: int) -> str:
    unit, margin = metric_of(one.settings.metric).unit, one.settings.margin
    effect = f"a difference of {margin:g}{f' {unit}' if unit else ''}"
    if one.models < 2:
        if len(one.seeds) > 1:
            return ("all seeds share these very models, so that nothing is known of other ones: give the stages that differ no "
                    "seed of their own.")
        return "a single seed says nothing of other ones: give at least three."
    needed = seeds_needed(one.seed_deviation, one.problem_error, margin, ALPHA / findings, POWER)
    if needed is not None:
        more = f"some {max(needed, one.models + 1)} seeds" if needed > one.models else (
            f"{one.models} seeds, which are there, would usually show it: more of them would decide")
        return (f"not shown either way (p = {one.p_adjusted:.2g} with the correction). To see {effect} in {POWER:.0%} of "
                f"cases, with seeds that differ by {one.seed_deviation:.2g}, takes {more}.")
    factor = (one.problem_error * 4 / margin) ** 2 if margin else math.inf
    return (f"not shown either way. No number of seeds shows {effect} on {one.problems:,} problems (standard error "
            f"{one.problem_error:.2g}): some {math.ceil(factor * one.problems):,} problems would be needed.")
