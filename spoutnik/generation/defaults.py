"""The sampling parameters that hold where nobody asks for others, in the server as on the page."""

from functools import cache
from pathlib import Path

from spoutnik.files import read_json


@cache
def generation_defaults(folder: Path) -> dict[str, float]:
    """The sampling parameters that the model's authors recommend, in generation_config.json."""
    path = folder / "generation_config.json"
    config = read_json(path) if path.exists() else {}
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    return {name: config[name] for name in names if config.get(name) is not None}
