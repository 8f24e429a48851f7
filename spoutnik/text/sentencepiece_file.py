"""The file of a sentencepiece model: its pieces, and how text is brought into their form. Does not import torch.

Source: sentencepiece_model.proto. Protobuf's format is read here, in the few lines that this takes: the `sentencepiece` package
tells the pieces, but not how text is normalized, for which it needs protobuf beside it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from spoutnik.errors import RunError, UserError
from spoutnik.files import LFS_POINTER, is_lfs_pointer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces
UNIGRAM, BPE = 1, 2  # kinds of models
_KINDS = {UNIGRAM: "unigram", BPE: "bpe", 3: "word", 4: "char"}
_DAMAGED = "{path}: is damaged, or no sentencepiece model ({why}). Fetch it again."
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's forms of a value


class Piece(NamedTuple):
    text: str
    score: float
    type: int


@dataclass
class SentencePieceModel:
    """kind: UNIGRAM or BPE. unsupported: what it asks for and is not computed here. charsmap: the compiled rules by which
    characters are replaced; none where it is empty. adds_prefix: a space comes before a text. removes_spaces: at its ends,
    and all but one of those that follow each other. special: the ids of unk, bos, eos and pad, below 0 where there is none."""

    path: Path
    pieces: list[Piece] = field(default_factory=list)
    kind: int = UNIGRAM
    unsupported: list[str] = field(default_factory=list)
    charsmap: bytes = b""
    adds_prefix: bool = True
    removes_spaces: bool = True
    special: dict[str, int] = field(default_factory=lambda: {"unk": 0, "bos": 1, "eos": 2, "pad": -1})

    def special_text(self, name: str) -> str | None:
        """The text of unk, bos, eos or pad, where the model has one."""
        i = self.special[name]
        type = self.pieces[i].type if 0 <= i < len(self.pieces) else None
        return self.pieces[i].text if type == (UNKNOWN if name == "unk" else CONTROL) else None


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """
    Raises:
        RunError: the file is damaged. UserError: it asks for what is not computed here.
    """
    if is_lfs_pointer(path):
        raise RunError(LFS_POINTER.format(path=path))
    model, numbers = SentencePieceModel(path), set()
    try:
        for number, value in _fields(path.read_bytes()):
            numbers.add(number)
            if number == 1:
                model.pieces.append(_piece(value))
            elif number == 2:
                _read_trainer(model, value)
            elif number == 3:
                _read_normalizer(model, value)
            elif number == 5 and any(part == 2 and rules for part, rules in _fields(value)):
                model.unsupported.append("denormalizer_spec (rules for decoded text)")
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise RunError(_DAMAGED.format(path=path, why=error)) from error
    if not {1, 2, 3} <= numbers:
        raise RunError(_DAMAGED.format(path=path, why="it ends before its last part"))
    _check(model)
    return model


def _check(model: SentencePieceModel) -> None:
    texts = {piece.text for piece in model.pieces}
    if any(piece.type not in range(NORMAL, BYTE + 1) for piece in model.pieces):
        raise RunError(_DAMAGED.format(path=model.path, why="a piece is of no known type"))
    if sum(piece.type == UNKNOWN for piece in model.pieces) != 1 or len(texts) < len(model.pieces) or "" in texts:
        raise RunError(_DAMAGED.format(path=model.path, why="its pieces must differ, and one of them stand for unknown text"))
    if model.kind not in (UNIGRAM, BPE):
        model.unsupported.append(f"model_type = {_KINDS.get(model.kind, model.kind)}")
    if (unused := next((piece.text for piece in model.pieces if piece.type == UNUSED), None)) is not None:
        model.unsupported.append(f"the piece {unused!r} of type UNUSED")
    if model.unsupported:
        raise UserError(f"{model.path}: has {model.unsupported[0]}, which is not computed here. Put a tokenizer.json into the "
                        "folder.")


def _piece(message: bytes) -> Piece:
    values = {1: b"", 2: bytes(4), 3: NORMAL} | dict(_fields(message))
    return Piece(values[1].decode(), struct.unpack("<f", values[2])[0], values[3])


def _read_trainer(model: SentencePieceModel, message: bytes) -> None:
    names = {40: "unk", 41: "bos", 42: "eos", 43: "pad"}
    for number, value in _fields(message):
        if number == 3:
            model.kind = value
        elif number in names:
            model.special[names[number]] = value - (1 << 64) if value >> 63 else value  # of two's complement
        elif number == 24 and value:
            model.unsupported.append("treat_whitespace_as_suffix = true")


def _read_normalizer(model: SentencePieceModel, message: bytes) -> None:
    for number, value in _fields(message):
        if number == 2:
            model.charsmap = bytes(value)
        elif number == 3:
            model.adds_prefix = bool(value)
        elif number == 4:
            model.removes_spaces = bool(value)
        elif number == 5 and not value:
            model.unsupported.append("escape_whitespaces = false")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: (number, value). Integers and truth values are ints, everything else bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        form = key & 7
        if form == _VARINT:
            value, position = _varint(message, position)
        else:
            if form == _BYTES:
                size, position = _varint(message, position)
            else:
                size = {_FIXED64: 8, _FIXED32: 4}.get(form, len(message))
            value, position = message[position:position + size], position + size
            if position > len(message):
                raise ValueError(f"field {key >> 3} goes beyond its end")
        yield key >> 3, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Seven bits of each byte, the lowest first, as long as the eighth is set: the number, and where it ends."""
    number = shift = 0
    while True:
        byte = message[position]
        number, shift, position = number | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128:
            return number, position
        if shift >= 70:
            raise ValueError("a number has more than 64 bits")
