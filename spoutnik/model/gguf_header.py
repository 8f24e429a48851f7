"""The header of a GGUF file (llama.cpp's format, versions 2 and 3): metadata, and which tensor lies where. Read here and not
by the `gguf` package, whose reader takes seconds for a vocabulary. Does not import torch."""

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

from spoutnik.errors import RunError, UserError
from spoutnik.files import LFS_POINTER, is_lfs_pointer

# name -> (its number in the file, numbers in a block, bytes of a block)
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22),
         "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210)}
_NAMES = {number: name for name, (number, _, _) in TYPES.items()}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # metadata types
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")  # of a text
_MOST_AXES = 4


class Placed(NamedTuple):
    """One tensor of the file. kind: one of `TYPES`; shape: outermost axis first, as in torch; start: its first byte."""

    kind: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class GGUFHeader:
    """path: of the file. metadata: texts, numbers and lists of them by their keys. tensors: by llama.cpp's names."""

    path: Path
    metadata: dict[str, object]
    tensors: dict[str, Placed]

    @property
    def architecture(self) -> object:
        return self.metadata.get("general.architecture")


def read_gguf_header(path: Path, vocabulary: bool = True) -> GGUFHeader:
    """vocabulary: if not, lists of texts are passed over, which makes the reading several times as fast.

    Raises:
        UserError: the file holds something that is not read here: another version, a part of a split model, another type.
        RunError: it is missing, damaged or cut off.
    """
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise RunError(f"{path}: is empty. Fetch it again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Header(path, content, vocabulary).read()
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found. Restore the GGUF file, or give the path where it is.") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error}). Restore the file.") from error


class _Header:
    """The reading of one header, from its first byte on."""

    def __init__(self, path: Path, content: mmap.mmap, vocabulary: bool):
        self.path, self._content, self._position, self._vocabulary = path, content, 0, vocabulary

    def read(self) -> GGUFHeader:
        if self._content[:4] != b"GGUF":
            if is_lfs_pointer(self.path):
                raise RunError(LFS_POINTER.format(path=self.path))
            raise RunError(f"{self.path}: is no GGUF file (it begins with {self._content[:4]!r}). Fetch it again.")
        self._position = 4
        version = self._number("I")
        if version not in (2, 3):
            raise UserError(f"{self.path}: is of version {version} of GGUF (big-endian, or old), and 2 and 3 are read. Convert "
                            "the model again with a present llama.cpp.")
        num_tensors, num_keys = self._number("Q"), self._number("Q")
        metadata = {}
        for _ in range(num_keys):
            key = self._text()
            metadata[key] = self._value(self._number("I"))
        if metadata.get("split.count", 0) not in (0, 1):
            raise UserError(f"{self.path}: is one of {metadata['split.count']} parts of a split model. Join them with "
                            "llama.cpp's `llama-gguf-split --merge`, and give the file that it writes.")
        entries = [self._entry() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged(f"general.alignment = {alignment!r}")
        data = -(-self._position // alignment) * alignment
        tensors = {name: self._place(name, number, shape, data + offset) for name, number, shape, offset in entries}
        return GGUFHeader(self.path, metadata, tensors)

    def _entry(self) -> tuple[str, int, tuple[int, ...], int]:
        """(name, type, shape, offset) of a tensor."""
        name, axes = self._text(), self._number("I")
        if not 1 <= axes <= _MOST_AXES:
            raise self._damaged(f"{name} has {axes} axes")
        shape = tuple(self._number("Q") for _ in range(axes))[::-1]
        return name, self._number("I"), shape, self._number("Q")

    def _place(self, name: str, number: int, shape: tuple[int, ...], start: int) -> Placed:
        if number not in _NAMES:
            raise UserError(f"{self.path}: {name} is stored as {type_name(number)}, and {', '.join(TYPES)} are read. Fetch the "
                            "model in one of these types.")
        kind = _NAMES[number]
        _, block, nbytes = TYPES[kind]
        if shape[-1] % block:
            raise self._damaged(f"{name} is stored as {kind}, in blocks of {block}, and its rows have {shape[-1]} numbers")
        size = prod(shape) // block * nbytes
        if start + size > len(self._content):
            raise RunError(f"{self.path}: is cut off: {name} would end at byte {start + size:,}, and the file has "
                           f"{len(self._content):,}. Fetch it again.")
        return Placed(kind, shape, start, size)

    def _value(self, kind: int) -> object:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise self._damaged(f"a value is of type {kind}")
        kind, length = self._number("I"), self._number("Q")
        if length > len(self._content):
            raise self._damaged(f"a list has {length:,} items")
        if kind in _SCALARS:
            return list(self._unpack(f"<{length}{_SCALARS[kind]}"))
        if kind == _STRING:
            spans = self._spans(length)
            return self._texts(spans) if self._vocabulary else []
        return [self._value(kind) for _ in range(length)]

    def _text(self) -> str:
        return self._texts(self._spans(1))[0]

    def _spans(self, count: int) -> list[tuple[int, int]]:
        """Where each of so many texts begins and ends. A vocabulary and its merges are 100,000 and more: nothing is called for
        each but what must be."""
        content, position, spans, length_at = self._content, self._position, [], _LENGTH.unpack_from
        try:
            for _ in range(count):
                start = position + 8
                position = start + length_at(content, position)[0]
                spans.append((start, position))
        except struct.error:
            raise self._damaged("a text goes beyond its end") from None
        if position > len(content):
            raise self._damaged("a text goes beyond its end")
        self._position = position
        return spans

    def _texts(self, spans: list[tuple[int, int]]) -> list[str]:
        content = self._content
        try:
            return [content[start:end].decode() for start, end in spans]
        except UnicodeDecodeError:
            raise self._damaged("a text is not UTF-8") from None

    def _number(self, form: str) -> int | float:
        return self._unpack(f"<{form}")[0]

    def _unpack(self, form: str) -> tuple:
        start, self._position = self._position, self._position + struct.calcsize(form)
        if self._position > len(self._content):
            raise self._damaged("it ends within its header")
        return struct.unpack_from(form, self._content, start)

    def _damaged(self, why: str) -> RunError:
        return RunError(f"{self.path}: is damaged or cut off ({why}). Fetch it again.")


def type_name(number: int) -> str:
    """What llama.cpp calls a type of tensors."""
    from gguf import GGMLQuantizationType

    return next((kind.name for kind in GGMLQuantizationType if kind == number), f"type {number}")
