"""What a run says about the time it still needs."""

import io

import pytest
from rich.console import Console

from spoutnik.commands.progress import RemainingTime, TerminalDisplay


def test_what_remains_starts_as_predicted_and_ends_at_nothing():
    remaining = RemainingTime({"a": 100.0, "b": 200.0, "c": 0.0})
    assert remaining.seconds("a", 0, 0) == pytest.approx(300)
    remaining.finish("a", 100.0)
    assert remaining.seconds("b", 0, 0) == pytest.approx(200)
    assert remaining.seconds("b", 100, 0.5) == pytest.approx(100)
    remaining.finish("b", 200.0)
    assert remaining.seconds("c", 0, 0) == 0


def test_a_machine_half_as_fast_is_noticed_while_the_first_stage_runs_and_after_it():
    remaining = RemainingTime({"a": 1000.0, "b": 1000.0})
    assert remaining.seconds("a", 1000, 0.5) == pytest.approx(2 * 1500, rel=0.05)
    remaining.finish("a", 2000.0)
    assert remaining.seconds("b", 0, 0) == pytest.approx(2000, rel=0.05)


def test_a_short_stage_does_not_turn_the_prediction_over():
    remaining = RemainingTime({"a": 0.5, "b": 600.0})
    remaining.finish("a", 3.0)
    assert remaining.seconds("b", 0, 0) == pytest.approx(600, rel=0.1)


def test_a_stage_that_nobody_predicted_asks_for_nothing():
    assert RemainingTime({}).seconds("benchmark", 5, 0.5) == 0


def test_the_terminal_says_what_the_whole_run_still_needs():
    display = TerminalDisplay({"base": 60.0, "cold_start": 600.0})
    display.console = Console(file=io.StringIO(), force_terminal=True, width=140)
    with display.stage("base", "pretrain", 1, 2) as reporter:
        reporter("training")(1, 2, 500, "loss 1.000")
        reporter("training")(2, 2, 1000, "loss 0.900")
    written = display.console.file.getvalue()
    assert "min" in written and " left)" in written
