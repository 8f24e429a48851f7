"""Terminals of 40, 60 and 200 columns: no line is too long, no word is broken, nothing is left out."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from spoutnik.commands.main import app
from spoutnik.commands.progress import TerminalDisplay
from spoutnik.recipe import table as stage_table
from spoutnik.tables import print_table

COMMANDS = ("run", "chat", "serve", "models", "pull", "arena", "keys", "keys add", "keys list", "keys revoke", "history",
            "history show", "history export", "history wipe", "cache", "cache clean", "eval", "tasks", "tasks show", "audit",
            "inspect", "plan", "export", "bench")


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_help_keeps_its_words_whole_at_any_width(columns):
    for command in ("", *COMMANDS):
        shown, wide = (CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": str(width)},
                                          prog_name="spoutnik").output for width in (columns, 500))
        assert all(len(line.rstrip()) <= columns for line in shown.splitlines()), (command, shown)
        assert shown.split() == wide.split() and "Example: spoutnik" in " ".join(shown.split()), command


@pytest.mark.parametrize("columns", [40, 60])
def test_a_table_that_does_not_fit_becomes_paragraphs_with_every_cell(columns):
    table = Table("name", "memory here", "what it is", title="Models")
    table.add_row("deepseek-r1-distill-qwen-1.5b", "1.9 GB int4", "The smallest student of R1: mathematics, always thinks.")
    screen = Console(file=io.StringIO(), width=columns)
    print_table(screen, table)
    shown = screen.file.getvalue()
    assert all(len(line) <= columns for line in shown.splitlines()) and "…" not in shown
    assert " ".join(shown.split()) == ("Models deepseek-r1-distill-qwen-1.5b memory here 1.9 GB int4, what it is The smallest "
                                      "student of R1: mathematics, always thinks.")


def test_a_table_that_fits_stays_one():
    table = Table("name", "size", box=None)
    table.add_row("nano", "3 MB")
    screen = Console(file=io.StringIO(), width=40)
    print_table(screen, table)
    assert [line.split() for line in screen.file.getvalue().splitlines()] == [["name", "size"], ["nano", "3", "MB"]]


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_stage_table_has_every_number_at_any_width(columns):
    row = stage_table.StageRow("all_scenarios_rl", "grpo", "made now", 3725.0, 7300.0, 12_345_678,
                               stage_table.Interval(0.731, 0.70, 0.76), {}, 61.0, 0.99, 0.98, 0.5, 0.8, 0.7)
    screen = Console(file=io.StringIO(), width=columns)
    stage_table.print_table([row], screen)
    shown = screen.file.getvalue()
    assert all(len(line.rstrip()) <= columns for line in shown.splitlines()) and "…" not in shown
    for part in ("all_scenarios_rl", "73.1", "±3.0", "61", "99", "1:02:05", "12.3M", "7300"):
        assert part in shown.replace(",", " ").split(), part


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_the_progress_of_a_run_fits(columns):
    display = TerminalDisplay({"all_scenarios_rl": 3000.0})
    display.console = Console(file=io.StringIO(), force_terminal=True, width=columns, color_system=None)
    with display.stage("all_scenarios_rl", "grpo", 8, 11) as reporter:
        reporter("training")(1, 120, 5000, "reward 0.512 mismatch 0.0012")
        reporter("training")(60, 120, 15000, "reward 0.512 mismatch 0.0012")
    shown = display.console.file.getvalue()
    lines = [line for part in shown.split("\n") for line in part.split("\r")]
    visible = [line for line in (re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in lines) if line.strip()]
    assert visible and all(len(line.rstrip()) <= columns for line in visible)
    assert all("8/11 all_scenarios_rl" in line for line in visible) and "60/120" in visible[-1], visible
