"""A recipe's `scale` section: what it refuses, which keys it changes, and that one process alone needs none of it."""

import pytest
import torch.distributed
import yaml
from small_recipe import Listening, prepared

from spoutnik.errors import UserError
from spoutnik.model.transformer import Transformer
from spoutnik.recipe.keys import stage_settings
from spoutnik.recipe.plan import plan_recipe
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.world import World, started_in, team, together, world


def scaled(folder, scale=None):
    def change(values):
        values["stages"]["kept"] = {"kind": "reject", "from": "mine", "settings": {"prompts": 2}}
        if scale is not None:
            values["scale"] = scale

    return prepared(folder, change)


@pytest.mark.parametrize("scale, sentence", [
    ({"virtual_shards": 12}, "virtual_shards = 12: is no power of two. Write 8 or 16"),
    ({"virtual_shards": 8, "reproducible": False}, "virtual_shards is of reproducible sums, and reproducible is false"),
    ({"virtual_shards": 0}, "virtual_shards"), ({"timeout": 0}, "timeout"), ({"processes": 4}, "processes"),
])
def test_what_makes_no_sense_is_refused(tmp_path, scale, sentence):
    with pytest.raises(UserError) as error:
        load_recipe(scaled(tmp_path, scale))
    assert sentence in str(error.value) and "small.yaml" in str(error.value)


def test_what_changes_bytes_is_in_the_keys_of_trained_stages_alone(tmp_path):
    def settings(scale):
        recipe = load_recipe(scaled(tmp_path, scale))
        return {name: stage_settings(recipe, stage, "small.yaml") for name, stage in recipe.stages.items()}

    plain, fixed = settings(None), settings({})
    assert settings({"reproducible": False}) == settings({"reproducible": False, "timeout": 5}) == plain
    assert settings({"timeout": 5}) == fixed and fixed["kept"] == plain["kept"]
    assert all(fixed[name] == plain[name] | {"virtual_shards": 8} for name in ("base", "mine"))
    assert settings({"virtual_shards": 16})["base"]["virtual_shards"] == 16


def test_more_processes_than_shards_are_refused_before_anything_is_made(tmp_path):
    refusal = "virtual_shards = 8.*9 processes.*virtual_shards: 16"
    with started_in(World(rank=0, size=9)), pytest.raises(UserError, match=refusal):
        run_recipe(scaled(tmp_path, {}), tmp_path / "run", Listening())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_one_gpu_for_all_processes_is_refused_before_anything_is_made(device, tmp_path):
    recipe = scaled(tmp_path, {})
    recipe.write_text(recipe.read_text() + f"device: {device}\n")
    refusal = f"device = {device}: all 2 processes .* Write device: cuda, of which each process takes one"
    with started_in(World(rank=0, size=2)), pytest.raises(UserError, match=refusal):
        run_recipe(recipe, tmp_path / "run", Listening())
    assert not (tmp_path / "run").exists()


def test_shards_make_other_artifacts_and_one_process_joins_no_group(tmp_path):
    made = [run_recipe(scaled(tmp_path / name, scale), tmp_path / name / "run", Listening(), until="base").artifacts[0]
            for name, scale in (("plain", None), ("fixed", {"virtual_shards": 4}))]
    assert made[0].manifest["key"] != made[1].manifest["key"] and made[0].content != made[1].content
    assert made[0].log[0]["loss"] == pytest.approx(made[1].log[0]["loss"], abs=1e-6)
    assert yaml.safe_load((tmp_path / "fixed" / "run" / "recipe.yaml").read_text())["scale"] == {"virtual_shards": 4}
    assert not torch.distributed.is_initialized()


def test_processes_are_together_inside_alone():
    with started_in(World(rank=1, size=2)):
        assert world() == World.alone() and team().size == 2
        with together(4) as here:
            assert world() == here == World(rank=1, size=2, virtual_shards=4)
        assert world() == World.alone()
    assert team() == World.alone()


def test_the_plan_counts_the_sums_that_wait_in_the_tree(tmp_path):
    plain, fixed = (plan_recipe(scaled(tmp_path / str(number), scale), tmp_path / "run", "base", None, None).stages[0]
                    for number, scale in enumerate((None, {"virtual_shards": 16})))
    model = Transformer(load_recipe(tmp_path / "0" / "small.yaml").config_of_stage("base", ""))
    gradient = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert fixed.peak_memory_bytes - plain.peak_memory_bytes == 4 * gradient  # of 16 leaves
