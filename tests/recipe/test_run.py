"""The whole DAG at the smallest size: it runs, it is not redone, it survives being killed, it refuses with sentences."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import RunError, UserError
from spoutnik.files import sha256_file
from spoutnik.generation.model_card import read_model_card
from spoutnik.locate import locate
from spoutnik.recipe import run as running
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.train import reject

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture
def keep_everything(monkeypatch):
    """An untrained model is never right; the stages after rejection sampling still need traces."""
    monkeypatch.setattr(reject, "select", lambda completions, settings: list(completions))


def edited(tmp_path: Path, change) -> Path:
    values = yaml.safe_load(TINY.read_text())
    change(values)
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_the_whole_recipe_runs_and_a_second_run_does_nothing(tmp_path, keep_everything, monkeypatch):
    first = run_recipe(TINY, tmp_path / "run", SilentDisplay())
    assert set(first.origins.values()) == {"made now"} and len(first.artifacts) == 10
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(artifact.stage in report for artifact in first.artifacts)
    assert not list((tmp_path / "run" / "working").iterdir())
    monkeypatch.setattr(running, "run_stage", lambda *_: pytest.fail("a finished stage was made again"))
    monkeypatch.setattr(running, "evaluate_model", lambda *_: pytest.fail("a finished evaluation was made again"))
    second = run_recipe(TINY, tmp_path / "run", SilentDisplay())
    assert set(second.origins.values()) == {"already made"}
    assert [a.content for a in second.artifacts] == [a.content for a in first.artifacts]
    # The second SFT starts from base again, not from the RL checkpoint, and each manifest says from what it came.
    manifests = {a.stage: a.manifest for a in first.artifacts}
    assert manifests["second_sft"]["inputs"]["start"]["stage"] == "midtrained"
    assert manifests["reasoning_rl"]["inputs"]["start"]["content"] == manifests["cold_start"]["content"]
    assert manifests["reasoning_rl"]["bill"]["tokens_generated"] > 0
    # Mid-training changed the context and nothing else of the shape; the models after it have it.
    configs = {name: json.loads((locate(tmp_path / "run", name) / "config.json").read_text())
               for name in ("base", "midtrained", "all_scenarios_rl")}
    assert [config["max_position_embeddings"] for config in configs.values()] == [256, 512, 512]
    assert configs["base"] | {"max_position_embeddings": 512} == configs["midtrained"] == configs["all_scenarios_rl"]
    # Each model brings a card of its families; a base says that it does not converse.
    cards = {stage: read_model_card(locate(tmp_path / "run", stage)) for stage in ("base", "midtrained", "distilled")}
    assert "not taught to converse" in cards["midtrained"].description["en"] and not cards["base"].examples["en"]
    assert "words backwards" in cards["distilled"].description["en"]
    assert 'Reverse the word "cat".' in cards["distilled"].examples["en"] and cards["distilled"].examples["fr"]
    assert "card" not in manifests["rejection"] and first.artifacts[-1].evaluation["dialogues"]["problems"] == 2
    # chat and eval open the last model of the main line, not the student.
    assert locate(tmp_path / "run").name.startswith("all_scenarios_rl")


def test_from_makes_a_stage_and_all_after_it_anew_with_the_same_bytes(tmp_path):
    first = run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="cold_start")
    again = run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="cold_start", redo_from="cold_start")
    assert again.origins == {"base": "already made", "student_base": "already made", "midtrained": "already made",
                             "cold_start": "made now"}
    assert again.artifacts[-1].content == first.artifacts[-1].content


def test_a_changed_setting_makes_a_new_artifact_and_keeps_the_old(tmp_path):
    first = run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="cold_start")
    changed = edited(tmp_path, lambda v: v["stages"]["cold_start"]["settings"].update(learning_rate=0.02))
    second = run_recipe(changed, tmp_path / "run", SilentDisplay(), until="cold_start")
    assert second.origins["base"] == "already made" and second.origins["cold_start"] == "made now"
    assert first.artifacts[-1].folder.exists() and first.artifacts[-1].folder != second.artifacts[-1].folder


def test_a_base_with_a_seed_of_its_own_stays_under_every_seed_of_the_recipe(tmp_path):
    pinned = edited(tmp_path, lambda v: v["stages"]["base"].update(seed=0))
    first = run_recipe(pinned, tmp_path / "run", SilentDisplay(), until="cold_start")
    second = run_recipe(pinned, tmp_path / "run", SilentDisplay(), until="cold_start", seed=1)
    assert second.origins == {"base": "already made", "student_base": "made now", "midtrained": "made now",
                              "cold_start": "made now"}
    assert [a.manifest["seed"] for a in second.artifacts] == [0, 1, 1, 1]
    assert first.artifacts[0].evaluation["as_textbook"]["accuracy"]["problems"] == 4


def test_changing_the_evaluation_trains_nothing(tmp_path, monkeypatch):
    run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="base")
    monkeypatch.setattr(running, "run_stage", lambda *_: pytest.fail("a finished stage was made again"))
    changed = edited(tmp_path, lambda v: v["evaluation"].update(samples=2))
    result = run_recipe(changed, tmp_path / "run", SilentDisplay(), until="base")
    assert result.artifacts[0].evaluation["accuracy"]["samples"] == 8


def spoutnik(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    return subprocess.Popen([sys.executable, "-m", "spoutnik", *arguments], stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.PIPE, env=environment,
                            # A shell may start the tests in the background, where Ctrl-C is ignored.
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_of_rl_and_run_again_ends_with_the_same_bytes(tmp_path, how):
    recipe = edited(tmp_path, lambda v: v["stages"]["reasoning_rl"]["settings"].update(steps=30))
    until = ("--until", "reasoning_rl", "--json")
    whole = spoutnik("run", str(recipe), "--out", str(tmp_path / "whole"), *until)
    output, errors = whole.communicate(timeout=240)
    assert whole.returncode == 0, errors
    killed = spoutnik("run", str(recipe), "--out", str(tmp_path / "killed"), *until)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "killed" / "working").glob("reasoning_rl-*.progress/checkpoint/state.json")):
        assert killed.poll() is None, "the run ended before it could be killed: give it more steps"
        assert time.monotonic() < deadline
    killed.send_signal(how)
    _, errors = killed.communicate(timeout=60)
    if how == signal.SIGINT:
        assert killed.returncode == 130 and "run the same command again" in errors and "Traceback" not in errors
    assert not list((tmp_path / "killed" / "artifacts").glob("reasoning_rl-*")), "killed too late"
    resumed = spoutnik("run", str(recipe), "--out", str(tmp_path / "killed"), *until)
    output, errors = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, errors
    origins = json.loads(output)["origins"]
    assert origins == {"base": "already made", "student_base": "already made", "midtrained": "already made",
                       "cold_start": "already made", "reasoning_rl": "made now"}
    folders = [locate(tmp_path / name, "reasoning_rl") for name in ("whole", "killed")]
    assert sha256_file(folders[0] / "model.safetensors") == sha256_file(folders[1] / "model.safetensors")
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in folders]
    timeless = [[{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in log] for log in logs]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("change, expected", [
    (lambda v: v.update(sed=1), "unknown key 'sed'"),
    (lambda v: v["stages"]["base"]["settings"].update(stepz=1), "stages.base.settings.stepz"),
    (lambda v: v["stages"]["base"]["settings"].update(learning_rate="fast"), "learning_rate = 'fast'"),
    (lambda v: v["stages"]["base"]["settings"].update(steps=0), "steps = 0"),
    (lambda v: v["stages"]["cold_start"].update({"from": "nowhere"}), "'nowhere' is not an earlier stage"),
    (lambda v: v["stages"]["second_sft"].update(traces="base"), "cannot serve as traces"),
    (lambda v: v["stages"]["base"].update(kind="magic"), "magic"),
    (lambda v: v["models"]["nano"].update(kv_lora_rnk=3), "unknown key 'kv_lora_rnk'"),
    (lambda v: v["models"]["nano"].update(qk_rope_head_dim=7), "qk_rope_head_dim must be even"),
    (lambda v: v.update(families=["chess"]), "there is no family 'chess'"),
    (lambda v: v["stages"]["base"].update(families=["chess"]), "there is no family 'chess'"),
    (lambda v: v["stages"]["cold_start"].update(examples=["go"]), "there is no family 'go'"),
    (lambda v: v["stages"]["cold_start"].update(examples=["spell"]), "there is no family 'spell'"),
    (lambda v: v["stages"]["rejection"].update(examples=["letters"]), "unknown key 'stages.rejection.examples'"),
    (lambda v: v["stages"]["distilled"].update(dialogue_share=0.5, general=0), "dialogue_share is of the traces"),
    (lambda v: v["stages"]["midtrained"]["context"].update(hidden_size=64), "context.hidden_size"),
    (lambda v: v["stages"]["midtrained"]["context"].update(rope_theta=-1), "stages.midtrained: rope_theta = -1"),
    (lambda v: v["stages"]["all_scenarios_rl"].pop("reward_model"), "needs a reward_model"),
])
def test_a_wrong_recipe_is_refused_with_file_key_and_value(tmp_path, change, expected):
    path = edited(tmp_path, change)
    with pytest.raises(UserError) as error:
        run_recipe(path, tmp_path / "run", SilentDisplay())
    assert str(path) in str(error.value) and expected in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage, expected", [
    (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "is damaged"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "is missing"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "not valid JSON"),
])
def test_a_damaged_artifact_is_named_and_not_overwritten(tmp_path, damage, expected):
    artifact = run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="base").artifacts[0]
    damage(artifact.folder)
    before = sorted(f.name for f in artifact.folder.iterdir())
    with pytest.raises(RunError, match=expected) as error:
        run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="base")
    assert str(artifact.folder) in str(error.value) and "elete" in str(error.value)
    assert sorted(f.name for f in artifact.folder.iterdir()) == before


def test_a_folder_that_is_no_run_is_not_filled(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        run_recipe(TINY, tmp_path, SilentDisplay())
    with pytest.raises(UserError, match="neither a run"):
        locate(tmp_path)


def test_a_stage_that_keeps_nothing_says_so(tmp_path):
    with pytest.raises(RunError, match="nothing to learn from"):
        run_recipe(TINY, tmp_path / "run", SilentDisplay(), until="rejection")


def test_settings_younger_than_the_shipped_bases_leave_their_keys_alone(tmp_path):
    """Without a change of the keys, what ships and what users have made is found again."""
    path = Path(__file__).parents[2] / "recipes" / "nano.yaml"
    statuses = running.stage_status(load_recipe(path), path, tmp_path, list(load_recipe(path).stages), set())
    made = [name for name, status in statuses.items() if status == "prebuilt"]
    assert made == ["base", "midtrained", "student_base", "student_midtrained"]
    assert set(statuses.values()) == {"prebuilt", "to make"}  # what ships as models does not spare a run its work
    older = tmp_path / "older.yaml"
    older.write_text(path.read_text().replace("optimizer:", "optimiser:"))
    both = [load_recipe(each) for each in (path, older)]
    settings = [running.stage_settings(each, each.stages["reasoning_rl"], "nano") for each in both]
    assert settings[0] == settings[1] and settings[0]["settings"]["optimiser"] == "adamw"
    fewer = both[0].model_copy(update={"tokenizer_documents": 300})
    base = [running.stage_settings(each, each.stages["base"], "nano") for each in (both[0], fewer)]
    assert base[1] == base[0] | {"tokenizer_documents": 300}


def test_nano_zero_begins_with_the_bases_of_nano():
    """So that it takes minutes: what ships is found by the same keys."""
    nano, zero = (load_recipe(Path(__file__).parents[2] / "recipes" / f"{name}.yaml") for name in ("nano", "nano-zero"))
    for stage in ("base", "midtrained"):
        ours, theirs = (running.stage_settings(recipe, recipe.stages[stage], "test") for recipe in (zero, nano))
        assert ours == theirs


def test_the_shipped_recipes_are_valid():
    for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml"):
        assert load_recipe(path).stages


def test_exit_status_and_sentence_of_the_command_line(tmp_path):
    wrong = edited(tmp_path, lambda v: v.update(sed=1))
    for arguments, status, expected in (
            (["run", str(wrong)], 2, "unknown key 'sed'"),
            (["run", str(tmp_path / "none.yaml")], 2, "no such recipe"),
            (["run", str(TINY), "--until", "dinner", "--out", str(tmp_path / "r")], 2, "has no such stage"),
            (["chat", str(tmp_path)], 2, "neither a run"),
            (["eval", str(tmp_path), "--bench", "held-out"], 2, "neither a run")):
        process = spoutnik(*arguments)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == status and expected in errors and "Traceback" not in errors, errors
