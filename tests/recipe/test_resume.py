"""Killed in the middle of rejection sampling or of an evaluation, a run goes on and ends with the same bytes; a finished stage
is extended from its end where its schedule allows that; what decides a result is in its key."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_recipe import Listening, prepared

from spoutnik.files import read_json, sha256_file
from spoutnik.recipe import artifacts
from spoutnik.recipe.extension import Finished, can_grow, go_on, same_start
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.keys import key_of, stage_settings
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import Recipe, load_recipe
from spoutnik.tasks import FAMILIES
from spoutnik.tasks import verifier_code as code_of_verifiers
from spoutnik.tasks.verifier_code import code_hash, verifier_code

# An untrained model is never right: here every completion is kept.
PROGRAM = """
import sys
from pathlib import Path
from spoutnik.commands.progress import SilentDisplay
from spoutnik.recipe.run import run_recipe
from spoutnik.train import reject
reject.select = lambda completions, settings: list(completions)
run_recipe(Path(sys.argv[1]), Path(sys.argv[2]), SilentDisplay())
"""


def rejecting(folder: Path) -> Path:
    def change(values):
        values["evaluation"].update(problems_per_family=8, samples=4, max_tokens=96)
        values["stages"].pop("mine")
        settings = {"prompts": 40, "samples": 4, "max_tokens": 150}
        values["stages"]["kept"] = {"kind": "reject", "from": "base", "settings": settings}

    return prepared(folder, change)


def started(recipe: Path, out: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(recipe), str(out)], stderr=subprocess.PIPE, text=True)


def results(out: Path) -> dict[str, object]:
    """Everything but times: traces and samples by hash, the evaluation without its bill."""
    files = {file.relative_to(out).as_posix(): sha256_file(file) for name in ("traces.jsonl", "samples.jsonl")
             for file in out.rglob(name)}
    evaluations = {file.relative_to(out).as_posix(): read_json(file) | {"bill": None} for file in out.rglob("evaluation.json")}
    return files | evaluations


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    process = started(rejecting(folder), folder / "run")
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    return results(folder / "run")


@pytest.mark.parametrize("what", ["kept-*.progress", "base-*-????????.progress"], ids=["rejection", "evaluation"])
def test_killed_at_random_it_ends_with_the_same_bytes(tmp_path, whole, what):
    rng, recipe, kills = random.Random(what), rejecting(tmp_path), 0
    while kills < 2:
        process = started(recipe, tmp_path / "run")
        seen, last = rng.randrange(2, 6), None  # how often the file is seen to have been replaced
        while process.poll() is None and seen:
            files = list((tmp_path / "run" / "working").glob(f"{what}/*.safetensors"))
            now = [(file.name, file.stat().st_ino) for file in files if file.exists()]
            seen, last = seen - (now != last and bool(now)), now or last
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills, "it ended before it could be killed"
    assert list((tmp_path / "run" / "working").glob(what)) or kills < 2
    process = started(recipe, tmp_path / "run")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert results(tmp_path / "run") == whole and not list((tmp_path / "run" / "working").iterdir())


# Further steps

def longer(steps: int, **settings):
    return lambda values: values["stages"]["base"]["settings"].update(steps=steps, **settings)


def test_a_finished_stage_goes_on_from_its_end_to_the_same_bytes(tmp_path):
    out, until = tmp_path / "run", "base"
    short = run_recipe(prepared(tmp_path, longer(4)), out, Listening(), until=until)
    display = Listening()
    extended = run_recipe(prepared(tmp_path, longer(9)), out, display, until=until).artifacts[0]
    assert display.first["base", "training"] == 4 and any("goes on from step 3" in text for text in display.said)
    assert short.artifacts[0].folder.exists() and len(extended.log) == 9
    other = tmp_path / "other"
    direct = run_recipe(prepared(other, longer(9)), other / "run", Listening(), until=until).artifacts[0]
    assert extended.content == direct.content and extended.manifest["key"] == direct.manifest["key"]
    again = Listening()
    run_recipe(prepared(tmp_path, longer(11)), out, again, until=until)
    assert again.first["base", "training"] == 9


def test_a_schedule_that_ends_says_why_it_begins_anew(tmp_path):
    run_recipe(prepared(tmp_path, longer(12, schedule="cosine")), tmp_path / "run", Listening(), until="base")
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    display = Listening()
    run_recipe(prepared(tmp_path, longer(14, schedule="cosine")), tmp_path / "run", display, until="base")
    assert display.first["base", "training"] == 1
    assert any("12 of its 14 steps" in text and "cosine" in text and "constant" in text for text in display.said)


def test_what_depends_on_the_steps_is_named(tmp_path):
    run, said = RunFolder(tmp_path), []
    for steps, settings in ((4, {}), (40, {"warmup": 1, "general_from": 0.5})):
        stage = grpo_stage(steps=2 * steps, **settings)
        said.append(go_on(run, stage, Finished("x", steps, steps - 1), tmp_path / "p"))
    assert "Give warmup: 2" in said[0] and "With general_from: 0" in said[1] and not list(tmp_path.iterdir())
    stage = grpo_stage(steps=9, warmup=1, general_share=0.0)
    assert "no checkpoint" in go_on(run, stage, Finished("x", 4, None), tmp_path / "p")


def test_other_settings_are_no_start(tmp_path):
    run_recipe(prepared(tmp_path, longer(4)), tmp_path / "run", Listening(), until="base")
    display = Listening()
    run_recipe(prepared(tmp_path, longer(6, learning_rate=0.02)), tmp_path / "run", display, until="base")
    assert display.first["base", "training"] == 1 and not display.said


def test_a_finished_rl_stage_goes_on_from_its_end_to_the_same_bytes(tmp_path):
    def recipe(folder: Path, steps: int) -> Path:
        values = yaml.safe_load(Path(__file__).with_name("tiny.yaml").read_text())
        stages = {name: values["stages"][name] for name in ("student_base", "cold_start", "reasoning_rl")}
        stages["cold_start"]["from"] = "student_base"
        stages["reasoning_rl"]["settings"].update(steps=steps, warmup=1, max_tokens=16, prompts_per_step=2)
        folder.mkdir(exist_ok=True)
        (folder / "rl.yaml").write_text(yaml.safe_dump(values | {"stages": stages}, sort_keys=False))
        return folder / "rl.yaml"

    accept, folder, label = ["student_base", "cold_start", "reasoning_rl"], tmp_path / "a", "learning by reward"
    run_recipe(recipe(folder, 3), folder / "run", Listening(), accept=accept)
    display = Listening()
    extended = run_recipe(recipe(folder, 6), folder / "run", display, accept=accept).artifacts[-1]
    assert display.first["reasoning_rl", label] == 3 and any("goes on from step 2" in text for text in display.said)
    direct = run_recipe(recipe(tmp_path / "b", 6), tmp_path / "b" / "run", Listening(), accept=accept).artifacts[-1]
    assert extended.content == direct.content and [row["step"] for row in extended.log] == list(range(6))


def grpo_stage(**settings):
    values = yaml.safe_load(Path(__file__).with_name("tiny.yaml").read_text())
    values["stages"]["all_scenarios_rl"]["settings"].update(settings)
    return Recipe.model_validate(values).stages["all_scenarios_rl"]


def test_rl_grows_where_neither_schedule_nor_general_prompts_depend_on_the_steps():
    assert can_grow(grpo_stage(steps=40, general_share=0.0))
    assert can_grow(grpo_stage(steps=40, general_from=0.0))
    assert not can_grow(grpo_stage(steps=40, general_from=0.5))  # the later half of 40 is not the later half of 80
    assert not can_grow(grpo_stage(steps=40, general_share=0.0, schedule="cosine"))
    stable = grpo_stage(steps=100, general_share=0.0, schedule="wsd")
    assert same_start(stable, 100, 200, 80) and not same_start(stable, 100, 200, 100)


# What is in the hashes

def test_the_reward_model_s_head_is_in_its_content(tmp_path):
    contents = []
    for value in (b"a", b"b", b"a"):
        working = tmp_path / "w"
        working.mkdir()
        (working / "model.safetensors").write_bytes(b"m")
        (working / "score.safetensors").write_bytes(value)
        contents.append(artifacts.seal(working, tmp_path / "final", "rm", "key", {}).content)
    assert contents[0] == contents[2] != contents[1]


def test_comments_and_blank_lines_are_no_code():
    source = 'x = "# no comment"\n\n\ndef f():  # why\n    # because\n    return x   \n'
    assert code_hash(source) == code_hash('x = "# no comment"\ndef f():\n    return x\n')
    assert code_hash(source) != code_hash(source.replace("no comment", "a comment"))


def test_another_verifier_makes_other_keys_where_it_verifies_and_nowhere_else(monkeypatch):
    path = Path(__file__).with_name("tiny.yaml")
    recipe = load_recipe(path)
    names = ["base", "cold_start", "reasoning_rl", "rejection", "reward_model"]

    def keys() -> list[str]:
        return [key_of(recipe, recipe.stages[name], name, str(path), {}) for name in names]

    now = code_of_verifiers.FIRST | verifier_code(list(FAMILIES.values()))  # as if all were so from the first
    monkeypatch.setattr(code_of_verifiers, "FIRST", now)
    before = keys()
    for module, changes in (("families.letters", True), ("language", True), ("families.liars", False)):
        monkeypatch.setattr(code_of_verifiers, "FIRST", now | {module: "what it was"})
        assert [a != b for a, b in zip(before, keys(), strict=True)] == [False, False, changes, changes, False], module


def test_limits_and_paths_are_no_settings():
    path = Path(__file__).with_name("tiny.yaml")
    recipe = load_recipe(path)
    stage = recipe.stages["reasoning_rl"]
    wide = stage.model_copy(update={"settings": stage.settings.model_copy(update={"max_mismatch_kl": 1.0})})
    assert stage_settings(recipe, wide, "x") == stage_settings(recipe, stage, "x")
    assert json.dumps(stage_settings(recipe, stage, "x")["settings"]["max_mismatch_kl"]) == "0.05"


def test_a_warm_up_that_is_not_given_has_a_key_of_its_own_where_it_is_another():
    path = Path(__file__).with_name("tiny.yaml")
    recipe = load_recipe(path)

    def settings(name: str, **changes) -> dict:
        stage = recipe.stages[name]
        values = {key: getattr(stage.settings, key) for key in stage.settings.model_fields_set} | changes
        return stage_settings(recipe, stage.model_copy(update={"settings": type(stage.settings)(**values)}), "x")

    assert settings("reasoning_rl", steps=60) == settings("reasoning_rl", steps=60, warmup=10)
    assert settings("reasoning_rl", steps=12) != settings("reasoning_rl", steps=12, warmup=10)
    assert settings("reasoning_rl", steps=12) == settings("reasoning_rl", steps=12, warmup=6)
    assert settings("cold_start") != settings("cold_start", warmup=10) != settings("cold_start", warmup=9)
