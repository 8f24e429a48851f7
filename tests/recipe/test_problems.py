"""What is wrong with a recipe is told at once, each with its line and the nearest name."""

import pytest

from spoutnik.errors import UserError
from spoutnik.recipe.schema import load_recipe

RECIPE = """\
name: tiny
vocab_size: 512
families: [countdown, arithmetic]
models:
  nano: {model_type: llama, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 2}
evaluation: {samples: 1}
stages:
  base:
    kind: pretrain
    model: nano
    settings: {steps: 4, learning_rate: 0.1}
  cold_start:
    kind: sft
    from: base
    cold_start: {traces: 3}
    settings:
      learning_rate: 0.1
  rl:
    kind: grpo
    from: cold_start
    examples: [countdown]
    settings: {steps: 2, learning_rate: 0.1, rewards: {accuracy: 1}}
"""


def refusal(tmp_path, *changes: tuple[str, str]) -> str:
    """What is said of the recipe with these texts replaced."""
    text = RECIPE
    for old, new in changes:
        assert text.count(old), old
        text = text.replace(old, new, 1)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(path)
    return str(error.value).removeprefix(str(path))


@pytest.mark.parametrize("old, new, line, expected", [
    ("vocab_size", "vocabsize", 2, "unknown key 'vocabsize'. Did you mean 'vocab_size'?"),
    ("vocab_size", "Vocab-Size", 2, "unknown key 'Vocab-Size'. Did you mean 'vocab_size'?"),
    ("families", "familys", 3, "unknown key 'familys'. Did you mean 'families'?"),
    ("[countdown, arithmetic]", "[countdown, arithmetics]", 3, "there is no family 'arithmetics'; the families are "),
    ("hidden_size", "hiden_size", 5, "models.nano: unknown key 'hiden_size'. Did you mean 'hidden_size'?"),
    ("model_type: llama", "model_type: lama", 5, "Did you mean 'llama'?"),
    ("samples: 1", "sample: 1", 6, "unknown key 'evaluation.sample'. Did you mean 'samples'?"),
    ("kind: pretrain", "kind: pretain", 9, "stages.base.kind = 'pretain': must be one of "),
    ("kind: pretrain", "kin: pretrain", 9, "unknown key 'stages.base.kin'. Did you mean 'kind'?"),
    ("model: nano", "model: nanno", 10, "stages.base.model: there is no 'nanno' under models. Did you mean 'nano'?"),
    ("steps: 4", "step: 4", 11, "unknown key 'stages.base.settings.step'. Did you mean 'steps'?"),
    ("learning_rate", "lr", 11, "unknown key 'stages.base.settings.lr'. Did you mean 'learning_rate'?"),
    ("steps: 4,", "steps: 4, optimizer: adam,", 11, "optimizer = 'adam': must be 'adamw' or 'muon'. Did you mean 'adamw'?"),
    ("from: base", "from: bases", 14, "stages.cold_start.from: 'bases' is not an earlier stage. Did you mean 'base'?"),
    ("from: base", "form: base", 14, "unknown key 'stages.cold_start.form'. Did you mean 'from'?"),
    ("traces: 3", "trace: 3", 15, "unknown key 'stages.cold_start.cold_start.trace'. Did you mean 'traces'?"),
    ("from: cold_start", "from: cold_strat", 20, "Did you mean 'cold_start'?"),
    ("examples: [countdown]", "examples: [count_down]", 21, "Did you mean 'countdown'?"),
    ("accuracy: 1", "acuracy: 1", 22, "unknown key 'stages.rl.settings.rewards.acuracy'. Did you mean 'accuracy'?"),
    ("    kind: grpo", "    temperature: 0.5\n    kind: grpo", 19, "'stages.rl.temperature'. It belongs under 'settings'."),
    ("steps: 2", "steps: -2", 22, "stages.rl.settings.steps = -2: input should be greater than 0"),
    ("name: tiny\n", "", 1, "the key 'name' is missing"),
])
def test_a_misspelled_name_is_told_with_its_line_and_the_nearest(tmp_path, old, new, line, expected):
    told = refusal(tmp_path, (old, new))
    assert told.startswith(f", line {line}: ") and expected in told and "\n" not in told


def test_a_key_that_is_near_to_none_is_told_with_those_that_there_are(tmp_path):
    told = refusal(tmp_path, ("steps: 4", "steps: 4, zebra: 1"))
    assert "'stages.base.settings.zebra'" in told and "Did you" not in told
    assert told.endswith("mtp_loss_weight, steps, forum_thought_share.")


def test_all_are_told_at_once_with_what_hides_behind_them(tmp_path):
    """A stage of an unknown kind is looked into, and stages are connected, as if what is misspelled were right."""
    told = refusal(tmp_path, ("name:", "nam:"), ("stages:", "stage:"), ("kind: pretrain", "kind: pretrian"),
                   ("steps: 4", "stpes: 4"), ("from: base", "from: bsae"), ("hidden_size", "hiddensize"),
                   ("[countdown, arithmetic]", "[countdwn, arithmetc]"))
    first, *lines = told.splitlines()
    assert first == ": 8 things are wrong."
    assert [line.split(":")[0] for line in lines] == [f"  line {line}" for line in (1, 3, 3, 5, 7, 9, 11, 14)]
    assert all("Did you mean" in line for line in lines) and "missing" not in told


def test_a_right_recipe_is_read(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    assert list(load_recipe(path).stages) == ["base", "cold_start", "rl"]


def test_the_value_of_a_key_is_not_held_against_a_far_guess(tmp_path):
    far = refusal(tmp_path, ("cold_start: {traces: 3}", "families: [countdown]"))
    assert far == ", line 15: unknown key 'stages.cold_start.families'. Did you mean 'file'?"
    near = refusal(tmp_path, ("cold_start: {traces: 3}", "fille: [countdown]"))
    assert "Did you mean 'file'?" in near and "stages.cold_start.file = ['countdown']" in near
