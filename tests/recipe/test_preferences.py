"""Stages of kind dpo and kto: from a file of opinions to a model, killed and resumed, with an adapter and without."""

import json

import published
import pytest
import yaml
from safetensors.torch import load_file
from small_recipe import Listening

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import RunError, UserError
from spoutnik.recipe.keys import stage_contents, stage_settings
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.work import stage_work

PAIRS = [{"prompt": f"What is {i} + 1?", "chosen": str(i + 1), "rejected": f"I think that {i} + 1 is, all in all, {i + 1}."}
         for i in range(24)]
THUMBS = [{"prompt": pair["prompt"], "completion": pair[key], "label": key == "chosen"} for pair in PAIRS
          for key in ("chosen", "rejected")]
SETTINGS = {"epochs": 6, "tokens_per_step": 512, "learning_rate": 0.01}


def recipe_of(folder, kind="dpo", rows=PAIRS, name="recipe", settings=SETTINGS, **stage):
    """A stage that learns from these rows, from a published checkpoint; nothing is evaluated but what it measures itself."""
    if not (folder / "published").exists():
        published.write(folder / "published")
    stage = {"kind": kind, "from": "start", "file": f"{name}.jsonl", "held_out_share": 0.3, "settings": settings} | stage
    values = {"name": "small", "dtype": "float32", "checkpoint_seconds": 0.001,
              "models": {"start": {"checkpoint": "published"}}, "stages": {"preferred": stage}}
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / f"{name}.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of one run."""
    return tmp_path_factory.mktemp("preferences")


@pytest.fixture(scope="module")
def dpo(folder):
    display = Listening()
    return display, run_recipe(recipe_of(folder), folder / "run", display).artifacts[-1]


def test_dpo_learns_what_pairs_share_and_says_it(dpo):
    display, artifact = dpo
    (report,) = artifact.manifest["data"]
    assert (report["read"], report["used"], report["held_out"], report["unit"]) == (24, 18, 6, "pairs")
    metrics, health = artifact.manifest["metrics"], artifact.manifest["health"]
    assert metrics["pairs"] == 18 and metrics["held_out_accuracy"] == 1 and metrics["held_out_margin"] > 0.5
    assert metrics["held_out_likelier"] > metrics["held_out_likelier_before"] and metrics["held_out_loss"] < 0.6
    assert health["line"].startswith("healthy; ") and "margin 0.00 to" in health["line"]
    assert "(18 better, 0 worse)" in health["line"]
    assert any("24 pairs read, 18 used, 6 held out" in text for text in display.said)
    assert any("100 % of 6 held-out pairs are judged right" in text for text in display.said)
    assert display.first["preferred", "reference"] == 36  # replies


def test_kto_says_its_weights_and_trains_an_adapter_that_a_kill_does_not_change(folder):
    path = recipe_of(folder, "kto", THUMBS[:-12], "kto", SETTINGS | {"epochs": 2}, anchor={"snippets": 1, "tokens": 8},
                     adapter={"rank": 4, "alpha": 16, "dropout": 0.1})
    display = Listening(("preferred", 4))
    with pytest.raises(KeyboardInterrupt):
        run_recipe(path, folder / "run", display)
    [checkpoint] = (folder / "run").rglob("checkpoint/weights.safetensors")
    assert all(".adapter." in name for name in load_file(checkpoint))
    artifact = run_recipe(path, folder / "run", SilentDisplay(), accept=["preferred"]).artifacts[-1]
    metrics = artifact.manifest["metrics"]
    assert metrics["held_out_margin"] > 0 and metrics["adapter_parameters"] > 0 and metrics["anchor_kl"] > 0
    assert any("good replies of weight 1 against" in text for text in display.said)
    straight = run_recipe(path, folder / "run", SilentDisplay(), redo_from="preferred", accept=["preferred"]).artifacts[-1]
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert artifact.manifest["files"][name] == straight.manifest["files"][name]


def test_a_stage_that_learned_nothing_is_warned_of(folder):
    noise = [{"prompt": f"What is {i} + 1?", "chosen": f"{'ab'[i % 2]}", "rejected": f"{'ba'[i % 2]}"} for i in range(24)]
    path = recipe_of(folder, rows=noise, name="noise", settings=SETTINGS | {"learning_rate": 1e-9, "epochs": 1})
    try:
        health = run_recipe(path, folder / "run", SilentDisplay(), accept=["preferred"]).artifacts[-1].manifest["health"]
    except RunError as error:
        pytest.fail(str(error))
    assert any("it learned nothing" in sentence for sentence in [*health["warnings"], *health["refusals"]])


def parts(path):
    recipe = load_recipe(path)
    stage = recipe.stages["preferred"]
    return stage_settings(recipe, stage, str(path)), stage_contents(recipe, stage, "preferred", str(path), {})


def test_the_file_s_content_counts_and_not_where_it_lies(tmp_path):
    settings, contents = parts(recipe_of(tmp_path))
    assert parts(recipe_of(tmp_path, name="moved")) == (settings, contents) and settings["file"] is None
    assert parts(recipe_of(tmp_path, rows=PAIRS[1:]))[1] != contents
    assert parts(recipe_of(tmp_path, settings=SETTINGS | {"beta": 0.2}))[0] != settings


def test_the_plan_counts_what_is_read_without_a_gradient(tmp_path):
    pairs, replies = (stage_work(load_recipe(recipe_of(tmp_path, kind, rows, kind)), "preferred")
                      for kind, rows in (("dpo", PAIRS), ("kto", THUMBS)))
    assert 0 < pairs.trained < replies.trained and 0 < pairs.steps < replies.steps and pairs.generated == 0


@pytest.mark.parametrize("rows, stage, what", [
    ([{"prompt": "a", "answer": "b"}], {}, "is no preference data"), (THUMBS[::2], {}, "there is no pair of a better"),
    (THUMBS[::2], {"kind": "kto"}, "has no bad reply"), (PAIRS, {"columns": {"choosen": "x"}}, "Did you mean 'chosen'"),
    (PAIRS, {"columns": {"prompt": "q", "chosen": "chosen", "rejected": "rejected"}}, "the key 'q' is missing"),
    (PAIRS, {"held_out_share": 1}, "held_out_share"), (PAIRS[:1], {}, "leaves nothing to"),
    (PAIRS, {"file": "none.jsonl"}, "no such file"), (PAIRS, {"learn": "all"}, "learn"),
    (PAIRS, {"settings": SETTINGS | {"beta": 0}}, "settings.beta"),
    (PAIRS, {"settings": SETTINGS | {"label_smoothing": 0.5}}, "settings.label_smoothing"),
    (PAIRS, {"settings": SETTINGS | {"desirable_weight": 1.0}}, "desirable_weight"),
    (PAIRS, {"adapter": {"rank": 99}}, "adapter.rank = 99")], ids=range(13))
def test_what_is_wrong_is_found_before_the_first_stage(tmp_path, rows, stage, what):
    with pytest.raises(UserError) as error:
        run_recipe(recipe_of(tmp_path, rows=rows, **stage), tmp_path / "run", SilentDisplay())
    assert what in str(error.value) and not (tmp_path / "run").exists(), str(error.value)


def test_a_broken_line_is_named(tmp_path):
    path = recipe_of(tmp_path)
    with open(tmp_path / "recipe.jsonl", "a") as file:
        file.write('{"prompt": "a", "chosen": "b"}\n')
    with pytest.raises(UserError, match="recipe.jsonl, line 25: the key 'rejected' is missing"):
        run_recipe(path, tmp_path / "run", SilentDisplay())
