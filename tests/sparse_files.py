"""Checkpoints with real headers and no data: files of the right length that take no place on the disk. No torch in here."""

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path

from spoutnik.model.checkpoint import ITEM_SIZES
from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import published_shapes, published_type

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> (type, shape)


def tensors_of(values: dict) -> dict[str, tuple[str, tuple[int, ...]]]:
    config = ModelConfig.parse(values, "test")
    return {name: (published_type(name, config), shape) for name, shape in published_shapes(config).items()}


def header(tensors: Tensors) -> dict:
    entries, position = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        size = prod(shape) * ITEM_SIZES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return entries


def data_size(entries: dict) -> int:
    return max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)


def write_file(path: Path, entries: object, data: int | None = None) -> None:
    """A safetensors file with this header; `data`: its bytes after the header, where they are not what the header says."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    if data is None:
        data = data_size(entries)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + data)


def write_checkpoint(folder: Path, values: dict, files: int = 1) -> None:
    """config.json, and all its tensors in one file, or in several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    tensors = list(tensors_of(values).items())
    if files == 1:
        write_file(folder / "model.safetensors", header(dict(tensors)))
        return
    each, weight_map = -(-len(tensors) // files), {}
    for number in range(files):
        file = f"model-{number + 1:05d}-of-{files:06d}.safetensors"
        part = dict(tensors[number * each:(number + 1) * each])
        write_file(folder / file, header(part))
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
