"""The run of an experiment: what is missing is made, then the findings are decided and the page is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import RunError
from spoutnik.experiment.collect import collect
from spoutnik.experiment.content import Page, page_of
from spoutnik.experiment.forecast import predicted_core_seconds
from spoutnik.experiment.grid import Grid, build_grid, check_grid
from spoutnik.experiment.page import write_page
from spoutnik.experiment.page_file import Planned, check_page, writing
from spoutnik.experiment.scheduler import Watcher, failures, run_jobs
from spoutnik.experiment.store import Store
from spoutnik.files import write_text
from spoutnik.recipe.artifacts import code_version
from spoutnik.recipe.folder import RunFolder

Seconds = dict[str, float]  # symbol of a job -> core-seconds


@dataclass(frozen=True)
class Forecast:
    """What an experiment would do. seconds: of the jobs that are not done yet. at_once: jobs at one time. join: what the page
    has on other seeds stays."""

    grid: Grid
    store: Store
    seconds: Seconds
    at_once: int
    join: bool

    @property
    def written(self) -> list[Planned]:
        """What goes to the page."""
        return [Planned(name, tuple(one.seeds), {finding: self.grid.definitions[finding] for finding in one.settings.findings})
                for name, one in self.grid.experiments.items()]

    @property
    def wall(self) -> float:
        """Seconds, where each core computes all the time."""
        longest: Seconds = {}
        for job in self.grid.jobs.values():
            before = max((longest[need] for need in job.needs.values()), default=0.0)
            longest[job.symbol] = before + self.seconds.get(job.symbol, 0.0)
        return max(sum(self.seconds.values()) / self.at_once, max(longest.values(), default=0.0))


@dataclass(frozen=True)
class Result:
    """page: where it was written. content: all of it, with what it had of other experiments."""

    page: Path
    content: Page
    failed: dict[str, str]
    error: RunError | None


def forecast(paths: Sequence[Path], out: Path, at_once: int, say: Callable[[str], None] = lambda text: None,
             seeds: Sequence[int] | None = None) -> Forecast:
    """Reads, checks and predicts; makes nothing. seeds: others than the files', to be joined with those of the page.

    Raises:
        UserError: exactly where running would.
    """
    grid = build_grid(paths, seeds)
    run = RunFolder(out)
    run.refuse_foreign()
    store = Store(run, grid)
    store.look_around()
    check_grid(grid, store.artifacts, say)
    return Forecast(grid, store, predicted_core_seconds(grid, set(store.artifacts)), at_once, seeds is not None)


def run_experiment(planned: Forecast, paths: Sequence[Path], watcher: Watcher, page: Path | None = None,
                   mixed_code: bool = False, add: bool = False) -> Result:
    """Makes what is missing and writes the page, which stands even where jobs failed: `error` says which.

    Args:
        add: keep what the page tells of other experiments, and of these on other seeds where such were asked for.

    Raises:
        UserError: results of another version of the code lie in the folder, or the page is another experiment's.
        RunError: another experiment works in it.
    """
    grid, run, version = planned.grid, planned.store.run, code_version()
    with run.lock():
        store = Store(run, grid)
        store.look_around()
        store.refuse_other_code(version, mixed_code)
        page = page or run.path / "findings.md"
        check_page(page, planned.written, add, planned.join)
        for path in paths:
            write_text(run.path / "experiments" / path.name, path.read_text("utf-8-sig"))
        failed = run_jobs(store, planned.seconds, watcher, planned.at_once)
        results, trainings = collect(grid, store, failed, version)
        with writing(page):
            before = check_page(page, planned.written, add, planned.join)  # others may have added to it meanwhile
            content = page_of(version, results) if before is None else before.with_results(results, version, planned.join)
            write_page(content, page, trainings, before)
    return Result(page, content, failed, failures(failed, grid.jobs))
