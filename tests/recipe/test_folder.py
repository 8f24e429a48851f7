"""The folder of a run tells the truth: one run at a time, the recipe as it was used, no stage forgotten, nothing stale."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_recipe import TRACES, Listening, prepared

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json, sha256_file
from spoutnik.recipe.folder import EARLIER, RunFolder, used_recipe
from spoutnik.recipe.run import run_recipe, with_seed
from spoutnik.recipe.schema import load_recipe, read_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run, to be copied: the folder with recipe, traces and `run`."""
    folder = tmp_path_factory.mktemp("small")
    run_recipe(prepared(folder), folder / "run", SilentDisplay())
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


# One run at a time

def test_two_runs_in_one_folder_are_refused_with_a_sentence(copied):
    before = sorted((path, path.stat().st_mtime_ns) for path in (copied / "run").rglob("*") if path.name != "run.lock")
    with RunFolder(copied / "run").lock():
        with pytest.raises(RunError, match=rf"another run works in this folder \(process {os.getpid()}\).*--out"):
            run_recipe(copied / "small.yaml", copied / "run", SilentDisplay())
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (copied / "run").rglob("*") if path.name != "run.lock")
    assert set(run_recipe(copied / "small.yaml", copied / "run", SilentDisplay()).origins.values()) == {"already made"}


def test_the_lock_of_a_dead_process_does_not_hold(tmp_path):
    program = ("import sys; from pathlib import Path; from spoutnik.recipe.folder import RunFolder\n"
               "with RunFolder(Path(sys.argv[1])).lock():\n    print('held', flush=True); sys.stdin.read()")
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE,
                              text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=f"process {holder.pid}"), RunFolder(tmp_path).lock():
        pytest.fail("locked twice")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with RunFolder(tmp_path).lock():
        pass
    RunFolder(tmp_path).refuse_foreign()  # a folder with nothing but the lock is a run's


def test_a_folder_with_braces_in_its_name_is_refused_with_the_same_sentence(tmp_path):
    run = RunFolder(tmp_path / "{a}")
    refusal = rf"\{{a}}: another run works in this folder \(process {os.getpid()}\)"
    with run.lock(), pytest.raises(RunError, match=refusal), run.lock():
        pytest.fail("locked twice")


# The recipe

@pytest.mark.parametrize("how", ["edited", "broken", "deleted"])
def test_a_recipe_that_changes_in_the_middle_is_told_as_it_was_used(tmp_path, how):
    path = prepared(tmp_path)
    text = path.read_text()

    def change(stage: str) -> None:
        if how == "deleted":
            path.unlink(missing_ok=True)
        else:
            path.write_text(text.replace("0.01", "0.07654") if how == "edited" else "{")

    run_recipe(path, tmp_path / "run", Listening(at_stage=change))
    kept = (tmp_path / "run" / "recipe.yaml").read_text()
    assert kept == text.replace("file: traces.jsonl", "file: ../traces.jsonl")
    report = (tmp_path / "run" / "report.html").read_text()
    assert "learning_rate: 0.01" in report and "0.07654" not in report


def test_the_run_s_own_recipe_makes_the_same_run(copied):
    result = run_recipe(copied / "run" / "recipe.yaml", copied / "run", SilentDisplay())
    assert set(result.origins.values()) == {"already made"}


def test_a_seed_of_the_command_line_is_in_the_kept_recipe(tmp_path):
    path = prepared(tmp_path)
    run_recipe(path, tmp_path / "run", SilentDisplay(), until="base", seed=5)
    assert load_recipe(tmp_path / "run" / "recipe.yaml").seed == 5 == read_json(tmp_path / "run" / "run.json")["seed"]
    path.write_text(path.read_text().replace("seed: 0\n", ""))
    kept = run_recipe(path, tmp_path / "run", SilentDisplay(), until="base", seed=5)
    assert kept.origins == {"base": "already made"} and load_recipe(tmp_path / "run" / "recipe.yaml").seed == 5


@pytest.mark.parametrize("change", [
    lambda text: f"# mine\n---\n{text}", lambda text: f"%YAML 1.1\n---\n{text}", lambda text: text.replace("\n", "\n  "),
    lambda text: json.dumps(yaml.safe_load(text))])
def test_a_seed_finds_its_place_in_every_form_of_a_recipe(tmp_path, change):
    path = prepared(tmp_path)
    path.write_text(change(path.read_text().replace("seed: 0\n", "").replace("name:", "\nname:", 1)))
    text, recipe = read_recipe(path)
    path.write_text(used_recipe(text, with_seed(recipe, 5), path, tmp_path))
    assert load_recipe(path) == with_seed(recipe, 5)


