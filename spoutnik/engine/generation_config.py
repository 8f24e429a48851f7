"""generation_config.json: the sampling parameters that a model's authors recommend, which hold where nobody asks for others."""

from functools import cache
from pathlib import Path

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json

NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@cache
def generation_defaults(folder: Path) -> dict[str, float]:
    """Those that the file names, checked. One read for all of a process.

    Raises:
        RunError: the file is damaged, or a value is none that can be sampled with.
    """
    path = Path(folder) / "generation_config.json"
    config = read_json(path) if path.exists() else {}
    if not isinstance(config, dict):
        raise RunError(f"{path}: must hold a JSON object, not a {type(config).__name__}. Restore it.")
    defaults = {name: config[name] for name in NAMES if config.get(name) is not None}
    try:
        SamplingParams(**defaults)
    except UserError as error:
        raise RunError(f"{path}: {error} Correct the file, or remove the key.") from error
    return defaults
