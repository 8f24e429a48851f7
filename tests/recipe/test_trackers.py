"""Trackers: each row of the log, once, by stage; a sentence where one is not there."""

import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from small_recipe import Listening, prepared

from spoutnik.errors import UserError
from spoutnik.recipe import trackers
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.trackers import open_trackers


class Kept:
    """A tracker that keeps what it gets."""

    rows, closed = [], 0

    def __init__(self, out, name):
        self.name = name

    def track(self, stage, row):
        Kept.rows.append((self.name, stage, row["step"], "loss" in row))

    def close(self):
        Kept.closed += 1


def test_a_tracker_gets_each_row_and_is_closed(tmp_path, monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "kept", Kept)
    Kept.rows.clear()
    run_recipe(prepared(tmp_path), tmp_path / "run", Listening(), until="base", trackers=["kept", "kept"])
    assert Kept.rows == [("small", "base", step, True) for step in range(4)] and Kept.closed == 1


@pytest.mark.parametrize("name, module", [("tensorboard", "torch.utils.tensorboard"), ("trackio", "trackio")])
def test_a_tracker_that_is_not_installed_is_a_sentence_and_nothing_runs(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"{name} is not installed. Install it: pip install 'spoutnik.{name}.', or leave"):
        run_recipe(prepared(tmp_path), tmp_path / "run", Listening(), trackers=[name])
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_a_sentence(tmp_path):
    with ExitStack() as stack, pytest.raises(UserError, match="--track wandb: there is no such tracker"):
        open_trackers(["wandb"], tmp_path, "small", stack)


def test_trackio_gets_a_run_for_each_stage(tmp_path, monkeypatch):
    calls = []
    fake = SimpleNamespace(init=lambda **kwargs: calls.append(("init", kwargs["project"], kwargs["name"])),
                           log=lambda values, step: calls.append(("log", values, step)),
                           finish=lambda: calls.append(("finish",)))
    monkeypatch.setitem(sys.modules, "trackio", fake)
    with ExitStack() as stack:
        track = open_trackers(["trackio"], tmp_path / "run", "small", stack)
        track("base", {"step": 0, "loss": 1.0})
        track("mine", {"step": 0, "loss": 2.0})
    assert calls == [("init", "small", "run-base"), ("log", {"loss": 1.0}, 0), ("finish",), ("init", "small", "run-mine"),
                     ("log", {"loss": 2.0}, 0), ("finish",)]