@pytest.mark.parametrize("change", [
    lambda text: text.replace("file: traces", "file: &traces traces") + "  again: {kind: sft, from: base, file: *traces, "
    "settings: {learning_rate: 0.01}}\n",
    lambda text: text.replace("  mine:", "  mine: &mine") + "  again: *mine\n",
    lambda text: text.replace("  mine:", "  mine: &mine") + "  again: {<<: *mine, general: 3}\n"])
def test_aliases_in_a_recipe_find_their_files_from_the_run_s_folder(tmp_path, change):
    path, kept = prepared(tmp_path), tmp_path / "runs" / "x" / "recipe.yaml"
    path.write_text(change(path.read_text()))
    text, recipe = read_recipe(path)
    kept.parent.mkdir(parents=True)
    kept.write_text(used_recipe(text, recipe, path, kept.parent))
    for name in ("mine", "again"):
        assert load_recipe(kept).stages[name].file.resolve() == recipe.stages[name].file


# The index

def test_until_forgets_no_stage(copied):
    before = read_json(copied / "run" / "run.json")
    result = run_recipe(copied / "small.yaml", copied / "run", SilentDisplay(), until="base")
    assert list(result.origins) == ["base"]
    after = read_json(copied / "run" / "run.json")
    assert after["stages"] == before["stages"] and after["order"] == ["base", "mine"]
    assert after["origins"] == {"base": "already made", "mine": "already made"}
    assert "mine" in (copied / "run" / "report.html").read_text()


def test_stages_of_other_settings_stay_and_are_called_so(copied):
    before = read_json(copied / "run" / "run.json")
    path = prepared(copied, lambda v: v["stages"]["base"]["settings"].update(learning_rate=0.02), "other.yaml")
    run_recipe(path, copied / "run", SilentDisplay(), until="base")
    after = read_json(copied / "run" / "run.json")
    assert after["stages"]["mine"] == before["stages"]["mine"] and after["stages"]["base"] != before["stages"]["base"]
    assert after["origins"] == {"base": "made now", "mine": EARLIER}


@pytest.mark.parametrize("stage", ["base", "mine"])
def test_a_damaged_artifact_makes_no_stage_forgotten(copied, stage):
    before = read_json(copied / "run" / "run.json")
    weights = copied / "run" / before["stages"][stage] / "model.safetensors"
    weights.write_bytes(b"x")
    with pytest.raises(RunError, match="is damaged"):
        run_recipe(copied / "small.yaml", copied / "run", SilentDisplay())
    assert read_json(copied / "run" / "run.json")["stages"] == before["stages"]
    if stage == "mine":  # not needed
        display = Listening()
        run_recipe(copied / "small.yaml", copied / "run", display, until="base")
        assert any("is damaged" in text for text in display.said)
        assert read_json(copied / "run" / "run.json")["stages"] == before["stages"]


def test_a_damaged_index_is_written_anew_and_said(copied):
    (copied / "run" / "run.json").write_text("{")
    display = Listening()
    run_recipe(copied / "small.yaml", copied / "run", display)
    assert any("run.json: was damaged" in text for text in display.said)
    assert read_json(copied / "run" / "run.json")["order"] == ["base", "mine"]


# --from

def test_from_begins_anew_even_after_an_interruption_and_a_run_without_it_goes_on(copied):
    path, run = copied / "small.yaml", copied / "run"
    made = read_json(run / "run.json")["stages"]["mine"]
    content = read_json(run / made / "manifest.json")["content"]
    for _ in range(2):
        display = Listening(stop=("mine", 3))
        with pytest.raises(KeyboardInterrupt):
            run_recipe(path, run, display, redo_from="mine")
        assert display.first["mine", "training"] == 1, "it went on with a stale checkpoint"
    display = Listening()
    result = run_recipe(path, run, display)
    assert result.origins == {"base": "already made", "mine": "made now"} and display.first["mine", "training"] == 3
    assert any("--from began" in text for text in display.said)
    assert result.artifacts[-1].content == content and not list((run / "working").iterdir())
    assert run_recipe(path, run, SilentDisplay()).origins["mine"] == "already made"


