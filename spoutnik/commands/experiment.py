"""`spoutnik experiment`: a grid of variants and seeds, and what it decides."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, say
from spoutnik.commands.experiment_progress import GridProgress
from spoutnik.commands.options import Json
from spoutnik.units import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoutnik.experiment.results import ExperimentResults
    from spoutnik.experiment.run import Forecast, Result


def experiment(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The experiment's file, or the name of one that comes "
                                                "with the package (findings-rl). Of several, all findings are corrected "
                                                "together.")],
    out: Annotated[Optional[Path], typer.Option(help="Folder of all that is made; what is there is not made again [default: "
                                                "runs/NAME].")] = None,
    page: Annotated[Optional[Path], typer.Option(help="Where the page is written, its figures and its JSON beside it [default: "
                                                 "findings.md in the folder].")] = None,
    seeds: Annotated[Optional[str], typer.Option(metavar="N,N", help="Other seeds than the file's. With --add they are joined "
                                                 "with those that the page has of the same experiment.")] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep the findings that the page has of other experiments; all verdicts "
                                      "are corrected together.")] = False,
    jobs: Annotated[Optional[int], typer.Option(min=1, help="Stages at one time, one core each [default: the cores].")] = None,
    mixed_code: Annotated[bool, typer.Option(help="Go on though a part was made by another version of the code; the page says "
                                             "it.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the grid with predicted time, and do nothing.")] = False,
    json_: Json = False,
):
    """Run an experiment: variants of a recipe x seeds, each stage made once, then decide its findings.

    Interrupt it with Ctrl-C at any point and run it again to go on."""
    from spoutnik.experiment.page_file import check_page
    from spoutnik.experiment.run import forecast, run_experiment
    from spoutnik.experiment.schema import read_experiment, seeds_of
    from spoutnik.parallel import cores
    from spoutnik.recipe.artifacts import code_version
    from spoutnik.recipe.shipped import find_experiment

    files = [find_experiment(file) for file in files]
    out = out or Path("runs") / read_experiment(files[0])[1].name
    planned = forecast(files, out, jobs or cores(), (lambda text: None) if json_ else say,
                       None if seeds is None else seeds_of(seeds))
    planned.store.refuse_other_code(code_version(), mixed_code)
    before = check_page(page or out / "findings.md", planned.written, add, planned.join)
    kept = [] if before is None else before.kept_beside({one.name: one.seeds for one in planned.written}, planned.join)
    if dry_run:
        print_json(_as_json(planned, kept)) if json_ else _print(planned, kept)
        return
    if not json_:
        left = len(planned.seconds)
        say(f"{len(planned.grid.jobs)} jobs, {left} to do: about {sum(planned.seconds.values()):,.0f} core-seconds, "
            f"{duration(planned.wall)} with {planned.at_once} at one time.")
    with GridProgress(planned.seconds, planned.at_once, json_) as watcher:
        result = run_experiment(planned, files, watcher, page, mixed_code, add)
    _print_findings(result) if not json_ else print_json(_result(result))
    if result.error is not None:
        raise result.error


def _print(planned: "Forecast", kept: "Sequence[ExperimentResults]") -> None:
    """kept: what stays on the page."""
    from rich.table import Table

    from spoutnik.tables import print_table

    terminal, title = console(), f"{', '.join(planned.grid.names)} -> {planned.store.run.path}"
    table = Table(title=title, title_justify="left", padding=(0, 1, 0, 0))
    for column in ("variant", "stage", "seeds", "status"):
        table.add_column(column)
    table.add_column("core s", justify="right")
    for row in _rows(planned):
        table.add_row(row["variant"], row["stage"] + (" (evaluation)" if row["evaluates"] else ""),
                      ", ".join(map(str, row["seeds"])), row["status"],
                      f"{row['core_seconds']:,.0f}" if row["core_seconds"] else "")
    print_table(terminal, table)
    terminal.print(f"{len(planned.grid.findings)} findings on {len(planned.grid.jobs)} jobs. Predicted: "
                   f"{sum(planned.seconds.values()):,.0f} core-seconds, {duration(planned.wall)} with {planned.at_once} at one "
                   "time. Nothing was done.", highlight=False)
    if kept:
        each = ", ".join(f"{len(one.findings)} findings of {one.name} on seeds {', '.join(map(str, one.seeds))}"
                         for one in kept)
        terminal.print(f"The page keeps {each}; those of one experiment are joined, and all verdicts are corrected together.",
                       highlight=False)


def _rows(planned: "Forecast") -> list[dict]:
    """The jobs of a stage that differ by their seed alone as one row."""
    rows: dict[tuple, dict] = {}
    for job in planned.grid.jobs.values():
        status = planned.store.origins.get(job.symbol, "to make" if not job.evaluates else "to do")
        samples = job.recipe.evaluation.samples if job.evaluates else 0
        row = rows.setdefault((job.variant, job.stage, samples, status), {
            "variant": job.variant, "stage": job.stage, "evaluates": job.evaluates, "seeds": [], "status": status,
            "core_seconds": 0.0})
        row["seeds"].append(job.seed)
        row["core_seconds"] += planned.seconds.get(job.symbol, 0.0)
    return list(rows.values())


def _as_json(planned: "Forecast", kept: "Sequence[ExperimentResults]") -> dict:
    kept_rows = [{"experiment": one.name, "seeds": one.seeds, "findings": [finding.name for finding in one.findings]}
                 for one in kept]
    return {"experiments": planned.grid.names, "out": str(planned.store.run.path), "jobs": _rows(planned),
            "findings": list(planned.grid.findings), "kept": kept_rows, "core_seconds": sum(planned.seconds.values()),
            "seconds": planned.wall}


def _result(result: "Result") -> dict:
    from spoutnik.files import read_json

    return read_json(result.page.with_suffix(".json")) | {"page": str(result.page)}


def _print_findings(result: "Result") -> None:
    from rich.table import Table

    from spoutnik.experiment.page import ours
    from spoutnik.tables import print_table

    terminal, table = console(), Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in ("finding", "ours: b - a (95 %)", "verdict"):
        table.add_column(column)
    for one in result.content.findings:
        table.add_row(one.name, ours(one), one.verdict)
    print_table(terminal, table)
    terminal.print(f"Page: {result.page}", highlight=False, soft_wrap=True)
