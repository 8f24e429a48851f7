"""Settings that are younger than what ships: off, they change no key; on, a recipe with all of them runs to its end."""

import random
from pathlib import Path

import pytest
import yaml

from spoutnik.commands.progress import SilentDisplay
from spoutnik.evals.benches import trained_tasks
from spoutnik.recipe.keys import evaluation_protocol, stage_settings
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import Recipe, load_recipe
from spoutnik.tasks import is_held_out
from spoutnik.train import reject

TINY = Path(__file__).with_name("tiny.yaml")
NANO = Path(__file__).parents[2] / "recipes" / "nano.yaml"
SWITCHES = {  # where in a recipe -> its value, and the stages of tiny.yaml whose results it changes
    ("held_out",): ("structure", {"base", "student_base", "midtrained", "cold_start", "reasoning_rl", "rejection", "second_sft",
                                  "all_scenarios_rl", "distilled"}),
    ("stages", "midtrained", "echo_share"): (0.1, {"midtrained"}),
    ("stages", "midtrained", "wishes"): ("any", {"midtrained"}),
    ("stages", "second_sft", "wishes"): ("any", {"second_sft"}),
    ("stages", "rejection", "settings", "language_rule"): ("strict", {"rejection"}),
    ("stages", "reward_model", "settings", "pairs"): ("relevance", {"reward_model"}),
    ("stages", "reward_model", "settings", "wishes"): ("any", {"reward_model"}),
    ("stages", "all_scenarios_rl", "settings", "wishes"): ("any", {"all_scenarios_rl"}),
    ("stages", "student_base", "settings", "forum_thought_share"): (0.1, {"student_base"}),
    ("stages", "midtrained", "settings", "forum_thought_share"): (0.1, {"midtrained"}),
    ("stages", "all_scenarios_rl", "settings", "updates_per_rollout"): (2, {"all_scenarios_rl"}),
    ("stages", "all_scenarios_rl", "settings", "share_prompts"): (True, {"all_scenarios_rl"}),
    ("stages", "all_scenarios_rl", "settings", "rewards"): ({"language_rule": "strict"}, {"all_scenarios_rl"}),
}


def switched(values: dict, path: tuple[str, ...], value: object) -> dict:
    inner = values
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return values


def settings_of(values: dict) -> dict[str, dict]:
    recipe = Recipe.model_validate(values)
    return {name: stage_settings(recipe, stage, "tiny") for name, stage in recipe.stages.items()}


@pytest.mark.parametrize("path", SWITCHES, ids=".".join)
def test_a_switch_changes_the_keys_of_the_stages_that_it_changes_and_off_it_is_in_none(path):
    value, changed = SWITCHES[path]
    text = TINY.read_text()
    off, on = settings_of(yaml.safe_load(text)), settings_of(switched(yaml.safe_load(text), path, value))
    assert {name for name in off if off[name] != on[name]} == changed
    name = next(iter(value)) if isinstance(value, dict) else path[-1]
    assert all(f"'{name}'" in str(on[stage]) and f"'{name}'" not in str(off[stage]) for stage in changed)


def test_what_is_held_out_changes_the_questions_of_the_evaluation():
    recipe = load_recipe(TINY)
    other = recipe.model_copy(update={"held_out": "structure"})
    protocols = [evaluation_protocol(each, recipe.stages["cold_start"]) for each in (recipe, other)]
    assert protocols[0][0] == protocols[1][0] and protocols[0][1] != protocols[1][1]


def test_switches_of_general_prompts_need_some():
    values = yaml.safe_load(NANO.read_text())
    for stage, where in (("cold_start", ()), ("reasoning_rl", ("settings",))):
        with pytest.raises(ValueError, match="wishes is of general"):
            Recipe.model_validate(switched(yaml.safe_load(NANO.read_text()), ("stages", stage, *where, "wishes"), "any"))
    with pytest.raises(ValueError, match="instance"):
        Recipe.model_validate(values | {"held_out": "levels"})


def test_a_recipe_with_every_switch_on_runs_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(reject, "select", lambda completions, settings: list(completions))  # an untrained model is never right
    values = yaml.safe_load(TINY.read_text())
    for path, (value, _) in SWITCHES.items():
        switched(values, path, value)
    recipe = tmp_path / "switched.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    result = run_recipe(recipe, tmp_path / "run", SilentDisplay(), accept=["reward_model"])  # two steps teach it nothing
    made = {artifact.stage: artifact for artifact in result.artifacts}
    assert len(made) == 10
    assert set(made["second_sft"].evaluation["helpfulness"]) == {"content", "form"}
    assert {"held_out_pairs_of_relevance", "constant_score", "right_score"} <= set(made["reward_model"].manifest["metrics"])
    assert made["midtrained"].manifest["settings"]["held_out"] == "structure"
    tasks = trained_tasks(made["distilled"].folder)
    assert [(task.name, task.held_out) for task in tasks] == [("arithmetic", "structure"), ("letters", "structure")]
    assert is_held_out(tasks[0].sample(random.Random(0), "held_out"))
