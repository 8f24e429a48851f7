"""Variants: changes merged into a recipe, checked by its schema, and refused where they change nothing."""

from pathlib import Path

import pytest
from small_experiment import experiment
from small_recipe import prepared

from spoutnik.errors import UserError
from spoutnik.experiment.grid import build_grid
from spoutnik.experiment.schema import read_experiment
from spoutnik.experiment.variants import described, merged, nested, variant_recipes


def test_dotted_and_nested_changes_are_merged():
    values = {"stages": {"rl": {"settings": {"steps": 5, "lr": 1.0}}}, "seed": 0}
    changes = nested({"stages.rl.settings.steps": 7, "stages.rl": {"settings": {"group": 4}}, "seed": None}, "x")
    after = merged(values, changes, "x")
    assert after == {"stages": {"rl": {"settings": {"steps": 7, "lr": 1.0, "group": 4}}}}
    assert values["seed"] == 0 and described(values, after) == "rl.steps 5 → 7; rl.group 4; no seed"


@pytest.mark.parametrize("changes, words", [
    ({"a.b": 1, "a": {"b": 2}}, "changes what another key has changed"),
    ({"a.b": 1, "a.b.c": 2}, "changes what another key has changed"),
    ({"a..b": 1}, "a part of it is empty"),
])
def test_changes_that_contradict_each_other_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        nested(changes, "f.yaml: variants.v")


def test_what_is_not_there_cannot_be_taken_away():
    with pytest.raises(UserError, match="stages.minne = null: there is nothing to take away. Did you mean 'mine'"):
        merged({"stages": {"mine": {}}}, nested({"stages.minne": None}, "v"), "v")


def test_a_variant_is_checked_by_the_recipes_own_schema(tmp_path):
    def misspelled(values):
        values["variants"]["fast"]["changes"] = {"stages.mine.settings.learning_rat": 0.1}

    with pytest.raises(UserError, match="variants.fast: the recipe would be wrong. unknown key '.*learning_rat'. Did you mean"):
        variants_of(experiment(tmp_path, misspelled))


def variants_of(path: Path):
    return variant_recipes(read_experiment(path)[1], path)


def test_what_is_varied_is_said_by_the_settings_or_by_the_file(tmp_path):
    def changed(values):
        values["variants"]["fast"].pop("varied")

    _, recipes, varied = variants_of(experiment(tmp_path, changed))
    assert varied == {"plain": "the recipe as it is", "fast": "mine.learning_rate 0.01 → 0.1"}
    assert recipes["fast"][1].stages["mine"].file == tmp_path / "traces.jsonl"
    assert recipes["plain"][1].evaluation.problems_per_family == 3


def test_equal_prefixes_are_one_job(tmp_path):
    grid = build_grid([experiment(tmp_path)])
    making = [job for job in grid.jobs.values() if not job.evaluates]
    assert sorted((job.stage, job.variant, job.seed) for job in making) == [
        ("base", "plain", 0), ("mine", "fast", 0), ("mine", "fast", 1), ("mine", "plain", 0), ("mine", "plain", 1)]
    assert len(grid.jobs) == 5 + 4  # each of the models that are compared is evaluated
    order = list(grid.jobs)
    assert all(order.index(need) < order.index(job.symbol) for job in grid.jobs.values() for need in job.needs.values())


@pytest.mark.parametrize("change, words", [
    (lambda v: v["variants"]["fast"].update(changes={"checkpoint_seconds": 5.0}), "are the same model"),
    (lambda v: v["variants"].update(twin={}) or v["findings"].update(more=v["findings"]["faster_is_better"] | {
        "a": {"variant": "twin", "stage": "base"}, "b": {"variant": "twin", "stage": "mine"}}), "differ in nothing"),
    (lambda v: v["variants"].update(lonely={"changes": {"seed": 3}}), "variants.lonely: no finding compares it"),
    (lambda v: v["findings"]["faster_is_better"].update(metric="acuracy"), "no metric 'acuracy'. Did you mean 'accuracy'"),
    (lambda v: v["findings"]["faster_is_better"].update(metric="pass@4"), "needs 5 samples of a problem"),
    (lambda v: v["findings"]["loss_is_the_same"].update(metric="log.los"), "sft stage has no 'los'. Did you mean 'loss'"),
    (lambda v: v["findings"]["loss_is_the_same"].update(metric="area.reward"), "log of a sft stage has no 'reward'"),
    (lambda v: v["findings"]["loss_is_the_same"].update(metric="made.lose"), "manifest of a sft stage has no 'lose'"),
    (lambda v: v["findings"]["faster_is_better"]["a"].update(layout="textbook"), "'mine' converses"),
    (lambda v: v["findings"]["faster_is_better"]["a"].update(stage="min"), "no such stage. Did you mean 'mine'"),
    (lambda v: v["findings"]["faster_is_better"]["a"].update(variant="plane"), "no variant 'plane'. Did you mean 'plain'"),
    (lambda v: v.update(seeds=[1, 1]), "a seed stands twice"),
    (lambda v: v.update(seeds=[True]), "true and false are no seeds"),
    (lambda v: v.update(recipe="nosuch"), "grid.yaml: recipe = nosuch: no such recipe"),
    (lambda v: v.update(sedes=v.pop("seeds")), "unknown key 'sedes'"),
    (lambda v: v.pop("variants"), "is no experiment"),
])
def test_what_cannot_be_decided_is_refused_before_anything_is_made(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        build_grid([experiment(tmp_path, change)])


def test_a_recipe_is_told_from_an_experiment(tmp_path):
    with pytest.raises(UserError, match="This is a recipe: spoutnik run takes it"):
        read_experiment(prepared(tmp_path))
