"""Tensors that are divided among processes by rows, and safetensors files that all of them read and write at once.

A part is the same in memory and in a file: rows of the first axis that lie one after another. So every process writes its rows
to their place in one file, and nothing is gathered anywhere; and a file is the same whoever wrote it, so that what N processes
saved is read by M, or by one. The folder must be one that all processes see.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from spoutnik.errors import RunError
from spoutnik.files import disk_errors, fsync_path
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import published_parts
from spoutnik.world import pulse, world

_NAMES = {torch.uint8: "U8", torch.int8: "I8", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32",
          torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}
_ORDER = list(_NAMES.values())  # the library writes wider types first, and names in order within one
_PIECE = 8 << 20  # numbers that are converted at a time
_PATIENCE = 90.0  # seconds; Linux's NFS takes a folder for what it was for 60 at most (acdirmax)

Piece = tuple[str, int, Tensor]  # a tensor's name in the file, the first of its rows that these are, the rows


@dataclass(frozen=True)
class Part:
    """What a process holds of a tensor: rows (n, ...) from `start` on. shape: of the whole tensor. is_copy: another process
    holds the same rows and is the one that writes them."""

    rows: Tensor
    start: int
    shape: tuple[int, ...]
    is_copy: bool = False

    @staticmethod
    def whole(tensor: Tensor, is_copy: bool = False) -> "Part":
        return Part(tensor, 0, tuple(tensor.shape), is_copy)


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: its type and shape, and where its first byte lies in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def laid_out(entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, Entry]]:
    """The header of a safetensors file with these tensors, and the tensors with their places: byte for byte what the library
    writes."""
    order = sorted(entries, key=lambda name: (-_ORDER.index(_NAMES[entries[name].dtype]), name))
    described: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name in order:
        entry = entries[name]
        end = offset + entry.size
        described[name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    placed, offset = {}, 8 + len(text)
    for name in order:
        placed[name] = Entry(entries[name].dtype, entries[name].shape, offset)
        offset += entries[name].size
    return len(text).to_bytes(8, "little") + text, placed


def save_pieces(path: Path, entries: Mapping[str, Entry], pieces: Iterable[Piece],
                metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file under a temporary name, each process of the run its pieces, and renames it. All of them call
    this with the same entries, and each row is one process's.

    The temporary name is a new one each time: on NFS another machine may for a minute take a folder for the one that had its
    name before, where the same name would be the last good file.

    Raises:
        RunError: on every process, where one of them cannot write; the file is as it was.
    """
    header, placed = laid_out(entries, metadata)
    temporary, main = path.with_name(f".{path.name}.{world().broadcast(uuid4().hex[:12])}.parts"), world().is_main
    try:
        everywhere(lambda: main and _create(temporary, header, placed))
        everywhere(lambda: _write(temporary, placed, pieces))
        everywhere(lambda: main and _install(temporary, path))
    finally:
        if main:
            temporary.unlink(missing_ok=True)


def save_parts(path: Path, parts: Mapping[str, Part]) -> None:
    """`save_pieces` of tensors under their own names and in their types."""
    entries = {name: Entry(part.rows.dtype, part.shape) for name, part in parts.items()}
    pieces = ((name, part.start, part.rows) for name, part in parts.items() if not part.is_copy)
    save_pieces(path, entries, pieces)


def save_divided(folder: Path, model: Transformer, dtype: torch.dtype = torch.bfloat16) -> None:
    """The model.safetensors of a model that is divided among processes, each of which writes its rows: byte for byte what
    `weights.save_model` writes of a whole one."""
    parts, config = model.division.parts(model), model.config
    entries, pieces = published_entries(parts, config, dtype), published_pieces(parts, config)
    save_pieces(folder / "model.safetensors", entries, pieces, {"format": "pt"})


def everywhere(work: Callable[[], object]) -> None:
    """Does the work on every process and waits for all of them.

    Raises:
        RunError: on every process, where one has failed; its own error, or which rank's it was.
    """
    error = None
    try:
        work()
    except RunError as raised:
        error = raised
    failures = world().gather([None if error is None else str(error)])
    if error is not None:
        raise error
    for rank, sentence in enumerate(failures):
        if sentence is not None:
            raise RunError(f"rank {rank}: {sentence}")


