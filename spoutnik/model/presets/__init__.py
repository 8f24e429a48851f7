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
class Preset:
    """source: where the values are published. licence: of the weights, in words. chat_format: as `inspect` names it.
    opens_thought: whether its template ends a prompt with `<think>`. generation: the authors' temperature and top_p."""

    name: str
    source: str
    licence: str
    config: ModelConfig
    chat_format: str | None = None
    opens_thought: bool = False
    generation: dict[str, float] = field(default_factory=dict)


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
    config, chat = ModelConfig.parse(values["config"], str(path)), values.get("chat", {})
    return Preset(name, values["source"], values["licence"], config, chat.get("format"), chat.get("opens_thought", False),
                  values.get("generation", {}))
