"""What a model can do, in words for people: its page shows them, and asks its examples."""

from dataclasses import dataclass
from pathlib import Path

from spoutnik import files


@dataclass(frozen=True)
class ModelCard:
    """description: one sentence; examples: questions of the kinds that the model was trained on; each by language (en, fr)."""

    description: dict[str, str]
    examples: dict[str, list[str]]


def read_model_card(folder: Path) -> ModelCard | None:
    """The card in the `card` of a stage's manifest.json; None where a model brings none, as published ones do."""
    path = folder / "manifest.json"
    card = files.read_json(path).get("card") if path.exists() else None
    return None if card is None else ModelCard(card["description"], card["examples"])