def test_checkpoints_of_other_settings_are_forgotten_by_from(tmp_path):
    path = prepared(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(path, tmp_path / "run", Listening(stop=("mine", 3)))
    assert list((tmp_path / "run" / "working").glob("mine-*.progress"))
    (tmp_path / "run" / "working" / "mine-other-0123456789ab.progress").mkdir()
    RunFolder(tmp_path / "run").forget_progress(["mine"])
    assert [p.name for p in (tmp_path / "run" / "working").glob("*.progress")] == ["mine-other-0123456789ab.progress"]


# Keys and files

def test_equal_content_is_equal_wherever_and_whenever_it_was_written(copied, monkeypatch):
    (copied / "moved").mkdir()
    (copied / "traces.jsonl").rename(copied / "moved" / "t.jsonl")
    os.utime(copied / "moved" / "t.jsonl", (1, 1))
    monkeypatch.setenv("HOME", str(copied))
    monkeypatch.chdir(copied.parent)
    for file in ("moved/t.jsonl", str(copied / "moved" / "t.jsonl"), "~/moved/t.jsonl", "./moved/../moved/t.jsonl"):
        path = prepared(copied / "recipes", lambda v, f=file: v["stages"]["mine"].update(file=f))
        (copied / "recipes" / "traces.jsonl").unlink()
        if not file.startswith(("/", "~")):
            path = Path(shutil.move(path, copied / "moved.yaml"))
        result = run_recipe(path, copied / "run", SilentDisplay())
        assert set(result.origins.values()) == {"already made"}, file


def test_what_changes_no_result_changes_no_key(copied):
    def change(values):
        values.update(name="other", description="x", checkpoint_seconds=7)

    path = prepared(copied, change, "other.yaml")
    path.write_text("# a comment\n" + path.read_text())
    assert set(run_recipe(path, copied / "run", SilentDisplay()).origins.values()) == {"already made"}


def test_other_traces_make_another_artifact_and_its_manifest_says_what_was_read(copied):
    path = copied / "traces.jsonl"
    path.write_text(path.read_text() + json.dumps(TRACES[0]) + "\n" + json.dumps(TRACES[1] | {"thought": "z" * 999}) + "\n")
    display = Listening()
    result = run_recipe(copied / "small.yaml", copied / "run", display)
    assert result.origins == {"base": "already made", "mine": "made now"}
    manifest = result.artifacts[-1].manifest
    (report,) = manifest["data"]
    assert {key: report[key] for key in ("source", "read", "used", "too_long", "duplicate", "empty")} == {
        "source": "traces.jsonl", "read": 14, "used": 12, "too_long": 1, "duplicate": 1, "empty": 0}
    assert manifest["metrics"]["traces"] == 12 and manifest["contents"]["file"] == sha256_file(path)
    said = [text for text in display.said if "traces.jsonl" in text]
    assert said == ["mine: traces.jsonl: recognized as prompt/thought/answer",
                    "mine: Warning: traces.jsonl: 14 traces read, 12 used, 1 too long, 1 duplicate. 14 % of them teach "
                    "nothing. Mend the source."]
    assert "2 of 14 traces of traces.jsonl left out" in (copied / "run" / "report.html").read_text()


# Found before the first stage

@pytest.mark.parametrize("change, what", [
    (lambda v: v["stages"]["mine"].update(file="none.jsonl"), "stages.mine.file"),
    (lambda v: v["stages"]["mine"].update(file="/dev/null"), "is no regular file"),
    (lambda v: v["stages"]["mine"].update(file="~nobody-of-this-name/t.jsonl"), "home folder"),
    (lambda v: v["evaluation"].update(max_tokens=256), "evaluation.max_tokens = 256"),
    (lambda v: v["evaluation"].update(max_tokens=250), "evaluation.max_tokens = 250"),
    (lambda v: v["stages"].update(rl={"kind": "grpo", "from": "mine", "settings": {
        "steps": 1, "max_tokens": 300, "learning_rate": 0.01}}), "stages.rl.settings.max_tokens = 300"),
    (lambda v: v["stages"].update(kept={"kind": "reject", "from": "mine", "settings": {"max_tokens": 256}}),
     "stages.kept.settings.max_tokens = 256"),
])
def test_what_cannot_work_is_found_before_the_first_stage(tmp_path, change, what):
    path = prepared(tmp_path, change)
    with pytest.raises(UserError) as error:
        run_recipe(path, tmp_path / "run", SilentDisplay())
    assert str(path) in str(error.value) and what in str(error.value) and not (tmp_path / "run").exists()


def test_broken_traces_are_found_before_the_first_stage(tmp_path):
    path = prepared(tmp_path)
    (tmp_path / "traces.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="line 1"):
        run_recipe(path, tmp_path / "run", SilentDisplay())
    assert not (tmp_path / "run").exists()


def test_a_made_base_counts_prompts_by_its_tokens(copied):
    path = prepared(copied, lambda v: v["stages"].update(rl={"kind": "grpo", "from": "mine", "settings": {
        "steps": 1, "max_tokens": 236, "learning_rate": 0.01}}), "longer.yaml")
    with pytest.raises(UserError, match=r"stages.rl.settings.max_tokens = 236: with a prompt of \d+ tokens"):
        run_recipe(path, copied / "run", SilentDisplay())
