"""A checkpoint in Hugging Face layout, with weights as safetensors or GGUF, from its headers alone: what it is, which tensor
lies where, and whatever is wrong with it, before any weight is read. Does not import torch."""

import contextlib
import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from operator import attrgetter
from pathlib import Path

from spoutnik.errors import RunError
from spoutnik.files import LFS_POINTER, is_lfs_pointer, read_json
from spoutnik.model.config import ModelConfig
from spoutnik.model.gguf_header import read_gguf_header
from spoutnik.model.gguf_tensors import gguf_stored
from spoutnik.model.layout import SCALE, is_mtp, is_quantized, published_shapes
from spoutnik.model.stored import ITEM_SIZES, Stored
from spoutnik.model.weight_file import FileState, states

WEIGHTS = ("F32", "BF16", "F16", "F64")  # what a weight that is not quantized may be stored in
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
GGUF = "model.gguf"  # a file of llama.cpp's in a folder, or the link to one
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose files belong together: every tensor that `config` asks for is in `tensors`, in the right shape, and no
    other. `config` has num_nextn_predict_layers 0 where the files leave the MTP layer out, as transformers' do. states: of the
    files, before their headers were read."""

    folder: Path
    config: ModelConfig
    tensors: dict[str, Stored]
    states: dict[Path, FileState] = field(default_factory=dict)

    @staticmethod
    def open(folder: Path) -> "Checkpoint":
        """Reads config.json, the index and all headers.

        Raises:
            UserError: the configuration asks for something this code does not compute.
            RunError: a file is missing, damaged, or does not belong to the others.
        """
        folder = Path(folder)
        config = ModelConfig.load(folder)
        with collector_paused():
            listed = _listed(folder)
            before = states(listed)
            if is_gguf(listed):
                return Checkpoint(folder, config, gguf_stored(read_gguf_header(*listed, vocabulary=False), config), before)
            tensors = _locate(folder, listed)
            config = _head_as_stored(folder, config, tensors, before)
            if config.num_nextn_predict_layers and not any(is_mtp(name, config) for name in tensors):
                config = config.model_copy(update={"num_nextn_predict_layers": 0})
            return Checkpoint(folder, config, _matched(folder, config, tensors), before)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Without Python's cyclic garbage collector: R1's headers make half a million small objects, none of them garbage, and
    looking through them again and again takes longer than making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_header(path: Path, descriptor: int | None = None) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors of one safetensors file and its metadata. descriptor: of the file, where it is open already.

    The format: 8 bytes with the header's length, a JSON object, then the tensors one after another without holes.
    """
    opened = path if descriptor is None else descriptor
    try:
        size = os.path.getsize(opened)
        with open(opened, "rb", closefd=descriptor is None) as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                if is_lfs_pointer(path):
                    raise RunError(LFS_POINTER.format(path=path))
                raise _damaged(path, "it is shorter than its header says" if size >= 8 else "it has no header")
            header = json.loads(file.read(length).decode("utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found. Fetch the missing file.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise error if isinstance(error, RunError) else _damaged(path, error) from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    tensors = dict(_entries(path, header, 8 + length))
    position = 8 + length
    for stored in sorted(tensors.values(), key=attrgetter("start", "size")):  # the empty ones first where they share a place
        if stored.start != position:
            name = next(name for name, other in tensors.items() if other is stored)
            raise _damaged(path, f"its header leaves a hole or an overlap before {name}")
        position += stored.size
    if position != size:
        raise _damaged(path, f"its header describes {position:,} bytes and it has {size:,}")
    return tensors, metadata


def _entries(path: Path, header: dict, data: int) -> Iterator[tuple[str, Stored]]:
    for name, entry in header.items():
        try:
            dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            sound = type(start) is type(end) is int and 0 <= start <= end < 2**63 and end - start == _size(dtype, *shape)
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise _damaged(path, f"its header says of {name} what cannot be: {str(entry)[:100]}")
        yield name, Stored(path, dtype, tuple(shape), data + start, end - start)


@lru_cache(1000, typed=True)  # a model has few shapes; typed, so that True is not taken for 1
def _size(dtype: str, *shape: int) -> int:
    """Bytes of a tensor. Raises KeyError or ValueError where there is no such type or shape."""
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(shape)
    return prod(shape) * ITEM_SIZES[dtype]


def _damaged(path: Path, why: object) -> RunError:
    return RunError(f"{path}: is damaged ({why}). Restore the file, or delete its folder and run again.")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, whether or not they are there. As transformers has it, one file is taken before
    an index, which may be left over from weights that it replaced; a GGUF file is taken where there is neither. Empty where
    there is nothing.

    Raises:
        RunError: the index is damaged.
    """
    return list(_listed(folder))


def _listed(folder: Path) -> dict[Path, set[str] | None]:
    """`weight_files`, each with the tensors that are in it according to the index; None where there is one file."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return {single: None}
    if not index.exists() and (gguf := folder / GGUF).is_symlink() | gguf.exists():
        return {gguf.resolve(): None}
    listed: dict[str, set[str]] = {}
    for name, file in (_weight_map(index) if index.exists() else {}).items():
        listed.setdefault(file, set()).add(name)
    for file in listed:
        if file in ("", "..") or Path(file).name != file:
            raise RunError(f"{index}: weight_map names {file!r}, which is no file of this folder. Restore the index.")
    return {folder / file: listed[file] for file in sorted(listed)}


def is_gguf(files: Iterable[Path]) -> bool:
    """Whether a folder's weights are a GGUF file."""
    return any(file.suffix.lower() == ".gguf" for file in files)


def origin(folder: str | Path) -> Path:
    """What people call a model's folder by: the GGUF file that it was made of, or the folder itself."""
    folder = Path(folder)
    link = folder / GGUF
    return link.resolve() if link.is_symlink() else folder


def _locate(folder: Path, listed: dict[Path, set[str] | None]) -> dict[str, Stored]:
    """Every tensor of the folder, over one file or several with an index, under its published name."""
    index = folder / "model.safetensors.index.json"
    if not listed and not index.exists():
        raise RunError(_why_no_weights(folder))
    tensors: dict[str, Stored] = {}
    for path, names in listed.items():
        if names is not None and not path.exists():
            raise RunError(f"{path}: listed in the index but not found. Fetch the missing file.")
        present = read_header(path)[0]
        if names is not None and names - present.keys():
            raise RunError(f"{path}: the index says that {min(names - present.keys())} is in it, but it is not. Fetch both "
                           "files again.")
        if names is not None and present.keys() - names:
            raise RunError(f"{index}: does not say that {min(present.keys() - names)} is in {path.name}, but it is. Fetch both "
                           "files again.")
        tensors |= present
    return _with_prefix(tensors)


def _with_prefix(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Checkpoints of the network without its head (embedding models) leave out `model.`"""
    if "embed_tokens.weight" not in tensors:
        return tensors
    return {name if name.startswith("lm_head.") else f"model.{name}": stored for name, stored in tensors.items()}


def _weight_map(index: Path) -> dict[str, str]:
    """Which file each tensor is in."""
    values = read_json(index)
    weight_map = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise RunError(f"{index}: the key 'weight_map' must map tensors to files. Restore the file.")
    return weight_map


def holds_weights(folder: Path) -> bool:
    """Whether there is anything that `Checkpoint.open` would read, or refuse to."""
    return any(next(folder.glob(pattern), None) for pattern in ("*.safetensors", "*.gguf", *_PICKLED))


def _why_no_weights(folder: Path) -> str:
    if any(folder.glob("*.safetensors")):
        return (f"{folder}: has neither model.safetensors nor model.safetensors.index.json, though it holds other "
                "safetensors files. Fetch the index too.")
    pickled = sorted(file.name for pattern in _PICKLED for file in folder.glob(pattern))
    if pickled:
        return (f"{folder / pickled[0]}: pickled weights are not read, since a pickle can run any program when it is "
                "opened. Use the model's safetensors files, or convert it once where you trust it (transformers' "
                "save_pretrained).")
    if any(folder.glob("*.gguf")):
        gguf = min(folder.glob("*.gguf"))
        return f"{folder}: holds a GGUF file and no safetensors. Give the path of that file: {gguf}."
    return (f"{folder}: has neither model.safetensors nor model.safetensors.index.json. Give a folder in Hugging Face "
            "layout, or run the stage that makes it.")


_BLOCK = 4 << 20  # bytes that are compared at a time
_told: set[Path] = set()  # of a head of its own


def _head_as_stored(folder: Path, config: ModelConfig, tensors: dict[str, Stored],
                    before: dict[Path, FileState]) -> ModelConfig:
    """The configuration, and in `tensors` the embedding, as the files have it where tie_word_embeddings is true: transformers'
    rule. A head that differs from the embedding (fine-tunes that trained it and kept the key) is a head; where there is only a
    head, it is the embedding too."""
    embedding, head = tensors.get("model.embed_tokens.weight"), tensors.get("lm_head.weight")
    if not config.tie_word_embeddings or head is None:
        return config
    if embedding is None:
        tensors["model.embed_tokens.weight"] = head
        return config
    alike = (embedding.dtype, embedding.shape) == (head.dtype, head.shape)
    if not alike or _same_bytes(embedding, head, before[embedding.file], before[head.file]):
        return config
    if folder not in _told:
        _told.add(folder)
        print(f"{folder}: config.json has tie_word_embeddings = true, but lm_head.weight is not the embedding; it is read as "
              "the head that it is.", file=sys.stderr)
    return config.model_copy(update={"tie_word_embeddings": False})


@lru_cache(maxsize=16)  # hundreds of megabytes are read, and a checkpoint is opened several times on the way to a model
def _same_bytes(one: Stored, other: Stored, state: FileState, other_state: FileState) -> bool:
    with open(one.file, "rb") as first, open(other.file, "rb") as second:
        first.seek(one.start)
        second.seek(other.start)
        return all(first.read(size) == second.read(size)
                   for size in (min(_BLOCK, one.size - start) for start in range(0, one.size, _BLOCK)))


_MISFIT = "The checkpoint and its configuration do not belong together."


def _matched(folder: Path, config: ModelConfig, tensors: dict[str, Stored]) -> dict[str, Stored]:
    """The tensors that `config` asks for; the files may hold no other."""
    expected = published_shapes(config)
    fp8 = config.quantization_config is not None
    for name, shape in expected.items():
        stored = tensors.get(name)
        if stored is None:
            # The MTP layer's copies of embedding and head, which some tools leave out.
            if name.startswith("model.layers.") and name.endswith((".embed_tokens.weight", ".shared_head.head.weight")):
                continue
            raise RunError(f"{folder}: the tensor {name} that config.json asks for is missing from the weights. {_MISFIT}")
        if stored.shape != shape:
            raise RunError(f"{stored.file}: {name} has shape {list(stored.shape)}, but config.json asks for {list(shape)}. "
                           f"{_MISFIT}")
        allowed = ("F8_E4M3",) if fp8 and is_quantized(name) else WEIGHTS
        if stored.dtype not in allowed:
            raise RunError(f"{stored.file}: {name} is stored as {stored.dtype}, where {' or '.join(allowed)} was expected. "
                           f"{_MISFIT}")
    for name in sorted(tensors.keys() - expected.keys()):
        # Tables that old checkpoints carry, and the head's copy where it is tied.
        if name.endswith("rotary_emb.inv_freq") or (config.tie_word_embeddings and name == "lm_head.weight"):
            continue
        hint = "It is a multiplier of FP8 blocks, and config.json has no quantization_config. " if name.endswith(SCALE) else ""
        raise RunError(f"{tensors[name].file}: holds the tensor {name}, which config.json has no place for. {hint}{_MISFIT}")
    return {name: tensors[name] for name in expected if name in tensors}
