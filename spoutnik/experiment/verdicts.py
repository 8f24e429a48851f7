"""Findings decided: paired differences over seeds and problems, intervals, verdicts that hold together, and power."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spoutnik.errors import UserError
from spoutnik.evals.statistics import CrossedMean, crossed_mean, seeds_needed, shaffer, standard_error
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
    """One seed's two sides, in the metric's unit; the core-seconds that were spent on each side's model and on all that it was
    made from; those of its own stage alone."""

    seed: int
    a: float
    b: float
    core_seconds_a: float
    core_seconds_b: float
    of_stage_a: float
    of_stage_b: float


@dataclass(frozen=True)
class Decided:
    """A finding with its numbers, in the metric's unit; nan where there are none.

    low, high: 95 % interval of the difference b - a over seeds and problems, of this finding alone. p_holds: of what is refuted
    where the finding holds, p_does_not: where it does not, before the correction for several findings; *_adjusted: after it.
    models: how many pairs of models the seeds gave that differ. seed_deviation: of the seeds' differences. remark: why it is
    undecided, or what else is shown.
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
    p_holds: float = 1.0
    p_does_not: float = 1.0
    p_holds_adjusted: float = 1.0
    p_does_not_adjusted: float = 1.0
    verdict: str = UNDECIDED
    remark: str = ""
    layouts: tuple[str, str] = ("", "")

    @property
    def means(self) -> tuple[float, float]:
        return self._means("a"), self._means("b")

    @property
    def p_adjusted(self) -> float:
        """Of the verdict; where it is undecided of the nearer one."""
        both = {HOLDS: self.p_holds_adjusted, DOES_NOT: self.p_does_not_adjusted}
        return both.get(self.verdict, min(both.values()))

    @property
    def core_seconds(self) -> tuple[float, float]:
        """Of each side with all before it, a seed's mean."""
        return self._means("core_seconds_a"), self._means("core_seconds_b")

    @property
    def of_stage(self) -> tuple[float, float]:
        """Core-seconds of each side's own stage, a seed's mean."""
        return self._means("of_stage_a"), self._means("of_stage_b")

    @property
    def alone(self) -> str:
        """The verdict if this were the only finding."""
        if self.models < 2:
            return UNDECIDED
        return HOLDS if self.p_holds < ALPHA else DOES_NOT if self.p_does_not < ALPHA else UNDECIDED

    def _means(self, of: str) -> float:
        return float(np.mean([getattr(one, of) for one in self.seeds])) if self.seeds else math.nan


def decide(grid: Grid, store: Store, failed: Mapping[str, str]) -> list[Decided]:
    """All findings. failed: symbol -> sentence of the jobs that failed.

    Raises:
        UserError: a finding compares what its stages do not have.
    """
    found = [_measured(name, grid, store, failed) for name in grid.findings]
    adjusted = shaffer([(one.p_holds, one.p_does_not) for one in found])
    return [_with_verdict(one, both, len(found)) for one, both in zip(found, adjusted, strict=True)]


def _measured(name: str, grid: Grid, store: Store, failed: Mapping[str, str]) -> Decided:
    """The finding without its verdict."""
    finding = grid.findings[name]
    missing = [(seed, symbol) for seed in grid.seeds_of[name] for side in finding.sides
               for symbol in grid.measured[name, side, seed] if symbol and symbol not in store.artifacts]
    if missing:
        seed, symbol = missing[0]
        why = failed.get(symbol, "is not made yet")
        seeds = ", ".join(map(str, sorted({seed for seed, _ in missing})))
        return Decided(name, finding, remark=f"seed {seeds} is missing ({grid.jobs[symbol].title}: {why}): without it the "
                                             "others would be a choice. Mend it and run the same command again.")
    sides = {side: [_artifact(grid, store, name, side, seed) for seed in grid.seeds_of[name]] for side in finding.sides}
    layouts = {side: better_layout(sides[side]) if asked.layout == "best" else asked.layout
               for side, (asked, _) in finding.sides.items()}
    measured = {side: [measure(metric, artifact, layouts[side]) for artifact in sides[side]]
                for side, (_, metric) in finding.sides.items()}
    seeds = tuple(SeedResult(seed, a.mean, b.mean, *_spent(grid, store, name, seed))
                  for seed, a, b in zip(grid.seeds_of[name], measured["a"], measured["b"], strict=True))
    result = Decided(name, finding, seeds, layouts=(layouts["a"], layouts["b"]))
    pairs = [(a.content, b.content) for a, b in zip(sides["a"], sides["b"], strict=True)]
    if any(math.isnan(one.mean) for both in measured.values() for one in both):
        return replace(result, remark="the models of a side have nothing to measure: not one of their replies has a thought.")
    differences, strata = _differences(name, measured["a"], measured["b"])
    of_models = np.array([np.mean([row for pair, row in zip(pairs, differences) if pair == one], axis=0)
                          for one in dict.fromkeys(pairs)])
    result = replace(result, models=len(of_models), problems=of_models.shape[1] if strata else 0,
                     difference=float(of_models.mean()))
    if len(of_models) < 2 and of_models.shape[1] < 2:
        return replace(result, remark="one number has no interval: give more seeds.")
    crossed = _never_certain(crossed_mean(of_models, strata), of_models, strata, metric_of(finding.metric).factor)
    _, low, high = crossed.interval()
    result = replace(result, low=low, high=high, seed_deviation=crossed.seed_deviation, problem_error=crossed.problem_error)
    if len(of_models) < 2:
        return result
    if crossed.error == 0:
        return replace(result, remark="the seeds agree to the last digit: nothing is known of how far others would lie.")
    holds, does_not = p_values_of(crossed, finding.claim, finding.margin)
    return replace(result, p_holds=holds, p_does_not=does_not)


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


