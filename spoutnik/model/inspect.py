"""What a model is and what it costs, from its configuration and the headers of its files. Does not import torch: an answer
about 671 billion parameters takes less than a second."""

import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from spoutnik.errors import RunError
from spoutnik.files import read_json
from spoutnik.model.accounting import Accounting, account
from spoutnik.model.checkpoint import Checkpoint, collector_paused, holds_weights, origin
from spoutnik.model.config import ARCHITECTURES, ModelConfig
from spoutnik.model.layout import published_shapes, published_type
from spoutnik.model.presets import Preset
from spoutnik.model.stored import ITEM_SIZES

_BYTES = {"bf16": 2.0, "int8": 1.0, "int4": 0.5}
# What the template of each format writes before a message, and nobody else's does.
MARKERS = {"DeepSeek": "<｜User｜>", "Llama 3": "<|start_header_id|>", "ChatML": "<|im_start|>"}
# A template's last words for a prompt: a literal that ends with <think>, then a new line or none, and is not added to.
_OPENS_THOUGHT = re.compile(r"""<think>(\\*n|\n)?['"]\s*-?\}\}""")


@dataclass(frozen=True)
class Inspection:
    """The facts that `inspect` prints.

    kind: "checkpoint" (weights are there and fit), "configuration" (a folder without them) or "preset". source: the folder,
    or where a preset's values are published. counts: of the whole model, its MTP module apart. mtp_in_files: None where
    there are no files or no such module. tensors, stored (bytes by type): of the files; of the published ones for a preset;
    as expected, and nothing, for a configuration. files: how many; None without. chat_format: one of `MARKERS`, "other", or
    None where there is no template. generation: the advised temperature and top_p.
    """

    kind: str
    source: str
    config: ModelConfig
    counts: Accounting
    mtp_in_files: bool | None
    tensors: int
    files: int | None
    stored: dict[str, int]
    licence: str | None
    chat_format: str | None
    opens_thought: bool
    generation: dict[str, float]

    @property
    def memory(self) -> dict[str, int]:
        """Bytes that the main model's weights alone take; quantization's multipliers add 1 to 6 %."""
        return {name: int(self.counts.total_parameters * size) for name, size in _BYTES.items()}

    def as_json(self) -> dict:
        config, counts = self.config, self.counts
        dense = sum(not config.is_moe_layer(layer) for layer in range(config.num_hidden_layers))
        return {
            "kind": self.kind, "source": self.source, "architecture": ARCHITECTURES[config.model_type],
            "model_type": config.model_type, "parameters_total": counts.total_parameters,
            "parameters_active": counts.active_parameters, "mtp_parameters": counts.mtp_parameters,
            "mtp_in_files": self.mtp_in_files, "layers": config.num_hidden_layers, "dense_layers": dense,
            "moe_layers": config.num_hidden_layers - dense, "tensors": self.tensors, "files": self.files,
            "bytes": sum(self.stored.values()), "bytes_by_type": self.stored, "memory_bytes": self.memory,
            "cache_bytes_per_token": counts.cache_bytes_per_token,
            "expanded_cache_bytes_per_token": counts.expanded_cache_bytes_per_token,
            "flops_per_token": counts.flops_per_token,
            "attention_flops_per_position": counts.attention_flops_per_position, "licence": self.licence,
            "chat_format": self.chat_format, "opens_thought": self.opens_thought, "generation": self.generation,
            "config": config.model_dump(mode="json")}


@collector_paused()
def inspect_preset(preset: Preset) -> Inspection:
    config, shapes, stored = preset.config, published_shapes(preset.config), Counter()
    for name, shape in shapes.items():
        kind = published_type(name, config)
        stored[kind] += prod(shape) * ITEM_SIZES[kind]
    return Inspection("preset", preset.source, config, account(config), None, len(shapes), None, dict(stored),
                      preset.licence, preset.chat_format, preset.opens_thought, preset.generation)


@collector_paused()
def inspect_folder(folder: Path) -> Inspection:
    """A folder in Hugging Face layout. Where it holds no weights, what its configuration alone says.

    Raises:
        UserError, RunError: as `Checkpoint.open`; or another file of the folder is damaged.
    """
    folder = Path(folder)
    config = ModelConfig.load(folder)  # as published: the checkpoint's own lacks the MTP module where the files do
    checkpoint = Checkpoint.open(folder) if holds_weights(folder) else None
    template = _chat_template(folder)
    beside = {"licence": _licence(folder), "chat_format": chat_format(template), "generation": _generation(folder),
              "opens_thought": bool(template and _OPENS_THOUGHT.search(template))}
    if checkpoint is None:
        return Inspection("configuration", str(folder), config, account(config), None, len(published_shapes(config)), None, {},
                          **beside)
    stored = Counter()
    for tensor in checkpoint.tensors.values():
        stored[tensor.kind] += tensor.size
    mtp = checkpoint.config.num_nextn_predict_layers > 0 if config.num_nextn_predict_layers else None
    files = {tensor.file for tensor in checkpoint.tensors.values()}
    return Inspection("checkpoint", str(origin(folder)), config, account(config), mtp, len(checkpoint.tensors), len(files),
                      dict(stored), **beside)


def chat_format(template: str | None) -> str | None:
    """The name of a chat template's format, from the tokens it writes."""
    if not template:
        return None
    return next((name for name, marker in MARKERS.items() if marker in template), "other")


def _chat_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return _text(path)
    template = _object(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _generation(folder: Path) -> dict[str, float]:
    values = _object(folder / "generation_config.json")
    return {key: values[key] for key in ("temperature", "top_p") if isinstance(values.get(key), int | float)}


def _licence(folder: Path) -> str | None:
    """What the model card says, or the licence file's first line."""
    card = re.match(r"---\n(.*?)\n---", _text(folder / "README.md"), re.DOTALL)
    stated = card and re.search(r"^license: *(\S.*?) *$", card[1], re.MULTILINE)
    if stated:
        name = re.search(r"^license_name: *(\S.*?) *$", card[1], re.MULTILINE)  # where `license` is "other"
        return (name or stated)[1].strip("'\"")
    for path in sorted(folder.glob("LICENSE*")):
        lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
        if lines:
            return lines[0]
    return None


def _object(path: Path) -> dict:
    """The JSON object in an optional file."""
    values = read_json(path) if path.exists() else {}
    if not isinstance(values, dict):
        raise RunError(f"{path}: must hold a JSON object, not a {type(values).__name__}. Restore it.")
    return values


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
