"""Core-seconds of an experiment's jobs, predicted as `spoutnik run --dry-run` predicts a recipe's stages."""

from collections.abc import Collection

from spoutnik.experiment.grid import Grid, Job
from spoutnik.recipe.plan import START_SECONDS, evaluation_core_seconds, making_core_seconds


def predicted_core_seconds(grid: Grid, done: Collection[str]) -> dict[str, float]:
    """Symbol -> core-seconds, of the jobs that are not done."""
    return {symbol: START_SECONDS + _seconds(job) for symbol, job in grid.jobs.items() if symbol not in done}


def _seconds(job: Job) -> float:
    work = evaluation_core_seconds if job.evaluates else making_core_seconds
    return work(job.recipe, job.stage, job.source)
