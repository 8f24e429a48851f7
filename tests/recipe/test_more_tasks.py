"""Tasks beside the families: a user's own file, rewarded and evaluated, with and without "I don't know"."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from small_recipe import Listening

from spoutnik.errors import UserError
from spoutnik.files import read_jsonl
from spoutnik.recipe.keys import evaluation_protocol, key_of
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.tasks.abstention import Abstention, abstains

TINY = Path(__file__).with_name("tiny.yaml")
ROWS = [{"prompt": f"How many sides have {n} triangles?", "answer": str(3 * n), "verifier": "numeric", "split": split}
        for n, split in ((1, "train"), (2, "train"), (3, "train"), (4, "train"), (5, "held_out"), (6, "held_out"))]


def write(folder, rows=ROWS, **values):
    (folder / "sides.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(TINY.read_text()) | {"tasks": ["sides.jsonl"]} | values, sort_keys=False))
    return path


def test_a_file_of_one_s_own_is_rewarded_and_evaluated(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    listening = Listening()
    result = run_recipe(write(tmp_path), tmp_path / "run", listening, until="reasoning_rl")
    folder = next((tmp_path / "run" / "evaluations").glob("reasoning_rl-*"))
    asked = read_jsonl(folder / "samples.jsonl", ("task", "gold"))
    assert {row["gold"] for row in asked if row["task"] == "sides.jsonl"} == {"15", "18"}  # what is held out, and all of it
    assert any("sides.jsonl" in text for text in listening.said if text.startswith("verifiers audited"))
    assert result is not None
    kept = load_recipe(tmp_path / "run" / "recipe.yaml")  # as it was used: it can be run again from there
    assert Path(kept.tasks[0]).samefile(tmp_path / "sides.jsonl")


def test_keys_follow_the_file_s_content_where_it_decides(tmp_path):
    def keys(path):
        recipe = load_recipe(path)
        return [key_of(recipe, recipe.stages[name], name, str(path), {}) for name in ("base", "cold_start", "reasoning_rl")
                ] + [evaluation_protocol(recipe, recipe.stages["cold_start"])[1]]

    without = keys(TINY)
    before = keys(write(tmp_path))
    assert [a != b for a, b in zip(without, before)] == [False, False, True, True]
    assert keys(write(tmp_path)) == before
    other = keys(write(tmp_path, [*ROWS[:-1], ROWS[-1] | {"answer": "19"}]))
    assert [a != b for a, b in zip(before, other)] == [False, False, True, True]
    rewarded = keys(write(tmp_path, abstention=0.3))
    assert [a != b for a, b in zip(before, rewarded)] == [False, False, True, True]


def test_not_knowing_is_rewarded_where_the_recipe_says_so(tmp_path):
    recipe = load_recipe(write(tmp_path, abstention=0.3))
    *families, task = recipe.tasks_of()
    assert isinstance(task, Abstention) and not any(isinstance(family, Abstention) for family in families)
    problem = task.problems("held_out")[0]
    assert problem.prompt.endswith("say: I don't know.") and abstains("I don't know.")
    assert [task.verify(problem, answer) for answer in ("15", "I don't know.", "14")] == [1.0, 0.3, 0.0]


@pytest.mark.parametrize("values, message", [
    ({"tasks": [], "abstention": 0.3}, "abstention is of the tasks named under `tasks`, and there are none"),
    ({"hygiene": {"near_duplicates": True}}, "hygiene is of the traces that stages read with `file`")])
def test_a_setting_that_would_be_ignored_is_refused(tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        load_recipe(write(tmp_path, **values))


@pytest.mark.parametrize("tasks, message", [
    (["other.jsonl"], "recipe.yaml: tasks: .*other.jsonl"), (["countdwn"], "Did you mean 'countdown'"),
    (["gym-no_such_set"], "no task 'gym-no_such_set'")])
def test_a_task_that_is_none_is_refused_before_the_first_stage(tmp_path, tasks, message):
    with pytest.raises(UserError, match=message):
        load_recipe(write(tmp_path, tasks=tasks))
