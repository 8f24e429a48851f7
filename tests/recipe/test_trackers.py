"""Trackers: the whole log, each step once, by stage; a sentence where one is not there."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from small_recipe import SMALL, Listening, prepared

from spoutnik.errors import UserError
from spoutnik.files import read_json, read_jsonl
from spoutnik.recipe import trackers
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.trackers import Tracker, make_trackers, sent_to


class Kept(Tracker):
    """A tracker that keeps what it gets: stage -> rows."""

    runs: dict[str, list[dict]] = {}
    ended = 0

    def __init__(self, out, name):
        pass

    def _begin(self, stage):
        self._rows = Kept.runs[stage] = []

    def _add(self, step, values):
        self._rows.append({"step": step} | values)

    def _end(self):
        Kept.ended += 1


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "kept", Kept)
    Kept.runs, Kept.ended = {}, 0
    return Kept


def logs(out):
    return {stage: read_jsonl(out / folder / "log.jsonl") for stage, folder in read_json(out / "run.json")["stages"].items()}


def test_a_tracker_gets_the_log_of_each_stage_and_is_closed(tmp_path, kept):
    run_recipe(prepared(tmp_path), tmp_path / "run", Listening(), trackers=["kept", "kept"])
    assert list(kept.runs) == ["base", "mine"] and kept.runs == logs(tmp_path / "run") and kept.ended == 2


def test_after_an_interruption_each_step_stands_once_and_as_in_the_log(tmp_path, kept):
    recipe, out = prepared(tmp_path), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, out, Listening(stop=("mine", 3)), trackers=["kept"])
    assert len(kept.runs["mine"]) == 3
    run_recipe(recipe, out, Listening(), trackers=["kept"])
    assert kept.runs == logs(out)


def test_what_was_made_without_a_tracker_is_sent_as_well(tmp_path, kept):
    recipe, out = prepared(tmp_path), tmp_path / "run"
    run_recipe(recipe, out, Listening(), until="base")
    run_recipe(recipe, out, Listening(), until="base", trackers=["kept"])
    assert kept.runs == logs(out)


@pytest.mark.parametrize("name, module", [("tensorboard", "torch.utils.tensorboard"), ("trackio", "trackio")])
def test_a_tracker_that_is_not_installed_is_a_sentence_before_any_work(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("spoutnik.recipe.run.audit_rewards", lambda *args: pytest.fail("work before the refusal"))
    with pytest.raises(UserError, match=f"{name} is not installed. Install it: pip install 'spoutnik.{name}.', or leave"):
        run_recipe(prepared(tmp_path), tmp_path / "run", Listening(), trackers=[name])
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_a_tracker_before_it_plans(tmp_path):
    done = subprocess.run([sys.executable, "-m", "spoutnik", "run", str(prepared(tmp_path)), "--track", "wandb", "--dry-run"],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "--track wandb: there is no such tracker. There are tensorboard, trackio." in done.stderr


def test_trackio_gets_a_run_for_each_stage_in_place_of_the_last_one(tmp_path, monkeypatch, capsys):
    """A double of trackio's interface: runs of a project by name, of which init makes a further one."""
    runs: list[SimpleNamespace] = []

    def init(project, name):
        print("* Trackio project initialized")
        run = SimpleNamespace(name=name, rows=[], finished=False)
        run.delete = lambda: runs.remove(run)
        runs.append(run)

    class Api:
        def runs(self, project):
            if not runs:
                raise ValueError(f"Project '{project}' does not exist")
            return list(runs)

    fake = SimpleNamespace(init=init, Api=Api, log=lambda values, step: runs[-1].rows.append((step, values)),
                           finish=lambda: setattr(runs[-1], "finished", True))
    monkeypatch.setitem(sys.modules, "trackio", fake)
    for folder in (tmp_path / "run", tmp_path / "run", tmp_path / "other" / "run"):
        with ExitStack() as stack:
            track = sent_to(make_trackers(["trackio"], folder, "small"), stack)
            track("base", [{"step": 0, "loss": 1.0}])
            track("base", [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}])
            track("rejection", [])
            track("mine", [{"step": 0, "loss": 2.0}])
    assert [run.name.rpartition("-")[2] for run in runs] == ["base", "mine"] * 2  # a folder of the same name is another run
    assert len({run.name for run in runs}) == 4 and all(run.finished for run in runs)
    assert [run.rows for run in runs[:2]] == [[(0, {"loss": 1.0}), (1, {"loss": 0.5})], [(0, {"loss": 2.0})]]
    assert capsys.readouterr().out == ""  # standard output is the command's


def test_tensorboard_reads_back_the_log(tmp_path):
    """By TensorBoard's own reader, with a second run in the folder of the first."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe, out = prepared(tmp_path), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, out, Listening(stop=("mine", 3)), trackers=["tensorboard"])
    run_recipe(recipe, out, Listening(), trackers=["tensorboard"])
    for stage, log in logs(out).items():
        events = reader.EventAccumulator(str(out / "tensorboard" / stage)).Reload()
        assert set(events.Tags()["scalars"]) == set().union(*log) - {"step"}
        for key in events.Tags()["scalars"]:
            values = [(event.step, event.value) for event in events.Scalars(key)]
            assert values == [(row["step"], pytest.approx(row[key], rel=1e-6)) for row in log if key in row]


def test_trackio_reads_back_the_log(tmp_path):
    """By trackio's own store, in a process of its own: it takes its folder from the environment when it is imported."""
    pytest.importorskip("trackio")
    program = """
import json, sys
from pathlib import Path
from small_recipe import Listening
from spoutnik.recipe.run import run_recipe
from trackio.sqlite_storage import SQLiteStorage
recipe, out = Path(sys.argv[1]), Path(sys.argv[2])
for stop in (("mine", 3), None):
    try:
        run_recipe(recipe, out, Listening(stop), trackers=["trackio"])
    except KeyboardInterrupt:
        pass
print(json.dumps({name.rpartition("-")[2]: SQLiteStorage.get_logs("small", name) for name in SQLiteStorage.get_runs("small")}))
"""
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": os.pathsep.join(
        [str(SMALL.parents[1]), *sys.path])}
    done = subprocess.run([sys.executable, "-c", program, str(prepared(tmp_path)), str(tmp_path / "run")],
                          capture_output=True, text=True, env=environment, check=True)
    runs = {stage: [{key: value for key, value in row.items() if key != "timestamp"} for row in rows]
            for stage, rows in json.loads(done.stdout).items()}
    assert runs == logs(tmp_path / "run")
