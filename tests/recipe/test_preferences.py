"""Stages of kind dpo and kto: from a file of opinions to a model, killed and resumed, with an adapter and without."""

import json

import pytest
import yaml
from small_recipe import SMALL, Listening

from spoutnik.recipe.run import run_recipe

PAIRS = [{"prompt": f"What is {i} + 1?", "chosen": str(i + 1), "rejected": f"I think that {i} + 1 is, all in all, {i + 1}."}
         for i in range(24)]
THUMBS = [{"prompt": pair["prompt"], "completion": pair[key], "label": key == "chosen"} for pair in PAIRS
          for key in ("chosen", "rejected")]
SETTINGS = {"epochs": 6, "tokens_per_step": 512, "learning_rate": 0.01}


def recipe_of(folder, kind="dpo", rows=PAIRS, change=lambda stage: None, **settings):
    values = yaml.safe_load(SMALL.read_text())
    stage = {"kind": kind, "from": "base", "file": "opinions.jsonl", "held_out_share": 0.3, "settings": SETTINGS | settings}
    change(stage)
    values["stages"] = {"base": values["stages"]["base"], "preferred": stage}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "opinions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A display that listened, and the artifacts of DPO."""
    folder, display = tmp_path_factory.mktemp("dpo"), Listening()
    return display, run_recipe(recipe_of(folder), folder / "run", display).artifacts


def test_dpo_learns_what_pairs_share_and_says_it(finished):
    display, (_, preferred) = finished
    manifest = preferred.manifest
    (report,) = manifest["data"]
    metrics = manifest["metrics"]
    print(manifest["metrics"], manifest["health"], display.said)
    assert metrics["held_out_accuracy"] == 1 and metrics["held_out_margin"] > 0.1
