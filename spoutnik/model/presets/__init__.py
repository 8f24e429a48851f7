"""Models by name: one JSON file each, with the keys of the published config.json, where they are published and under which
licence. Does not import torch.

DeepSeek-R1 has DeepSeek-V3's shape: 671 billion parameters, 37 billion of them at work for a token, and the MIT licence.
(236 and 21 billion, which some articles ascribe to it, are DeepSeek-V2's.)
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import read_json
from spoutnik.model.config import ModelConfig

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Offer:
    """A published model that is a good one to talk to. repository: its name on the hub. download_bytes: of its weights and
    tokenizer. licence: in a word or two. thinks: it was trained to. about: a line for people, by language (en, fr)."""

    repository: str
    download_bytes: int
    licence: str
    thinks: bool
    about: dict[str, str]


@dataclass(frozen=True)
class Preset:
    """source: where the values are published. licence: of the weights, in words. chat_format: as `inspect` names it.
    opens_thought: whether its template ends a prompt with `<think>`. generation: the authors' temperature and top_p. offer:
    where to fetch it, if `spoutnik models` lists it."""

    name: str
    source: str
    licence: str
    config: ModelConfig
    chat_format: str | None = None
    opens_thought: bool = False
    generation: dict[str, float] = field(default_factory=dict)
    offer: Offer | None = None


def preset_names() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def preset(name: str) -> Preset:
    """Raises UserError where there is none of this name, with the closest one."""
    names = preset_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"{name}: is no preset.{hint} The presets are {', '.join(names)}.")
    path = _FOLDER / f"{name}.json"
    values = read_json(path)
    config, chat = ModelConfig.read(values["config"], str(path)), values.get("chat", {})
    return Preset(name, values["source"], values["licence"], config, chat.get("format"), chat.get("opens_thought", False),
                  values.get("generation", {}), Offer(**values["offer"]) if "offer" in values else None)


def offered_presets() -> list[Preset]:
    """The models that `spoutnik models` lists, the smallest first."""
    presets = [preset(name) for name in preset_names()]
    return sorted((one for one in presets if one.offer is not None), key=lambda one: one.offer.download_bytes)
