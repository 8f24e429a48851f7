"""Stages that learned nothing or blew up: none ends with exit status 0 and an artifact, unless one accepts it."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import RunError, UserError
from spoutnik.model.weights import load_model
from spoutnik.recipe import run as running
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.table import as_json, rows
from spoutnik.tasks.families.arithmetic import Arithmetic
from spoutnik.text.tokenizer import Tokenizer

TINY = Path(__file__).with_name("tiny.yaml")


class Listening(SilentDisplay):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def log(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def stage(self, name, kind, position, total):
        yield lambda what: lambda done, of, tokens, note: None


@pytest.fixture
def begun(run, tmp_path):
    """A copy of the tiny run, made up to its cold start."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def edited(tmp_path: Path, stage: str, **settings) -> Path:
    values = yaml.safe_load(TINY.read_text())
    values["stages"][stage]["settings"] |= settings
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def sealed(out: Path, stage: str) -> list[Path]:
    """The artifacts of a stage that are not those of the unedited recipe."""
    return sorted((out / "artifacts").glob(f"{stage}-*"))


def test_completions_that_are_all_cut_are_not_done_and_can_be_accepted(begun, tmp_path, monkeypatch):
    path = edited(tmp_path, "reasoning_rl", max_tokens=2)
    with pytest.raises(RunError) as error:
        run_recipe(path, begun, SilentDisplay(), until="reasoning_rl")
    text = str(error.value)
    assert text.startswith("reasoning_rl: is not done. ") and "cut at max_tokens" in text and "Raise max_tokens" in text
    assert "--accept reasoning_rl" in text and not sealed(begun, "reasoning_rl") and error.value.exit_status == 1
    monkeypatch.setattr(running, "run_stage", lambda *_: pytest.fail("a stage that has ended was made again"))
    with pytest.raises(RunError, match="cut at max_tokens"):
        run_recipe(path, begun, SilentDisplay(), until="reasoning_rl")
    result = run_recipe(path, begun, SilentDisplay(), until="reasoning_rl", accept=["reasoning_rl"])
    manifest = result.artifacts[-1].manifest
    assert manifest["health"]["accepted"] and manifest["health"]["refusals"]
    assert manifest["health"]["line"].startswith("accepted in spite of: zero variance")
    assert not list((begun / "working").iterdir()) and "refused.json" not in manifest["files"]
    row = as_json(rows(result.artifacts, result.origins))[-1]
    assert row["health"] == manifest["health"]["line"] and "Raise max_tokens" in row["warnings"][0]
    report = (begun / "report.html").read_text()
    assert "accepted in spite of: zero variance" in report and "cut at max_tokens" in report
    again = run_recipe(path, begun, SilentDisplay(), until="reasoning_rl")  # what is sealed needs no accepting
    assert again.origins["reasoning_rl"] == "already made"


def test_a_learning_rate_that_blows_the_loss_up_is_not_done(begun, tmp_path):
    path = edited(tmp_path, "cold_start", learning_rate=1.0, schedule="constant")
    made = sealed(begun, "cold_start")
    with pytest.raises(RunError, match="cold_start: is not done. The loss .* Lower learning_rate"):
        run_recipe(path, begun, SilentDisplay(), until="cold_start")
    assert sealed(begun, "cold_start") == made


def test_rewards_without_variance_are_not_done(begun, tmp_path, monkeypatch):
    values = yaml.safe_load(TINY.read_text())
    values["stages"]["reasoning_rl"]["settings"] |= {"rewards": {"accuracy": 1.0, "format": 0.0, "language": 0.0}}
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(RunError, match="the rewards of every group were equal, so that there was nothing to learn"):
        run_recipe(path, begun, SilentDisplay(), until="reasoning_rl")
    assert not sealed(begun, "reasoning_rl")


def test_a_verifier_that_gives_nan_stops_the_stage(begun, monkeypatch):
    monkeypatch.setattr(Arithmetic, "verify", lambda self, problem, answer: float("nan"))
    with pytest.raises(RunError, match="the verifier of task .* gives nan"):
        run_recipe(TINY, begun, SilentDisplay(), until="reasoning_rl")
    assert not sealed(begun, "reasoning_rl")


def test_a_warm_up_longer_than_the_stage_is_refused(begun, tmp_path):
    with pytest.raises(UserError, match="warmup = 50 is longer than the stage, which has 5 steps"):
        run_recipe(edited(tmp_path, "reasoning_rl", warmup=50), tmp_path / "other", SilentDisplay())
    assert not (tmp_path / "other").exists()  # told before the first stage
    with pytest.raises(UserError, match="cold_start: warmup = 500 is longer than the stage"):
        run_recipe(edited(tmp_path, "cold_start", warmup=500), begun, SilentDisplay(), until="cold_start")


def test_a_healthy_stage_says_so_and_warnings_are_said_while_it_runs(begun):
    display = Listening()
    result = run_recipe(TINY, begun, display, until="reasoning_rl")
    *supervised, rl = [artifact.manifest["health"] for artifact in result.artifacts]
    assert all(health["line"].startswith("healthy; ") and not health["warnings"] for health in supervised)
    assert rl["refusals"] == [] and rl["line"].startswith("warned: ill-formed")  # an untrained model
    said = [text for text in display.said if "well formed" in text]
    assert len(said) == 1 and said[0].startswith("reasoning_rl, step 5: only ") and said[0].endswith(rl["warnings"][0])


def test_the_best_checkpoint_lies_beside_the_last_where_it_is_another(begun, tmp_path, monkeypatch):
    from spoutnik.train.loop import Cost
    from spoutnik.train.monitor import Validation

    scores = iter([0.1, 0.9, 0.8])
    monkeypatch.setattr(Validation, "_measure",
                        lambda self, done: ({"right": [next(scores)] * 8, "well_formed": [1.0] * 8}, Cost()))
    artifact = run_recipe(TINY, begun, SilentDisplay(), until="reasoning_rl").artifacts[-1]
    assert artifact.manifest["validation"] == {"problems": 8, "start": pytest.approx(0.1), "last": pytest.approx(0.8),
                                               "best_step": 2, "best_accuracy": pytest.approx(0.9), "best": "best"}
    best, last = load_model(artifact.folder / "best"), load_model(artifact.folder)
    assert any(not (a == b).all() for a, b in zip(best.parameters(), last.parameters(), strict=True))
    assert Tokenizer.load(artifact.folder / "best").vocab_size == Tokenizer.load(artifact.folder).vocab_size
    assert "best/model.safetensors" in artifact.manifest["files"]
    assert "reasoning_rl: the best checkpoint by validation is that of step 2" in (begun / "report.html").read_text()


def test_validation_and_its_settings_change_neither_key_nor_weights(begun, tmp_path):
    with_validation = run_recipe(TINY, begun, SilentDisplay(), until="reasoning_rl").artifacts[-1]
    values = yaml.safe_load(TINY.read_text())
    values["validation"] = {"problems": 0}
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    without = run_recipe(path, begun, SilentDisplay(), until="reasoning_rl", redo_from="reasoning_rl").artifacts[-1]
    assert (without.manifest["key"], without.content) == (with_validation.manifest["key"], with_validation.content)
    assert "validation" in with_validation.manifest and "validation" not in without.manifest
    assert json.loads((without.folder / "log.jsonl").read_text().splitlines()[-1]).get("validation_accuracy") is None


def test_accept_names_a_stage(tmp_path):
    with pytest.raises(UserError, match="--accept dinner: .* has no such stage"):
        run_recipe(TINY, tmp_path / "run", SilentDisplay(), accept=["dinner"])
