"""`spoutnik eval` and `spoutnik eval compare`, as commands."""

import json

import pytest
import typer

from spoutnik.commands.main import app, how_to_go_on
from spoutnik.errors import UserError
from spoutnik.evals import statistics


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Of the bootstrap's: its own tests are elsewhere."""
    monkeypatch.setattr(statistics, "RESAMPLES", 20)


@pytest.fixture
def gsm8k(tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n} and one?", "answer": f"#### {n + 1}"}) + "\n" for n in range(3)))
    return file


def call(*arguments) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def evaluate(run, gsm8k, out, *more) -> None:
    call("eval", run, "--bench", "gsm8k", "--data", gsm8k, "--samples", 2, "--max-tokens", 6, "--out", out, "--json", *more)


def test_several_benches_are_evaluated_into_one_folder(run, gsm8k, tmp_path, capsys):
    call("eval", run, "--bench", "gsm8k,held-out", "--data", gsm8k, "--samples", 1, "--limit", 2, "--max-tokens", 6, "--out",
         tmp_path / "out")
    shown = capsys.readouterr()
    assert "gsm8k pass@1:" in shown.out and "held-out pass@1:" in shown.out and "without an answer" in shown.out
    assert "At most 6 tokens a reply" in shown.err and "the first 2 of 3 problems" in shown.err
    for bench in ("gsm8k", "held-out"):
        assert json.loads((tmp_path / "out" / bench / "evaluation.json").read_text())["complete"]


def test_k_asks_for_the_best_of_k_and_the_vote(run, gsm8k, tmp_path, capsys):
    call("eval", run, "--bench", "gsm8k", "--data", gsm8k, "--samples", 3, "--k", "2", "--max-tokens", 6, "--out",
         tmp_path / "k", "--json")
    result = json.loads(capsys.readouterr().out)
    assert {"gsm8k pass@1", "gsm8k pass@2", "gsm8k cons@2"} == set(result["scores"])


@pytest.mark.parametrize("split, message", [
    ("train", "is of tasks of your own, and gsm8k is none"), ("tests", "must be held_out")])
def test_a_split_that_would_be_ignored_is_refused(run, gsm8k, tmp_path, split, message):
    with pytest.raises(UserError, match=message):
        evaluate(run, gsm8k, tmp_path / "a", "--split", split)


def test_two_evaluations_are_compared_and_others_refused_with_what_differs(run, gsm8k, tmp_path, capsys):
    evaluate(run, gsm8k, tmp_path / "a")
    evaluate(run, gsm8k, tmp_path / "b")
    evaluate(run, gsm8k, tmp_path / "hot", "--temperature", 1)
    capsys.readouterr()
    call("eval", "compare", tmp_path / "a", tmp_path / "b" / "gsm8k", "--margin", 2)
    shown = capsys.readouterr().out
    assert "on the same 3 problems: +0.0 points" in shown
    assert "Equivalent within 2 points" in shown or "Not worse" in shown
    with pytest.raises(UserError, match="cannot be compared.*temperature: 0.6 and 1.0"):
        call("eval", "compare", tmp_path / "a", tmp_path / "hot")
    with pytest.raises(UserError, match="holds no evaluation"):
        call("eval", "compare", tmp_path / "a", tmp_path)
    with pytest.raises(UserError, match="--margin 200"):
        call("eval", "compare", tmp_path / "a", tmp_path / "b", "--margin", 200)


@pytest.mark.parametrize("arguments, told", [
    (("--bench", "gsm9k"), "Did you mean 'gsm8k'"), ((), "--bench: name a benchmark"), (("--bench", ","), "names no benchmark"),
    (("--bench", "held-out", "--data", "x.jsonl"), "only benchmarks that lie in files read it"),
    (("--bench", "held-out", "--k", "4"), "--k 4: must be from 2 to less than --samples"),
    (("--bench", "held-out", "--k", "many"), "--k many: must be whole numbers"),
    (("--bench", "held-out", "--style", "haiku"), "--style haiku: unknown"),
    (("--bench", "held-out", "--temperature", "9"), "temperature = 9"),
    (("--bench", "held-out", "--model", "m"), "are of endpoints")])
def test_mistakes_are_sentences(run, tmp_path, arguments, told):
    with pytest.raises(UserError, match=told):
        call("eval", run, "--out", tmp_path / "out", *arguments)
    assert not list(tmp_path.glob("out/*/samples.jsonl"))


@pytest.mark.parametrize("arguments, told", [
    ((), "--model NAME"), (("--model", "m", "--stage", "base"), "--stage: is of a run"),
    (("--model", "m", "--quantize", "int8"), "not of an endpoint's")])
def test_mistakes_about_endpoints_are_sentences(gsm8k, tmp_path, arguments, told):
    with pytest.raises(UserError, match=told):
        call("eval", "http://127.0.0.1:9/v1", "--bench", "gsm8k", "--data", gsm8k, "--out", tmp_path / "out", *arguments)


def test_the_help_is_that_of_the_evaluation(capsys):
    with pytest.raises((typer.Exit, SystemExit)):
        app(["eval", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--style" in shown and "eval [OPTIONS]" in shown and "eval compare A B" in shown


def test_after_ctrl_c_it_is_told_how_to_go_on():
    assert "run the same command again" in how_to_go_on(["eval", "runs/nano", "--bench", "gsm8k"])
    assert how_to_go_on(["eval", "compare", "a", "b"]) == ""
