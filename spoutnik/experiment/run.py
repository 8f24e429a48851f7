"""The run of an experiment: what is missing is made, then the findings are decided and the page is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.experiment.forecast import predicted_core_seconds
from spoutnik.experiment.grid import Grid, build_grid, check_grid
from spoutnik.experiment.page import WRITTEN_BY, Page
from spoutnik.experiment.scheduler import Watcher, failures, run_jobs
from spoutnik.experiment.store import Store
from spoutnik.experiment.verdicts import Decided, decide
from spoutnik.files import read_json, write_text
from spoutnik.recipe.artifacts import code_version
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.shipped import experiment_name

Seconds = dict[str, float]  # symbol of a job -> core-seconds


@dataclass(frozen=True)
class Forecast:
    """What an experiment would do. seconds: of the jobs that are not done yet. at_once: jobs at one time."""

    grid: Grid
    store: Store
    seconds: Seconds
    at_once: int

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
    page: Path
    findings: list[Decided]
    failed: dict[str, str]
    error: RunError | None


def forecast(paths: Sequence[Path], out: Path, at_once: int, say: Callable[[str], None] = lambda text: None) -> Forecast:
    """Reads, checks and predicts; makes nothing.

    Raises:
        UserError: exactly where running would.
    """
    grid = build_grid(paths)
    run = RunFolder(out)
    run.refuse_foreign()
    store = Store(run, grid)
    store.look_around()
    check_grid(grid, store.artifacts, say)
    return Forecast(grid, store, predicted_core_seconds(grid, set(store.artifacts)), at_once)


def run_experiment(planned: Forecast, paths: Sequence[Path], watcher: Watcher, page: Path | None = None,
                   mixed_code: bool = False) -> Result:
    """Makes what is missing and writes the page, which stands even where jobs failed: `error` says which.

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
        refuse_other_page(page, grid.names)
        for path in paths:
            write_text(run.path / "experiments" / path.name, path.read_text("utf-8-sig"))
        failed = run_jobs(store, planned.seconds, watcher, planned.at_once)
        findings = decide(grid, store, failed)
        note = store.refuse_other_code(version, True)
        command = "spoutnik experiment " + " ".join(map(experiment_name, paths))
        Page(grid, store, findings, failed, command, version, [note] if note else []).write(page)
    return Result(page, findings, failed, failures(failed, grid.jobs))


def refuse_other_page(page: Path, names: Sequence[str]) -> None:
    """Artifacts of several experiments may share a folder; a page is of the experiments that it was written for.

    Raises:
        UserError: a page of others, or somebody's own text, which would be lost; or no file can be written there.
    """
    data = page.with_suffix(".json")
    if page.is_dir() or page.suffix == ".json":
        raise UserError(f"--page {page}: must name a file of Markdown, such as findings.md; figures and JSON are written "
                        "beside it.")
    if not data.exists():
        if page.exists() and WRITTEN_BY not in page.read_text("utf-8", "replace"):
            raise UserError(f"{page}: is not an experiment's page, and would be replaced. Give another page (--page).")
        return
    content = read_json(data)
    if not isinstance(content, dict) or not isinstance(content.get("experiments"), list):
        raise UserError(f"{data}: is not of an experiment's page, and would be replaced. Give another page (--page).")
    lost = [str(name) for name in content["experiments"] if name not in names]
    if lost:
        raise UserError(f"{page}: is the page of {', '.join(lost)}, and this is {', '.join(names)}. Give another page "
                        f"(--page), another folder (--out), or {lost[0]}'s file as well.")
