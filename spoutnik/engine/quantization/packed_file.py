"""Packed weights on disk: packed once, then read (or, for experts larger than memory, mapped).

One safetensors file: a tensor of bytes (count, bytes) for each group of matrices, their units, and the norms and biases. Its
metadata has kind and shape of each group, and says what was packed (packed_cache.py).
"""

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spoutnik.engine.quantization.packed_matrix import PackedMatrices, empty_in_huge_pages, pack
from spoutnik.engine.quantization.weight_groups import WeightGroup
from spoutnik.errors import RunError
from spoutnik.files import replacing_raw
from spoutnik.model.checkpoint import Checkpoint, Stored, read_header
from spoutnik.model.config import ModelConfig
from spoutnik.model.weight_file import Span, WeightFile, sample_spans
from spoutnik.model.weights import Reader
from spoutnik.native import library

_HEADER = 2 << 20  # bytes reserved for the header, which is known only after the data
Progress = Callable[[int, int], None]


class CheckpointSource:
    """The tensors of a checkpoint one by one, each read into memory of its own: bfloat16 and float32 as they are stored, FP8
    blocks as bfloat16."""

    def __init__(self, checkpoint: Checkpoint):
        self.config: ModelConfig = checkpoint.config
        self.checkpoint, self._reader = checkpoint, Reader(checkpoint)

    def __call__(self, name: str) -> Tensor:
        stored = self.checkpoint.tensors[name]
        dtype = {"BF16": torch.bfloat16, "F8_E4M3": torch.bfloat16}.get(stored.dtype, torch.float32)
        return self._reader.tensor([(name, ())], torch.Size(stored.shape), dtype)

    def check(self) -> None:
        """Raises RunError: the checkpoint was changed while it was read."""
        self._reader.check()


def write_packed(path: Path, groups: Iterable[WeightGroup], vectors: dict[str, Tensor], progress: Progress | None = None,
                 total: int = 0, metadata: Mapping[str, str] | None = None,
                 check: Callable[[], None] = lambda: None) -> None:
    """Packs group after group into a file that is complete or absent; no more than one group is in memory.

    Args:
        vectors: the norms and biases.
        progress: called with how many of `total` bytes of weights are done.
        metadata: what was packed.
        check: called before the file takes its name; it raises where the weights cannot be trusted.
    Raises:
        OSError: the file cannot be written.
    """
    header: dict[str, dict] = {}
    kinds_and_shapes, units, end, done = {}, {}, 0, 0
    with replacing_raw(path) as temporary, open(temporary, "wb") as file:

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
        file.flush()
        samples = WeightFile(temporary).hash(_data_spans(_HEADER + end))
        header["__metadata__"] = {**(metadata or {}), "groups": json.dumps(kinds_and_shapes), "samples": samples}
        text = json.dumps(header).encode()
        assert len(text) <= _HEADER - 8
        file.seek(0)
        file.write(struct.pack("<Q", _HEADER - 8) + text.ljust(_HEADER - 8))
        check()
    if progress is not None:
        progress(total, total)


def _data_spans(size: int) -> list[Span]:
    """Parts of a file of that size, behind its header."""
    return [(_HEADER + start, length) for start, length in sample_spans(size - _HEADER)]


def _damaged(path: Path) -> RunError:
    return RunError(f"{path}: is damaged, or is no file of packed weights. Delete it: it is made again.")


@dataclass
class PackedFile:
    """A file of packed weights. tensors: where each is stored; groups: key -> (kind, in, out)."""

    file: WeightFile
    tensors: dict[str, Stored]
    groups: dict[str, tuple[int, int, int]]
    _map: np.ndarray | None = None

    @staticmethod
    def open(path: Path) -> "PackedFile":
        """Raises RunError: the file is damaged."""
        file = WeightFile(path)
        tensors, metadata = read_header(path, file.fileno())
        try:
            groups = {key: tuple(value) for key, value in json.loads(metadata["groups"]).items()}
            samples = metadata["samples"]
        except (KeyError, ValueError) as error:
            raise _damaged(path) from error
        if file.hash(_data_spans(file.state.size)) != samples:
            raise _damaged(path)
        return PackedFile(file, tensors, groups)

    def vectors(self) -> dict[str, Tensor]:
        return {name.removeprefix("floats."): torch.from_numpy(self._read(name, np.float32))
                for name in self.tensors if name.startswith("floats.")}

    def read(self, key: str) -> PackedMatrices:
        """A group, read into memory."""
        stored = self.tensors[key]
        data = empty_in_huge_pages(*stored.shape)
        self.file.read_into(stored.start, memoryview(data.view(-1).numpy())[:stored.size])
        packed = self._packed(key, data)
        try:
            packed.check_exceptions()
        except ValueError as error:
            raise _damaged(self.file.path) from error
        return packed

    def mapped(self, key: str) -> PackedMatrices:
        """A group, mapped: the system reads it when it is used, and drops it when memory is short. Whoever uses it calls
        `check` before trusting what was computed."""
        if self._map is None:
            self._map = np.frombuffer(self.file.map(_guard), np.uint8)
        stored = self.tensors[key]
        part = self._map[stored.start:stored.start + stored.size].reshape(stored.shape)
        return self._packed(key, torch.from_numpy(part))

    def check(self) -> None:
        """Raises RunError: the file was written to or cut off since it was opened."""
        self.file.check()

    def _packed(self, key: str, data: Tensor) -> PackedMatrices:
        try:
            return PackedMatrices(data, torch.from_numpy(self._read(f"{key}.units", np.float64)), *self.groups[key])
        except (TypeError, ValueError) as error:
            raise _damaged(self.file.path) from error

    def _read(self, name: str, dtype: type) -> np.ndarray:
        stored = self.tensors[name]
        array = np.empty(stored.shape, dtype)
        self.file.read_into(stored.start, memoryview(array.reshape(-1)).cast("B"))
        return array


def _guard(address: int, size: int) -> tuple[Callable[[], int], Callable[[], None]]:
    """Keeps the process alive where a mapped file is cut off: `WeightFile.map`."""
    number = library().spoutnik_guard_mapping(address, size)
    if number < 0:
        raise RunError("too many files of packed weights are mapped in this process. Load fewer models at a time.")
    return partial(library().spoutnik_mapping_faults, number), partial(library().spoutnik_unguard_mapping, number)
