"""Packed weights on disk: packed once, beside the model, then read (or, for experts larger than memory, mapped).

One safetensors file: a tensor of bytes (count, bytes) for each group of matrices, their units, and the norms and biases. Its
metadata has kind and shape of each group.
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

from spoutnik.engine.quantization.packed_matrix import PackedMatrices, empty_in_huge_pages, pack
from spoutnik.engine.quantization.weight_groups import WeightGroup
from spoutnik.errors import RunError
from spoutnik.files import replacing
from spoutnik.model.checkpoint import Checkpoint, Stored, read_header
from spoutnik.model.config import ModelConfig
from spoutnik.model.weights import Reader, read_bytes
from spoutnik.native import library
from spoutnik.native.build import cache_folder

_FORMAT = 2  # version of the packed form: files of another one are packed again
_HEADER = 2 << 20  # bytes reserved for the header, which is known only after the data
Progress = Callable[[int, int], None]


class CheckpointSource:
    """The tensors of a checkpoint one by one: those stored as bfloat16 or float32 are mapped, FP8 blocks become bfloat16."""

    def __init__(self, checkpoint: Checkpoint):
        self.config: ModelConfig = checkpoint.config
        self.checkpoint, self._reader = checkpoint, Reader(checkpoint)

    def __call__(self, name: str) -> Tensor:
        stored = self.checkpoint.tensors[name]
        dtype = {"BF16": torch.bfloat16, "F8_E4M3": torch.bfloat16}.get(stored.dtype, torch.float32)
        return self._reader.tensor([(name, ())], torch.Size(stored.shape), dtype)


def fingerprint(checkpoint: Checkpoint, kind: str) -> str:
    """Identifies the packed form of these files: with another name, size or time of change they are packed again."""
    files = sorted({stored.file for stored in checkpoint.tensors.values()})
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    config = checkpoint.config.model_dump_json()
    return hashlib.sha256(json.dumps([_FORMAT, library().spoutnik_lanes(), kind, stats, config]).encode()).hexdigest()[:16]


def packed_path(checkpoint: Checkpoint, kind: str) -> Path:
    """The path of a packed file: beside the model, or in the user's cache if that folder cannot be written."""
    name = f"{kind}-{fingerprint(checkpoint, kind)}.safetensors"
    folder = checkpoint.folder / "spoutnik-packed"
    if (folder / name).exists() or os.access(folder if folder.exists() else checkpoint.folder, os.W_OK):
        return folder / name
    return cache_folder() / "packed" / name


def write_packed(path: Path, groups: Iterable[WeightGroup], vectors: dict[str, Tensor], progress: Progress | None = None,
                 total: int = 0) -> None:
    """Packs group after group into a file that is complete or absent; no more than one group is in memory.

    Args:
        vectors: the norms and biases.
        progress: called with how many of `total` bytes of weights are done.
    """
    header: dict[str, dict] = {}
    kinds_and_shapes, units, end, done = {}, {}, 0, 0
    with replacing(path) as temporary, open(temporary, "wb") as file:

        def append(name: str, dtype: str, tensor: Tensor) -> None:
            nonlocal end
            header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy())
            end += tensor.nbytes

        file.seek(_HEADER)
        for key, weights, kind in groups:
            packed = pack(weights, kind)
            append(key, "U8", packed.data)
            units[f"{key}.units"] = packed.units
            kinds_and_shapes[key] = [packed.kind, packed.in_features, packed.out_features]
            done += sum(weight.nbytes for weight in weights)
            if progress is not None:
                progress(min(done, total), total)
        for name, tensor in units.items():
            append(name, "F64", tensor)
        for name, tensor in vectors.items():
            append(f"floats.{name}", "F32", tensor)
        header["__metadata__"] = {"groups": json.dumps(kinds_and_shapes)}
        text = json.dumps(header).encode()
        assert len(text) <= _HEADER - 8
        file.seek(0)
        file.write(struct.pack("<Q", _HEADER - 8) + text.ljust(_HEADER - 8))
    if progress is not None:
        progress(total, total)


def _damaged(path: Path) -> RunError:
    return RunError(f"{path}: is not a file of packed weights. Delete it: it is made again.")


@dataclass
class PackedFile:
    """A file of packed weights. tensors: where each is stored; groups: key -> (kind, in, out)."""

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
            raise _damaged(path) from error

    def vectors(self) -> dict[str, Tensor]:
        return {name.removeprefix("floats."): torch.from_numpy(self._mapped(name, np.float32).copy())
                for name in self.tensors if name.startswith("floats.")}

    def read(self, key: str) -> PackedMatrices:
        """A group, read into memory."""
        stored = self.tensors[key]
        data = empty_in_huge_pages(*stored.shape)
        read_bytes(stored, data)
        packed = self._packed(key, data)
        try:
            packed.check_exceptions()
        except ValueError as error:
            raise _damaged(self.path) from error
        return packed

    def mapped(self, key: str) -> PackedMatrices:
        """A group, mapped: the system reads it when it is used, and drops it when memory is short."""
        return self._packed(key, torch.from_numpy(self._mapped(key, np.uint8)))

    def _packed(self, key: str, data: Tensor) -> PackedMatrices:
        try:
            units = torch.from_numpy(self._mapped(f"{key}.units", np.float64).copy())
            return PackedMatrices(data, units, *self.groups[key])
        except (TypeError, ValueError) as error:
            raise _damaged(self.path) from error

    def _mapped(self, name: str, dtype: type) -> np.ndarray:
        stored = self.tensors[name]
        # Copy on write: torch wants writable memory, though nothing writes to it.
        return np.memmap(self.path, dtype, "c", stored.start, tuple(stored.shape))
