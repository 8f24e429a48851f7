"""What an adapted model must not forget, measured: its loss on general texts, and how far its predictions moved there.

The texts are a sample that ships with the package, written for it and contained in no training data, or the user's own. The
unit of every interval is a piece of text.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from spoutnik.errors import UserError
from spoutnik.files import LONGEST_LINE
from spoutnik.model.layers import linear
from spoutnik.model.packing import on_device
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import on_all_cores
from spoutnik.row_files import SUFFIXES, read_values, suffix_of
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.batches import Document, pack_documents

SHIPPED = Path(__file__).with_name("forgetting_sample.txt")
PIECE = 256  # tokens of one piece, at the most
MOST_PIECES = 64
_SHORTEST = 8  # tokens: a shorter piece says little
_ROWS = 64  # positions whose whole distributions are held at a time


@dataclass(frozen=True)
class GeneralText:
    """Pieces of text as tokens. name: for people. is_cut: there was more."""

    name: str
    pieces: list[Document]
    is_cut: bool = False

    @property
    def tokens(self) -> int:
        return sum(piece.predicted for piece in self.pieces)


def read_general(path: Path | None, tokenizer: Tokenizer, positions: int) -> GeneralText:
    """Texts without any conversation around them, cut into pieces. path: UTF-8 text whose paragraphs are apart by an empty
    line, or rows with the key "text"; None for the sample that ships with the package.

    Raises:
        UserError: it cannot be read or holds no text.
    """
    texts = _texts(path or SHIPPED)
    longest, start = min(PIECE, positions), tokenizer.start_ids
    pieces = []
    for text in texts:
        ids = tokenizer.encode(text)
        step = longest - len(start)
        pieces += [Document([*start, *ids[at:at + step]], max(len(start), 1)) for at in range(0, len(ids), step)
                   if len(ids) - at >= _SHORTEST]
        if len(pieces) > MOST_PIECES:
            break
    if not pieces:
        raise UserError(f"--general {path}: holds no text of {_SHORTEST} tokens or more. Give one with some paragraphs.")
    return GeneralText("the shipped sample" if path is None else path.name, pieces[:MOST_PIECES], len(pieces) > MOST_PIECES)


def _texts(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"--general {path}: {'is no file' if path.exists() else 'there is no such file'}. Give a text file, or "
                        f"rows with the key 'text' ({', '.join(SUFFIXES)}).")
    if suffix_of(path) in SUFFIXES:
        texts = []
        for place, row in read_values(path, LONGEST_LINE):
            if isinstance(row, UserError):
                raise UserError(f"{place}: {row}") from row
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise UserError(f"{place}: the key 'text' is missing, or is no text. Correct it.")
            texts.append(row["text"])
        return texts
    try:
        whole = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--general {path}: cannot be read as UTF-8 text ({error}). Save it as UTF-8.") from error
    return [paragraph.strip() for paragraph in whole.split("\n\n") if paragraph.strip()]


@dataclass(frozen=True)
class Forgetting:
    """Of each piece of text, in nats per token: the loss of the base, that of the adapted model, and KL(base || adapted) of the
    next-token distributions."""

    before: list[float]
    after: list[float]
    kl: list[float]


@torch.no_grad()
def measure_forgetting(base: Transformer, adapted: Transformer, texts: GeneralText) -> Forgetting:
    """Both models read every piece once."""
    heads = [model.lm_head.weight.to(model.compute_dtype) for model in (base, adapted)]

    @torch.no_grad()
    def one(piece: Document) -> tuple[float, float, float]:
        batch = on_device(pack_documents([piece], [0]), base.device)
        hidden = [model.hidden(batch.input_ids, batch.sequences)[batch.positions] for model in (base, adapted)]
        sums = torch.zeros(3, dtype=torch.float64)
        for at in range(0, len(batch.targets), _ROWS):
            targets = batch.targets[at:at + _ROWS, None]
            old, new = (linear(rows[at:at + _ROWS], head).float().log_softmax(-1) for rows, head in zip(hidden, heads))
            parts = (-old.gather(1, targets), -new.gather(1, targets), old.exp() * (old - new))
            sums += torch.stack([part.sum(dtype=torch.float64) for part in parts]).cpu()
        return tuple((sums / len(batch.targets)).tolist())

    return Forgetting(*map(list, zip(*on_all_cores(one, texts.pieces, base.device))))
