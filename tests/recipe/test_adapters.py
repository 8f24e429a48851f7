"""Stages with an adapter: the base stays, the artifact is a model like any other, and PEFT's folder lies in it."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import UserError
from spoutnik.export.adapter import stage_adapter
from spoutnik.export.writer import export
from spoutnik.files import read_json
from spoutnik.model.adapter_file import attach_adapter, read_adapter
from spoutnik.model.lora import merged_copy
from spoutnik.model.weights import load_model
from spoutnik.native import library
from spoutnik.recipe.keys import stage_settings
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe

TINY = Path(__file__).with_name("tiny.yaml")
ADAPTER = {"rank": 4, "alpha": 64, "dropout": 0.1}


def recipe_of(tmp_path, name="recipe.yaml", dtype="float32", sft=ADAPTER, rl=None, **models):
    """A dense student: pretrained, taught with an adapter, and perhaps reinforced with another."""
    recipe = yaml.safe_load(TINY.read_text()) | {"dtype": dtype}
    recipe["models"] = {"student": recipe["models"]["student"] | models}
    stages = recipe["stages"]
    recipe["stages"] = {"student_base": stages["student_base"],
                        "taught": stages["cold_start"] | {"kind": "distill", "from": "student_base", "adapter": sft}}
    if rl is not None:
        recipe["stages"]["reinforced"] = stages["reasoning_rl"] | {"from": "taught", "adapter": rl}
    path = tmp_path / name
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    path = recipe_of(folder, rl={"rank": 2, "alpha": 16})
    return run_recipe(path, folder / "run", SilentDisplay(), accept=["taught", "reinforced"]).artifacts


def test_the_model_of_an_sft_stage_is_its_base_plus_its_adapter_and_nothing_else_moved(finished):
    base, taught, _ = finished
    before, after = load_file(base.folder / "model.safetensors"), load_file(taught.folder / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert moved == {name for name in before if "_proj.weight" in name}
    model = load_model(base.folder)
    attach_adapter(model, read_adapter(taught.folder / "adapter"), taught.folder / "adapter")
    ids = torch.randint(2, 300, (1, 30))
    torch.testing.assert_close(merged_copy(model)(ids), load_model(taught.folder)(ids))
    assert read_json(taught.folder / "adapter" / "adapter_config.json")["base_model_name_or_path"] == "tiny/student_base"


def test_the_manifest_knows_the_adapter(finished):
    _, taught, _ = finished
    assert taught.manifest["metrics"]["adapter_parameters"] == sum(
        tensor.numel() for tensor in load_file(taught.folder / "adapter" / "adapter_model.safetensors").values())
    assert taught.manifest["metrics"]["delta_survival"] == pytest.approx(1.0)
    assert "adapter/adapter_model.safetensors" in taught.manifest["files"]


def test_an_rl_stage_trains_an_adapter_on_the_merged_model_of_the_stage_before(finished):
    _, taught, reinforced = finished  # so small a model earns no reward: what it learns is tests/train/test_grpo.py's
    adapter, model = read_adapter(reinforced.folder / "adapter"), load_model(taught.folder)
    assert len(reinforced.log) == 5 and {part.rank for part in adapter.parts.values()} == {2}
    attach_adapter(model, adapter, reinforced.folder / "adapter")  # its hash is that of the base


class Killed(Exception):
    pass


class KillingDisplay(SilentDisplay):
    """Stops the run in the middle of the training of `stage`."""

    def stage(self, name, kind, position, total):
        from contextlib import contextmanager

        @contextmanager
        def opened():
            def progress(label):
                def after_step(done, total, tokens, note):
                    if name == "taught" and label == "training" and done == 3:
                        raise Killed
                return after_step
            yield progress
        return opened()


def test_a_killed_stage_ends_with_the_same_adapter_and_checkpoints_hold_it_alone(finished, tmp_path):
    path = recipe_of(tmp_path)
    with pytest.raises(Killed):
        run_recipe(path, tmp_path / "run", KillingDisplay(), accept=["taught"])
    [checkpoint] = [file for file in (tmp_path / "run").rglob("checkpoint/weights.safetensors") if "taught" in str(file)]
    assert all(".adapter." in name for name in load_file(checkpoint))
    again = run_recipe(path, tmp_path / "run", SilentDisplay(), accept=["taught"]).artifacts[1]
    name = "adapter/adapter_model.safetensors"
    assert again.manifest["files"][name] == finished[1].manifest["files"][name]


def test_in_bfloat16_a_delta_that_would_be_rounded_away_is_kept_in_float32(tmp_path):
    recipe = yaml.safe_load(recipe_of(tmp_path, dtype="bfloat16").read_text())
    taught = recipe["stages"]["taught"]
    recipe["stages"]["hardly"] = taught | {"adapter": {"rank": 4, "alpha": 1e-3}}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    artifacts = run_recipe(path, tmp_path / "run", SilentDisplay(), accept=["taught", "hardly"]).artifacts
    stored = [{tensor.dtype for tensor in load_file(artifact.folder / "model.safetensors").values()} for artifact in artifacts]
    assert stored == [{torch.bfloat16}, {torch.bfloat16}, {torch.float32}]


@pytest.mark.parametrize("changes, words", [
    ({"sft": {"rank": 64}}, ("stages.taught.adapter.rank = 64", "32 x 32", "at most 16")),
    ({"sft": {"target_modules": ["q_prj"]}}, ("target_modules: q_prj", "Did you mean 'q_proj'", "o_proj")),
    ({"sft": {"target_modules": "q_proj"}}, ("target_modules = 'q_proj': must be all-linear or a list: [q_proj].",)),
    ({"sft": {"target_modules": []}}, ("target_modules = []: names no linear map",)),
    ({"sft": {"target_modules": ["lm_head"]}}, ("lm_head: is the head", "leave out")),
    ({"rl": {"rank": 4, "dropout": 0.1}}, ("adapter.dropout", "another policy")),
    ({"sft": {"rank": 0}}, ("adapter.rank",)),
    ({"rl": {"rank": 4, "use_dora": True}, "dtype": "bfloat16"}, ("stages.reinforced.adapter.use_dora", "dtype: float32")),
    ({"rl": {"rank": 4, "base": "int8"}}, ("adapter.base = int8", "beside the packed one")),
    ({"sft": {"rank": 4, "base": "int4", "use_dora": True}}, ("use_dora with base int4",)),
    ({"sft": {"rank": 4, "experts": True}}, ("adapter.experts = true", "no routed experts")),
    ({"sft": {"rank": 4, "experts": True, "dropout": 0.1}}, ("experts with dropout",)),
    ({"sft": {"rank": 4, "base": "int2"}}, ("adapter.base", "int8")),
], ids=["rank", "unknown target", "one name", "no target", "head", "dropout in RL", "no rank", "RL in bfloat16",
        "packed in RL", "packed DoRA", "no experts", "experts with dropout", "no kind"])
def test_what_cannot_be_is_refused_before_anything_runs(changes, words, tmp_path):
    with pytest.raises(UserError) as raised:
        run_recipe(recipe_of(tmp_path, **changes), tmp_path / "run", SilentDisplay())
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert not (tmp_path / "run" / "artifacts").exists()


def test_keys_without_an_adapter_are_those_of_before():
    recipe = load_recipe(TINY)
    for name in ("cold_start", "reasoning_rl"):
        assert "adapter" not in stage_settings(recipe, recipe.stages[name], "tiny.yaml")


def test_export_finds_a_stage_s_adapter_and_its_base(finished, tmp_path):
    base, taught, reinforced = finished
    for stage, start in ((taught, base), (reinforced, taught)):
        assert stage_adapter(stage.folder, "lora") == (start.folder, stage.folder / "adapter")
    export(taught.folder, "lora", tmp_path / "lora")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "lora" / name).read_bytes() == (taught.folder / "adapter" / name).read_bytes()
    with pytest.raises(UserError, match="needs --adapter.*holds none that a stage trained"):
        export(base.folder, "lora", tmp_path / "none")


@pytest.mark.skipif(library() is None, reason="no compiler here: recipes refuse a packed base")
def test_an_adapter_of_a_packed_base_is_merged_with_what_it_was_trained_beside(tmp_path):
    path = recipe_of(tmp_path, sft=ADAPTER | {"base": "int4"})
    base, taught = run_recipe(path, tmp_path / "run", SilentDisplay(), accept=["taught"]).artifacts
    assert read_json(taught.folder / "adapter" / "base.json")["packed"] == "int4"
    before, after = load_file(base.folder / "model.safetensors"), load_file(taught.folder / "model.safetensors")
    export(taught.folder, "merged", tmp_path / "merged", "f32")
    exported = load_file(tmp_path / "merged" / "model.safetensors")
    for name, tensor in after.items():
        torch.testing.assert_close(exported[name].float(), tensor.float(), msg=name)
    assert {name for name in before if not torch.equal(before[name].float(), after[name].float())} == {
        name for name in before if "_proj.weight" in name}


@pytest.mark.skipif(library() is None, reason="no compiler here: recipes refuse a packed base")
def test_an_adapter_that_others_put_beside_weights_that_are_far_away_is_refused(tmp_path):
    path = recipe_of(tmp_path, sft={"rank": 4, "alpha": 1e-3, "base": "int4"})
    taught = run_recipe(path, tmp_path / "run", SilentDisplay(), accept=["taught"]).artifacts[1]
    for format in ("lora", "lora-gguf"):
        with pytest.raises(UserError, match="was trained beside the base in int4.*KL .*--format merged.*--lossy"):
            export(taught.folder, format, tmp_path / "out.gguf")
    assert "was trained beside the base in int4" in export(taught.folder, "lora", tmp_path / "out", lossy=True).notes[0]
