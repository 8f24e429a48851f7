"""The results of a grid's experiments, from what lies in its store."""

from collections.abc import Mapping

import numpy as np

from spoutnik.experiment.figures import Line, draw_curves
from spoutnik.experiment.grid import Grid
from spoutnik.experiment.measured import measured_finding
from spoutnik.experiment.page_file import figure_of_training
from spoutnik.experiment.results import ExperimentResults, Spent
from spoutnik.experiment.store import PREBUILT, Store
from spoutnik.recipe.report_plots import RL_PANELS, curve_of

_CURVES = ("accuracy", "thought_tokens", "reflections", "entropy")  # of the training logs, drawn for all variants

Curves = dict[str, str]  # file name -> figure


def collect(grid: Grid, store: Store, failed: Mapping[str, str], code: str) -> tuple[list[ExperimentResults], Curves]:
    """The results of each experiment, and the figures of their training, which cannot be drawn again without the artifacts.

    Args:
        failed: symbol -> sentence of the jobs that failed.
        code: version that measures.

    Raises:
        UserError: a finding compares what its stages do not have.
    """
    results, figures = [], {}
    for name, experiment in grid.experiments.items():
        jobs = _jobs(grid, name)
        curves = {stage: draw_curves(panels) for stage, panels in _curves(grid, store, name).items()}
        findings = tuple(measured_finding(finding, grid, store, failed) for finding in experiment.settings.findings)
        without = {grid.jobs[symbol].title: failed[symbol] for symbol in jobs if symbol in failed}
        results.append(ExperimentResults(name, experiment.file, experiment.about, tuple(experiment.seeds),
                                         _shared(grid, name, jobs), code, tuple(sorted(store.versions(jobs))), without,
                                         _bill(store, jobs), tuple(curves), findings))
        figures |= {figure_of_training(results[-1], stage): figure for stage, figure in curves.items()}
    return results, figures


def _jobs(grid: Grid, experiment: str) -> list[str]:
    """The symbols of all that an experiment's findings stand on, each after what it needs; in an order of the experiment's own,
    whatever others the grid has."""
    needed: dict[str, None] = {}

    def add(symbol: str) -> None:
        for need in grid.jobs[symbol].needs.values():
            add(need)
        needed.setdefault(symbol)

    for (finding, _, _), (made, evaluated) in grid.measured.items():
        if finding in grid.experiments[experiment].settings.findings:
            add(evaluated or made)
    return list(needed)


def _shared(grid: Grid, experiment: str, jobs: list[str]) -> tuple[str, ...]:
    """The stages that are one artifact in several seeds."""
    seeds: dict[str, set[int]] = {}
    for (finding, _, seed), (made, _) in grid.measured.items():
        if finding in grid.experiments[experiment].settings.findings:
            for symbol in grid.below(made):
                seeds.setdefault(symbol, set()).add(seed)
    shared = [symbol for symbol in jobs if len(seeds.get(symbol, ())) > 1]
    return tuple(dict.fromkeys(grid.jobs[symbol].stage for symbol in shared))


def _bill(store: Store, jobs: list[str]) -> tuple[Spent, ...]:
    """Each artifact and each evaluation once, under however many symbols it is known."""
    bill: dict[str, Spent] = {}
    for symbol in jobs:
        if symbol not in store.artifacts:
            continue
        artifact = store.artifacts[symbol]
        if store.grid.jobs[symbol].evaluates:
            folder, purpose, cost = artifact.evaluation_folder, "evaluating", artifact.evaluation_cost
        else:
            purpose = "shipped" if store.origins[symbol] == PREBUILT else "making"
            folder, cost = artifact.folder, artifact.cost
        bill.setdefault(str(folder), Spent(purpose, folder.name, cost))
    return tuple(bill.values())


def _curves(grid: Grid, store: Store, experiment: str) -> dict[str, dict[str, list[Line]]]:
    """Of each RL stage that findings compare: signal -> a line for each variant, over its seeds."""
    logs: dict[tuple[str, str], dict[int, list[dict]]] = {}
    for (name, side, seed), (made, _) in grid.measured.items():
        if name in grid.experiments[experiment].settings.findings:
            asked, _ = grid.findings[name].sides[side]
            if made in store.artifacts and store.artifacts[made].kind == "grpo":
                logs.setdefault((asked.stage, asked.variant), {})[seed] = store.artifacts[made].log
    stages: dict[str, dict[str, list[Line]]] = {}
    for (stage, variant), of_seeds in logs.items():
        for key, title, factor in RL_PANELS:
            curves = [curve for log in of_seeds.values() if (curve := curve_of(log, key, factor)) is not None]
            if key in _CURVES and curves and len(curves) == len(of_seeds) and len({len(one.steps) for one in curves}) == 1:
                line = Line(variant, curves[0].steps, np.stack([curve.smooth for curve in curves]))
                stages.setdefault(stage, {}).setdefault(title, []).append(line)
    return stages
