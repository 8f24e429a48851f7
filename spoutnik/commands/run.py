"""`spoutnik run`: a recipe, stage by stage."""

import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, say
from spoutnik.commands.options import Json
from spoutnik.commands.progress import display
from spoutnik.units import duration


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe file, or the name of one that comes with the package (nano).")],
    out: Annotated[Optional[Path], typer.Option(help="Folder of the run [default: runs/NAME].")] = None,
    from_: Annotated[Optional[str], typer.Option("--from", metavar="STAGE", help="Make this stage and all after it anew."
                                                 )] = None,
    until: Annotated[Optional[str], typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    accept: Annotated[Optional[list[str]], typer.Option(metavar="STAGE", help="Seal this stage though it learned nothing or "
                                                        "ended worse than it began (may be given again).")] = None,
    seed: Annotated[Optional[int], typer.Option(min=0, help="Another seed than the recipe's.")] = None,
    track: Annotated[Optional[list[str]], typer.Option(metavar="NAME", help="Send the logs to tensorboard (OUT/tensorboard) or "
                                                       "trackio as well, if that is installed; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the plan with predicted time and memory, and do nothing.")] = False,
    json_: Json = False,
):
    """Run a recipe: every stage that is not made yet. Interrupt with Ctrl-C and run again to go on (without --from, which
    begins anew)."""
    from spoutnik.recipe.plan import plan_recipe, print_plan
    from spoutnik.recipe.schema import load_recipe
    from spoutnik.recipe.shipped import find_recipe
    from spoutnik.recipe.trackers import make_trackers
    from spoutnik.scale.launch import divide, launched, rank
    from spoutnik.world import started_in, team

    recipe = find_recipe(recipe)
    name = load_recipe(recipe).name
    out = out or Path("runs") / name
    make_trackers(track or (), out, name)  # refuses before the plan's rehearsal
    if launched() and not dry_run:
        raise typer.Exit(_run_together(recipe, out, lambda: _run(recipe, out, from_, until, accept, seed, track, json_),
                                       seed))
    if launched() and rank():
        return
    if dry_run:
        plan = plan_recipe(recipe, out, until, from_, seed, accept or ())
        print_json(plan.as_json()) if json_ else print_plan(plan)
        return
    with started_in(replace(team(), divide=divide)):
        _run(recipe, out, from_, until, accept, seed, track, json_)


def _run_together(recipe: Path, out: Path, lead: Callable[[], None], seed: int | None) -> int:
    """One of several processes: rank 0 runs the recipe and shows it, the others follow in silence. Returns the exit status."""
    from spoutnik.recipe.following import follow
    from spoutnik.recipe.orders import announce
    from spoutnik.recipe.scale_settings import ScaleSettings
    from spoutnik.recipe.schema import read_recipe
    from spoutnik.scale.launch import run_together
    from spoutnik.scale.rollout_workers import SamplersOnRay

    text, read = read_recipe(recipe)
    identity = {"the recipe's text": sha256(text.encode()).hexdigest()[:12], "--seed": str(seed)}

    def lead_all() -> None:
        lead()
        announce(None)

    terminal = console(stderr=True)
    scale = read.scale or ScaleSettings()
    return run_together(lead_all, lambda: follow(recipe, seed, SamplersOnRay()), identity, scale.timeout, out / "stacks",
                        lambda sentence: say(f"spoutnik: {sentence}", terminal), read.device)


def _run(recipe: Path, out: Path, from_: str | None, until: str | None, accept: list[str] | None, seed: int | None,
         track: list[str] | None, json_: bool) -> None:
    from spoutnik.locate import converses
    from spoutnik.recipe.plan import plan_recipe
    from spoutnik.recipe.run import MADE, run_recipe
    from spoutnik.recipe.table import as_json, print_table, rows
    from spoutnik.scale.rollout_workers import SamplersOnRay

    started = time.perf_counter()
    predicted = {}
    if not json_:
        plan = plan_recipe(recipe, out, until, from_, seed, accept or ())
        predicted = {stage.name: stage.seconds for stage in plan.stages}
        total = sum(predicted.values())
        if total > 10:
            console(stderr=True).print(f"Expected to take about {duration(total)} on this machine{plan.by_processor}"
                                       f"{plan.beside}.", highlight=False)
    result = run_recipe(recipe, out, display(json_, predicted), until, from_, seed, accept or (), track or (), SamplersOnRay())
    table = rows(result.artifacts, result.origins)
    if json_:
        print_json({"out": str(out), "origins": result.origins, "report": str(out / "report.html"), "stages": as_json(table),
                    "data": {artifact.stage: artifact.manifest["data"] for artifact in result.artifacts
                             if "data" in artifact.manifest}})
        return
    terminal = console()
    print_table(table, terminal)
    new = list(result.origins.values()).count(MADE)
    terminal.print(f"{new} of {len(result.artifacts)} stages made now, in {duration(time.perf_counter() - started)}. "
                   + ("" if new else "Nothing had to be done."), highlight=False)
    talks = any((each.folder / "generation_config.json").exists() and converses(each.manifest) for each in result.artifacts)
    terminal.print(f"Report: {out / 'report.html'}" + (f"\nTalk to it: spoutnik chat {out}" if talks else ""), highlight=False,
                   soft_wrap=True)
