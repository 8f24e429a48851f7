"""`spoutnik tasks`: the list, and a problem with what its verifier says."""

import json

import pytest
from typer.testing import CliRunner

from spoutnik.commands.main import app
from spoutnik.errors import UserError
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.catalog import task_names


@pytest.fixture
def command(capsys):
    def run(*arguments: str) -> str:
        capsys.readouterr()
        app(["tasks", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_the_list_has_every_task_with_its_languages_and_a_line(command):
    listed = json.loads(command("--json"))["tasks"]
    assert [task["name"] for task in listed] == task_names() and set(FAMILIES) < set(task_names())
    assert all(task["about"] and task["languages"] for task in listed)
    shown = command()
    assert all(f"{name} " in shown for name in task_names()) and "number puzzles (en, fr)" in shown
    assert "spoutnik tasks show NAME" in shown


def test_a_problem_is_shown_with_its_solution_and_verdicts_the_same_for_the_same_seed(command):
    shown = json.loads(command("show", "countdown", "--seed", "3", "--json"))
    assert shown == json.loads(command("show", "countdown", "--seed", "3", "--json"))
    assert shown["prompt"] != json.loads(command("show", "countdown", "--seed", "4", "--json"))["prompt"]
    assert shown["thought"] and shown["verdicts"][0] == {"answer": shown["answer"], "grade": 1.0}
    assert {verdict["grade"] for verdict in shown["verdicts"][1:]} == {0.0}
    text = command("show", "countdown", "--seed", "3", "--split", "held_out")
    for label in ("prompt", "answer", "thought", "is graded 1", "is graded 0"):
        assert label in text


def test_a_set_of_the_gym_is_shown_without_a_worked_solution(command):
    pytest.importorskip("reasoning_gym")
    shown = json.loads(command("show", "gym-chain_sum", "--json"))
    assert shown["thought"] is None and [verdict["grade"] for verdict in shown["verdicts"]] == [1.0, 0.0, 0.0]


def test_wrong_requests_are_sentences(command):
    with pytest.raises(UserError, match="Did you mean 'countdown'"):
        command("show", "countdow")
    with pytest.raises(UserError, match="--split test: must be train or held_out"):
        command("show", "countdown", "--split", "test")
    with pytest.raises(UserError, match="write it behind show"):
        command("--json", "show", "countdown")
    assert "Example: spoutnik tasks show" in CliRunner().invoke(app, ["tasks", "show", "--help"], prog_name="spoutnik").output
