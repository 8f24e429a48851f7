"""`spoutnik audit`: verifiers attacked before anything is trained on them."""

from typing import TYPE_CHECKING, Annotated

import typer

from spoutnik.commands.console import console, print_json, say
from spoutnik.commands.options import Json
from spoutnik.commands.progress import display

if TYPE_CHECKING:
    from collections.abc import Callable

    from spoutnik.tasks import Task
    from spoutnik.tasks.audit import Report

_SHOWN = 5  # sentences of a kind on a task


def audit(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="Names of tasks; gym-* means all that begin so.")],
    problems: Annotated[int, typer.Option(min=1, help="Of each task; every attack is tried on each.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of the problems that are drawn.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="reasoning-gym's own scorers, without what is put around them, and those "
                                      "that are left out: shows why.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Audit again what is known from before.")] = False,
    json_: Json = False,
):
    """Attack the verifiers of tasks with answers that deserve nothing. Those that pay for one, raise, hang or execute what they
    read are refused for training, with the reason; the exit status is 1 then."""
    from spoutnik.tasks.audit import cached_audit
    from spoutnik.tasks.catalog import find_tasks, raw_gym_tasks

    chosen = raw_gym_tasks(tasks) if raw else find_tasks(tasks)
    reports = []
    with display(json_).stage("audit", "audit", 1, 1) as reporter:
        progress = reporter("tasks")
        for report in cached_audit(chosen, problems, seed, fresh, _advance(chosen, progress)):
            reports.append(report)
    refused = [report for report in reports if report.refusals]
    if json_:
        print_json({"refused": [report.task for report in refused], "reports": [report.as_json() for report in reports]})
    else:
        for report in reports:
            _print(report)
        say(f"\n{len(reports) - len(refused)} of {len(reports)} fit to train on."
            + (f" Refused: {', '.join(report.task for report in refused)}." if refused else ""))
    return 1 if refused else 0


def _advance(tasks: "list[Task]", progress) -> "Callable[[int], None]":
    return lambda done: progress(done, len(tasks), 0, tasks[min(done, len(tasks) - 1)].name)


def _print(report: "Report") -> None:
    """A line on a task, and one on each thing that was seen."""
    best = report.best_blind
    blind = "" if best is None else f", at most {best.mean:.2f} for an answer without thought ({best.form})"
    golds = f"{report.golds} of {report.answered} own answers right" if report.answered else "no answers of its own"
    terminal = console()
    say(f"{report.task}: {'REFUSED' if report.refusals else 'passes'}: {report.problems} problems, {golds}{blind}.", terminal,
        "bold red" if report.refusals else "")
    for label, sentences in (("refused", report.refusals), ("exempted", report.exempted), ("note", report.notes)):
        for sentence in sentences[:_SHOWN]:
            say(f"    {label}: {sentence}", terminal)
        if len(sentences) > _SHOWN:
            say(f"    {label}: and {len(sentences) - _SHOWN} more, with --json.", terminal)
