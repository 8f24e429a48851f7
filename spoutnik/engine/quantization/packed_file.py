"""Packed weights on disk: quantised once, beside the model, then read (or, for experts larger than memory, mapped).

One safetensors file: a tensor of bytes (count, bytes) for each group of like matrices, their units, and the norms and biases.
Its metadata says what each group is and which weights it was made of.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spoutnik.engine.quantization.packed_matrix import Group, Packed, memory, pack
from spoutnik.errors import RunError
from spoutnik.files import replacing
from spoutnik.model.checkpoint import Checkpoint, Stored, read_header
from spoutnik.model.config import ModelConfig
from spoutnik.model.weights import Reader, read_bytes
from spoutnik.native import library

_FORMAT = 1  # counts changes of the packed form: files of another number are made again
_HEADER = 2 << 20  # bytes kept free for it: what it will say is known only after the data
Progress = Callable[[int, int], None]


class CheckpointSource:
    """A checkpoint's tensors one by one: those stored as they are wanted are mapped, FP8 blocks become bfloat16."""

    def __init__(self, checkpoint: Checkpoint):
        self.config: ModelConfig = checkpoint.config
        self.checkpoint, self._reader = checkpoint, Reader(checkpoint)

    def __call__(self, name: str) -> Tensor:
        stored = self.checkpoint.tensors[name]
        wanted = {"BF16": torch.bfloat16, "F8_E4M3": torch.bfloat16}.get(stored.dtype, torch.float32)
        return self._reader.tensor([(name, ())], torch.Size(stored.shape), wanted)


def identity(checkpoint: Checkpoint, kind: str) -> str:
    """Of the packed form of these very files: another name, size or time of change, and it is made again."""
    files = sorted({stored.file for stored in checkpoint.tensors.values()})
    about = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    config = checkpoint.config.model_dump_json()
    return hashlib.sha256(json.dumps([_FORMAT, library().lanes(), kind, about, config]).encode()).hexdigest()[:16]


def place_of(checkpoint: Checkpoint, kind: str) -> Path:
    """Beside the model; in the user's cache where that folder cannot be written."""
    name = f"{kind}-{identity(checkpoint, kind)}.safetensors"
    beside = checkpoint.folder / "spoutnik-packed"
    if (beside / name).exists() or os.access(beside if beside.exists() else checkpoint.folder, os.W_OK):
        return beside / name
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "spoutnik" / "packed" / name


def write(path: Path, groups: Iterable[Group], floats: dict[str, Tensor], progress: Progress | None = None,
          total: int = 0) -> None:
    """Packs group after group into a file that is complete or absent; no more than one group is in memory. progress hears how
    many of `total` bytes of weights are done."""
    header: dict[str, dict] = {}
    about, units, end, done = {}, {}, 0, 0
    with replacing(path) as temporary, open(temporary, "wb") as file:

        def put(name: str, dtype: str, tensor: Tensor) -> None:
            nonlocal end
            header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy())
            end += tensor.nbytes

        file.seek(_HEADER)
        for key, weights, kind in groups:
            packed = pack(weights, kind)
            put(key, "U8", packed.data)
            units[f"{key}.units"] = packed.units
            about[key] = [packed.kind, packed.in_features, packed.out_features]
            done += sum(weight.nbytes for weight in weights)
            if progress is not None:
                progress(min(done, total), total)
        for name, tensor in units.items():
            put(name, "F64", tensor)
        for name, tensor in floats.items():
            put(f"floats.{name}", "F32", tensor)
        header["__metadata__"] = {"groups": json.dumps(about)}
        text = json.dumps(header).encode()
        assert len(text) <= _HEADER - 8
        file.seek(0)
        file.write(struct.pack("<Q", _HEADER - 8) + text.ljust(_HEADER - 8))
    if progress is not None:
        progress(total, total)


def _not_packed(path: Path) -> RunError:
    return RunError(f"{path}: is not a file of packed weights. Delete it: it is made again.")


@dataclass
class PackedFile:
    """tensors: where each lies; groups: key -> (kind, in, out)."""

    path: Path
    tensors: dict[str, Stored]
    groups: dict[str, tuple[int, int, int]]

    @staticmethod
    def open(path: Path) -> "PackedFile":
        """Raises RunError: the file is damaged."""
        tensors, metadata = read_header(path)
        try:
            return PackedFile(path, tensors, {key: tuple(value) for key, value in json.loads(metadata["groups"]).items()})
        except (KeyError, ValueError) as error:
            raise _not_packed(path) from error

    def floats(self) -> dict[str, Tensor]:
        return {name.removeprefix("floats."): torch.from_numpy(self._mapped(name, np.float32).copy())
                for name in self.tensors if name.startswith("floats.")}

    def read(self, key: str) -> Packed:
        """A group in memory of its own."""
        stored = self.tensors[key]
        data = memory(*stored.shape)
        read_bytes(stored, data)
        packed = self._packed(key, data)
        try:
            packed.check_exceptions()
        except ValueError as error:
            raise _not_packed(self.path) from error
        return packed

    def mapped(self, key: str) -> Packed:
        """A group where it lies: read when it is used, and forgotten when memory is short."""
        return self._packed(key, torch.from_numpy(self._mapped(key, np.uint8)))

    def _packed(self, key: str, data: Tensor) -> Packed:
        try:
            return Packed(data, torch.from_numpy(self._mapped(f"{key}.units", np.float64).copy()), *self.groups[key])
        except (TypeError, ValueError) as error:
            raise _not_packed(self.path) from error

    def _mapped(self, name: str, dtype: type) -> np.ndarray:
        stored = self.tensors[name]
        # Copy on write: torch wants memory that could be written to. Nobody does.
        return np.memmap(self.path, dtype, "c", stored.start, tuple(stored.shape))
