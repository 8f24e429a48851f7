"""Who samples: what of it decides a stage's key, and what is refused before anything runs."""

from pathlib import Path

import pytest
import yaml

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import UserError
from spoutnik.recipe.keys import stage_settings
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe

TINY = Path(__file__).parent / "tiny.yaml"


def write(folder: Path, until: str = "rejection", **scale) -> Path:
    values = yaml.safe_load(TINY.read_text())
    names = list(values["stages"])
    values["stages"] = {name: values["stages"][name] for name in names[:names.index(until) + 1]}
    values["scale"] = scale
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def settings_of(folder: Path, name: str, **scale) -> dict:
    path = write(folder, **scale)
    recipe = load_recipe(path)
    return stage_settings(recipe, recipe.stages[name], str(path))


def test_the_number_of_workers_is_no_part_of_a_stage_s_key_and_staleness_is(tmp_path):
    for name in ("base", "reasoning_rl", "rejection"):
        alone = settings_of(tmp_path, name)
        assert settings_of(tmp_path, name, rollout_workers=7, rollout_cpus=3) == alone
    stale = settings_of(tmp_path, "reasoning_rl", max_staleness=2, correction="mask")
    alone = settings_of(tmp_path, "reasoning_rl")
    assert stale == alone | {"max_staleness": 2, "correction": "mask", "correction_cap": 2.0}
    assert settings_of(tmp_path, "cold_start", max_staleness=2) == settings_of(tmp_path, "cold_start")


@pytest.mark.parametrize(["until", "scale", "sentence"], [
    ("cold_start", {"rollout_workers": 2}, "scale.rollout_workers sample for stages of kind grpo and reject"),
    ("cold_start", {"max_staleness": 1}, "scale.max_staleness is of stages of kind grpo"),
    ("rejection", {"rollout_cpus": 2}, "rollout_cpus is of rollout workers, and there are none"),
    ("rejection", {"rollout_worker": 2}, "Did you mean 'rollout_workers'"),
])
def test_what_would_be_ignored_is_refused(until, scale, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        load_recipe(write(tmp_path, until, **scale))


def test_who_cannot_have_workers_is_told_before_the_first_stage(tmp_path):
    with pytest.raises(UserError, match="scale.rollout_workers = 2: only `spoutnik run` starts them"):
        run_recipe(write(tmp_path, rollout_workers=2), tmp_path / "run", SilentDisplay())
    assert not (tmp_path / "run" / "artifacts").exists()
