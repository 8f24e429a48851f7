"""Sittings joined: one experiment measured on some seeds here and on others there, as if on all of them at once.

Of a sitting there are numbers alone, no samples: its artifacts may be gone, or lie on another machine.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spoutnik.evals.statistics import CrossedMean
from spoutnik.experiment.finding import Finding
from spoutnik.experiment.intervals import decided
from spoutnik.experiment.results import ExperimentResults


def joined(sittings: Sequence[ExperimentResults]) -> ExperimentResults:
    """Sittings of one experiment on different seeds, with the words of the last one."""
    if len(sittings) == 1:
        return sittings[0]
    last = sittings[-1]
    measured = {finding.name: [of for one in sittings for of in one.findings if of.name == finding.name]
                for finding in last.findings}
    return replace(
        last, seeds=tuple(sorted(seed for one in sittings for seed in one.seeds)), shared=_shared(sittings),
        code=", ".join(dict.fromkeys(one.code for one in sittings)),
        versions=tuple(sorted({version for one in sittings for version in one.versions})),
        failed={title: why for one in sittings for title, why in one.failed.items()},
        bill=tuple(spent for one in sittings for spent in one.bill),
        curves=tuple(dict.fromkeys(stage for one in sittings for stage in one.curves)),
        findings=tuple(joined_finding(parts) for parts in measured.values()))


def _shared(sittings: Sequence[ExperimentResults]) -> tuple[str, ...]:
    """The stages that are one artifact in several seeds: in those of one sitting, or in those of several."""
    names = [{spent.name for spent in one.bill if spent.purpose != "evaluating"} for one in sittings]
    across = [name.rpartition("-")[0] for number, each in enumerate(names) for name in sorted(each)
              if any(name in other for other in names[:number])]
    return tuple(dict.fromkeys([stage for one in sittings for stage in one.shared] + across))


def joined_finding(parts: Sequence[Finding]) -> Finding:
    """One finding on the seeds of several sittings.

    The seeds' part of the error is that of all their differences. The problems' part is that of the mean over all seeds, which
    is at most the mean of the sittings' own (Cauchy and Schwarz: as large as if each problem went the same way in every
    sitting), so that the interval is too wide rather than too narrow.
    """
    seeds = tuple(sorted((seed for part in parts for seed in part.seeds), key=lambda seed: seed.seed))
    result = replace(parts[-1], seeds=seeds, obstacle="", p_holds=1.0, p_does_not=1.0)
    if lacking := [part for part in parts if math.isnan(part.difference)]:
        return replace(lacking[0], seeds=seeds)
    if unlike := _unlike(parts):
        return replace(result, models=0, difference=math.nan, low=math.nan, high=math.nan, obstacle=unlike)
    differences: dict[str, list[float]] = {}
    for seed in seeds:
        differences.setdefault(seed.models, []).append(seed.b - seed.a)
    of_models = np.array([np.mean(each) for each in differences.values()])
    return decided(replace(result, models=len(of_models)), _over_models(of_models, parts))


def _over_models(differences: np.ndarray, parts: Sequence[Finding]) -> CrossedMean:
    errors: list[tuple[float, int]] = []
    deviation, problem_error = math.nan, 0.0
    if len(differences) > 1:
        deviation = float(differences.std(ddof=1))
        errors.append((deviation / math.sqrt(len(differences)), len(differences) - 1))
    if parts[0].problems:
        weights = [part.models for part in parts]
        problem_error = float(np.average([part.problem_error for part in parts], weights=weights))
        errors.append((problem_error, min(part.problem_freedom for part in parts)))
    return CrossedMean(float(differences.mean()), tuple(errors), len(differences), deviation, problem_error)


def _unlike(parts: Sequence[Finding]) -> str:
    """Why sittings cannot be joined, where only their numbers show it."""
    def seeds(part: Finding) -> str:
        return ", ".join(str(seed.seed) for seed in part.seeds)

    first = parts[0]
    for other in parts[1:]:
        if other.definition != first.definition:
            return (f"seeds {seeds(first)} and seeds {seeds(other)} were measured by other rules or settings. Run all seeds in "
                    "one sitting.")
        if (other.a.layout, other.b.layout) != (first.a.layout, first.b.layout):
            return (f"the better layout of a base was another on seeds {seeds(first)} than on seeds {seeds(other)}. Run all "
                    "seeds in one sitting, where one is chosen for all.")
        if other.problems != first.problems:
            return (f"seeds {seeds(first)} were asked {first.problems:,} problems, and seeds {seeds(other)} were asked "
                    f"{other.problems:,}. Run all seeds in one sitting.")
    return ""
