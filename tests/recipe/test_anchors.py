"""A recipe's `anchor`: what it does to keys, what is refused before a run, what a stage says and logs, and resuming."""

import shutil

import pytest
from safetensors.torch import load_file
from small_recipe import Listening, prepared

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import UserError
from spoutnik.recipe.anchors import anchor_bytes, anchor_work
from spoutnik.recipe.keys import stage_contents, stage_settings
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.train.anchor import AnchorSettings

ADAPTER = {"rank": 4, "alpha": 64}
SNIPPETS = {"snippets": 2, "tokens": 24}


def anchored(folder, anchor=None, **stage):
    return prepared(folder, lambda values: values["stages"]["mine"].update(
        {"adapter": ADAPTER} | stage | ({} if anchor is None else {"anchor": anchor})))


def parts(path) -> tuple[dict, dict]:
    recipe = load_recipe(path)
    stage = recipe.stages["mine"]
    return stage_settings(recipe, stage, str(path)), stage_contents(recipe, stage, "mine", str(path), {})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The stage with the anchor and without, beginning with the same base; and what was said. base: a run with that alone."""
    folder, said = tmp_path_factory.mktemp("anchors"), {}
    run_recipe(anchored(folder), folder / "run", SilentDisplay(), until="base")
    shutil.copytree(folder / "run", folder / "base")
    for name, anchor in (("free", None), ("held", SNIPPETS | {"weight": 20.0})):
        display = Listening()
        path = anchored(folder, anchor)
        said[name] = run_recipe(path, folder / "run", display, accept=["mine"]).artifacts[1], display.said
    return folder, said


def test_an_anchored_stage_logs_its_divergence_and_moves_less(runs):
    _, said = runs
    (free, _), (held, sentences) = said["free"], said["held"]
    assert held.log[0]["anchor_kl"] == pytest.approx(0, abs=1e-5)
    assert held.manifest["metrics"]["anchor_kl"] == pytest.approx(held.log[-1]["anchor_kl"], rel=0.5) and \
        held.log[-1]["anchor_kl"] > 1e-4
    assert all("anchor_kl" not in row for row in free.log) and "anchor_kl" not in free.manifest["metrics"]
    assert held.log[-1]["loss"] > free.log[-1]["loss"] and held.log[0]["loss"] == free.log[0]["loss"]
    [sentence] = [each for each in sentences if "anchored" in each]
    assert sentence.startswith("mine: anchored to its start by 2 snippets of 24 tokens in each step, of the sample that ships")
    assert "frozen copy" not in sentence


def test_a_killed_stage_ends_with_the_same_adapter(runs, tmp_path):
    folder, said = runs
    path = anchored(tmp_path, SNIPPETS | {"weight": 20.0})
    shutil.copytree(folder / "base", tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(path, tmp_path / "run", Listening(stop=("mine", 3)), accept=["mine"])
    again = run_recipe(path, tmp_path / "run", SilentDisplay(), accept=["mine"]).artifacts[1]
    name = "adapter/adapter_model.safetensors"
    assert again.manifest["files"][name] == said["held"][0].manifest["files"][name]


def test_full_training_says_that_its_start_stays_in_memory_and_the_plan_counts_it(runs, tmp_path):
    path, display = anchored(tmp_path, SNIPPETS, adapter=None), Listening()
    shutil.copytree(runs[0] / "base", tmp_path / "run")
    base, mine = run_recipe(path, tmp_path / "run", display, accept=["mine"]).artifacts
    assert any("Its start stays in memory as a frozen copy (0 MB)" in each for each in display.said)
    assert mine.log[-1]["anchor_kl"] > 0
    before, after = (load_file(artifact.folder / "model.safetensors") for artifact in (base, mine))
    assert not before["model.embed_tokens.weight"].equal(after["model.embed_tokens.weight"])
    recipe = load_recipe(path)
    stage, config = recipe.stages["mine"], recipe.config_of_stage("mine", "")
    assert anchor_work(stage) == 64
    with_adapter = load_recipe(anchored(tmp_path, {})).stages["mine"]
    assert anchor_bytes(stage, config) > 20_000 and anchor_bytes(with_adapter, config) == 0


def test_the_anchor_and_the_text_it_reads_are_part_of_the_key_and_where_it_lies_is_not(tmp_path):
    settings, contents = parts(anchored(tmp_path))
    assert "anchor" not in settings and "anchor" not in contents
    settings, contents = parts(anchored(tmp_path, {}))
    assert settings["anchor"] == AnchorSettings().model_dump() | {"file": None}
    (tmp_path / "general.txt").write_text("General text. " * 200)
    other, own = parts(anchored(tmp_path, {"file": "general.txt"}))
    assert other == settings and own != contents
    (tmp_path / "moved").mkdir()
    (tmp_path / "general.txt").rename(tmp_path / "moved" / "general.txt")
    assert parts(anchored(tmp_path, {"file": "moved"})) == (other, own)
    assert parts(anchored(tmp_path, {"weight": 2}))[0] != settings


@pytest.mark.parametrize("anchor, words", [
    ({"file": "missing.txt"}, ("stages.mine.anchor.file: ", "no such file", "relative to the recipe's folder")),
    ({"file": "short.txt"}, ("stages.mine.anchor.file: holds 5 bytes", "4 x 64")),
    ({"tokens": 257}, ("stages.mine.anchor.tokens = 257: the model has 256 positions",)),
    ({"weight": 0}, ("stages.mine.anchor.weight",)), ({"snippet": 4}, ("anchor.snippet", "Did you mean", "snippets")),
    ({"file": "~nobody-here/a.txt"}, ("stages.mine.anchor.file", "home folder that is not known")),
], ids=range(6))
def test_what_is_wrong_is_found_before_the_first_stage(tmp_path, anchor, words):
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(UserError) as error:
        run_recipe(anchored(tmp_path, anchor), tmp_path / "run", SilentDisplay())
    assert all(word in str(error.value) for word in words) and not (tmp_path / "run").exists()


def test_reinforcement_learning_takes_an_anchor(runs, tmp_path):
    def change(values):
        values["stages"] = {"base": values["stages"]["base"], "rl": {
            "kind": "grpo", "from": "base", "adapter": ADAPTER, "anchor": SNIPPETS,
            "settings": {"steps": 2, "prompts_per_step": 2, "group_size": 2, "max_tokens": 8, "learning_rate": 1e-2,
                         "zero_variance": "keep"}}}
        values["validation"] = {"problems": 0}

    shutil.copytree(runs[0] / "base", tmp_path / "run")
    rl = run_recipe(prepared(tmp_path, change), tmp_path / "run", SilentDisplay(), accept=["rl"]).artifacts[1]
    assert all("anchor_kl" in row for row in rl.log)
