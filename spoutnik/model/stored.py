"""Where one tensor of a checkpoint lies on disk, and how. Does not import torch."""

from math import prod
from pathlib import Path
from typing import NamedTuple

from spoutnik.model.gguf_header import Placed

ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
              "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}


class Encoding(NamedTuple):
    """How a tensor of a GGUF file becomes the published one. pieces: what it is made of. order: "rows" (as it is), "pairs"
    (rows of rotated heads in adjacent pairs: llama's queries and keys) or "latent" (per head, keys transposed and values: the
    halves of kv_b_proj). heads: of "pairs" and "latent"."""

    pieces: tuple[Placed, ...]
    order: str = "rows"
    heads: int = 0


class Stored(NamedTuple):
    """One tensor on disk. dtype: the format's name for it ("BF16"), F32 for blocks of GGUF, which are decoded to that; start:
    its first byte in the file; size: its bytes. encoding: None where these bytes are the numbers in their order."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int
    encoding: Encoding | None = None

    @property
    def kind(self) -> str:
        """The type in the file, for people: "BF16", "Q4_K"."""
        return self.dtype if self.encoding is None else self.encoding.pieces[0].kind

    @property
    def is_blocks(self) -> bool:
        """Whether it is quantized as GGUF has it."""
        return self.kind != self.dtype

    @property
    def nbytes(self) -> int:
        """In memory, in `dtype`."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]
