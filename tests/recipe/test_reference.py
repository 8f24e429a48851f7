"""docs/recipes.md, the page of all keys, is what the schema says."""

from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from spoutnik.model.config import ModelConfig
from spoutnik.recipe.reference import reference
from spoutnik.recipe.schema import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def models_of(annotation: object) -> set[type[BaseModel]]:
    """The models in a type, and in the types of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = [models_of(field.annotation) for field in annotation.model_fields.values()]
        return {annotation}.union(*fields)
    return set().union(*map(models_of, get_args(annotation)))


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make docs`"


def test_every_key_says_what_it_is():
    models = models_of(Recipe) | models_of(ModelConfig)
    assert len(models) >= 20
    silent = [f"{model.__name__}.{name}" for model in models for name, field in model.model_fields.items()
              if not field.description and model.__name__ != "FP8Quantization"]  # of published files alone
    assert not silent, "write a text below them"


def test_the_page_has_every_key_and_its_limits():
    page = reference()
    for row in ("| `seed` | integer, at least 0, at most 4294967295 | `0` |", "| `from` | text |",
                "| `optimizer` | `adamw` or `muon` | `muon` |",
                "| `general_share` | number, at least 0, below 1 | `0` |", "| `hidden_size` | integer, above 0 |  |",
                "| `low_freq_factor` | number, above 0 |  |", "### kind: reward_model", "| `countdown` | Level 1: "):
        assert row in page, row
    assert "#### settings.rewards (kind: grpo)" in page and "vocab_size` | integer, at least 300 or `null` | `null` |" in page