def _create(path: Path, header: bytes, placed: Mapping[str, Entry]) -> None:
    """The file with its header and room for all rows."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(header)
            file.truncate(len(header) + sum(entry.size for entry in placed.values()))


def _install(temporary: Path, path: Path) -> None:
    with disk_errors(path):
        os.replace(temporary, path)
        fsync_path(path.parent)


def _write(path: Path, placed: Mapping[str, Entry], pieces: Iterable[Piece]) -> None:
    """Rows to their places, converted to the file's types, and flushed to the disk."""
    with disk_errors(path):
        descriptor = _opened(path)
        try:
            for name, start, rows in pieces:
                _write_rows(descriptor, placed[name], start, rows)
                pulse.beat()
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _opened(path: Path) -> int:
    """A file that rank 0 has made, perhaps on another machine, whose folder is seen as it is only after a while."""
    deadline = time.monotonic() + (0.0 if world().is_main else _PATIENCE)
    while True:
        try:
            return os.open(path, os.O_WRONLY)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE) or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _write_rows(descriptor: int, entry: Entry, start: int, rows: Tensor) -> None:
    rows = rows.detach()[None] if not entry.shape else rows.detach()
    offset = entry.offset + start * entry.row_bytes
    for some in rows.split(max(1, _PIECE // max(1, prod(entry.shape[1:])))) if rows.numel() else ():
        data = memoryview(some.to("cpu", entry.dtype).contiguous().view(-1).view(torch.uint8).numpy())
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written


def published_pieces(parts: Mapping[str, Part], config: ModelConfig) -> Iterable[Piece]:
    """What this process is to write of a model's tensors, under their published names, stacked experts one by one."""
    for name, part in parts.items():
        if part.is_copy or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        for published, index in _published(name, config):
            if index == ():
                yield published, part.start, part.rows
            elif part.start <= index[0] < part.start + len(part.rows):
                yield published, 0, part.rows[(index[0] - part.start, *index[1:])]


def published_entries(parts: Mapping[str, Part], config: ModelConfig, dtype: torch.dtype) -> dict[str, Entry]:
    """All tensors of a model's file; correction biases stay float32."""
    entries = {}
    for name, part in parts.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        kind = torch.float32 if name.endswith("e_score_correction_bias") else dtype
        for published, index in _published(name, config):
            shape = part.shape[len(index):]
            if index and isinstance(index[-1], slice):
                shape = (index[-1].stop - index[-1].start, *part.shape[2:])
            entries[published] = Entry(kind, tuple(shape))
    return entries


def _published(name: str, config: ModelConfig) -> list[tuple[str, tuple]]:
    """As `weights.published_parts`; the released files repeat embedding and head in the MTP layer."""
    places, prefix = published_parts(name, config), f"model.layers.{config.num_hidden_layers}"
    if config.num_nextn_predict_layers:
        if name == "embed_tokens.weight":
            places.append((f"{prefix}.embed_tokens.weight", ()))
        if name == ("embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"):
            places.append((f"{prefix}.shared_head.head.weight", ()))
    return places


def read_rows(path: Path, wanted: Mapping[str, Part]) -> None:
    """Fills the parts that a file has from it, reading these rows alone."""
    try:
        with safe_open(path, framework="pt") as file:
            present = set(file.keys())
            for name, part in wanted.items():
                if name not in present or not part.rows.numel():
                    continue
                stored = file.get_slice(name)
                if (shape := tuple(stored.get_shape())) != part.shape:
                    raise RunError(f"{path}: {name} has the shape {shape}, and the model's is {part.shape}. It belongs to "
                                   "another model: delete its folder and run again.")
                rows = stored[part.start:part.start + len(part.rows)] if part.shape else file.get_tensor(name)
                with torch.no_grad():
                    part.rows.copy_(rows)
                pulse.beat()
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found. The checkpoint is incomplete: delete its folder and run again.") from error
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: is damaged ({error}). Delete its folder and run again, or restore the file.") from error


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


class Division(Protocol):
    """How a model is divided among the processes of a run (scale/sharding.py): what training asks of it."""

    def part(self, name: str, tensor: Tensor) -> Part:
        """What this process has of an entry of the model's `state_dict`."""

    def parts(self, module: nn.Module | None = None) -> dict[str, Part]:
        """Of all entries; or of those of a module inside the model."""

    def gathered(self, name: str, tensor: Tensor) -> Tensor:
        """An entry as a whole, on every process."""

    def reshard(self) -> None:
        """Frees weights that were gathered for a computation."""

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Of all processes' rows together."""

    def orthogonalized(self, updates: Iterator[tuple[Tensor, Part]]) -> Iterator[Tensor]:
        """Muon's updates, of whole matrices."""

    def whole(self, dtype: torch.dtype | None = None, adapters_alone: bool = False, on_main: bool = False) -> nn.Module | None:
        """The same model as one process would have it, on every process or on rank 0 alone, its matrices in `dtype`; or without
        values but its adapters'."""


def is_divided(model: nn.Module) -> bool:
    return getattr(model, "division", None) is not None