def p_values_of(crossed: CrossedMean, claim: Claim, margin: float) -> tuple[float, float]:
    """The p-values of what is refuted where a finding holds, and of what is where it does not.

    higher, lower: it holds where "the difference is 0 or of the other sign" is refuted (two-sided t); it does not where "a
    difference of `margin` or more in the claimed direction" is. equal: it holds where both "`margin` or more above" and "below"
    are refuted (TOST, Schuirmann 1987); it does not where "within the margin" is (the smaller of two one-sided p-values,
    doubled). Of the two that could be refuted at most one is true.
    """
    if claim == "equal":
        return (max(crossed.p_above(-margin), crossed.p_below(margin)),
                min(1.0, 2 * min(crossed.p_above(margin), crossed.p_below(-margin))))
    if claim == "higher":
        return min(1.0, 2 * crossed.p_above(0.0)), crossed.p_below(margin)
    return min(1.0, 2 * crossed.p_below(0.0)), crossed.p_above(-margin)


def _with_verdict(one: Decided, adjusted: tuple[float, float], findings: int) -> Decided:
    if one.remark:
        return one
    one = replace(one, p_holds_adjusted=adjusted[0], p_does_not_adjusted=adjusted[1])
    holds, does_not = (p < ALPHA for p in adjusted)
    if holds and does_not:
        return replace(one, verdict=HOLDS, remark=f"but by less than {_amount(one)}, which is refuted as well.")
    if holds or does_not:
        return replace(one, verdict=HOLDS if holds else DOES_NOT)
    return replace(one, remark=_what_it_would_take(one, findings))


def _amount(one: Decided) -> str:
    """The margin with its unit."""
    return f"{one.settings.margin:g} {metric_of(one.settings.metric).unit}".rstrip()


def _what_it_would_take(one: Decided, findings: int) -> str:
    margin, effect = one.settings.margin, f"a difference of {_amount(one)}"
    if one.models < 2:
        if len(one.seeds) > 1:
            return ("all seeds share these very models, so that nothing is known of other ones: give the stages that differ no "
                    "seed of their own.")
        return "a single seed says nothing of other ones: give at least three."
    shown = (f"not shown either way (p = {one.p_adjusted:.2g} with the correction)." if one.alone == UNDECIDED else
             f"alone it would be '{one.alone}' (p = {min(one.p_holds, one.p_does_not):.2g}), which is not enough among "
             f"{findings} findings (p = {one.p_adjusted:.2g}).")
    needed = seeds_needed(one.seed_deviation, one.problem_error, margin, ALPHA / findings, POWER)
    if needed is not None:
        more = f"some {max(needed, one.models + 1)} seeds" if needed > one.models else (
            f"{one.models} seeds, which are there, would usually show it: more of them would decide")
        return (f"{shown} To see {effect} in {100 * POWER:g} % of cases, with seeds that differ by {one.seed_deviation:.2g}, "
                f"takes {more}.")
    factor = (one.problem_error * 4 / margin) ** 2 if margin else math.inf
    return (f"{shown} No number of seeds shows {effect} on {one.problems:,} problems (standard error "
            f"{one.problem_error:.2g}): some {math.ceil(factor * one.problems):,} problems would be needed.")
