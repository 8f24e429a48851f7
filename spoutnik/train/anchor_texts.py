"""General text for anchors: the shipped sample or a user's files, as token ids.

Plain text is encoded as it is. Rows of conversations are rendered by the model's chat template, reply included, so that the
model is held to what it does in conversations; of preferences, the chosen reply.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import check_text
from spoutnik.row_files import SUFFIXES, files_at, read_values, suffix_of
from spoutnik.text.chat_template import TemplateRefusal
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.loading import load_data
from spoutnik.train.sft import trace_document

PLAIN = (".txt", ".md", ".rst")
_REPLIES = {"messages", "conversations", "completion", "response", "answer", "output", "chosen"}  # keys of other shapes
SAMPLE = Path(__file__).with_name("general_text") / "*.txt"  # its README says what it is


@dataclass(frozen=True)
class GeneralText:
    """texts: plain ones; traces: conversations. source: what they were read from."""

    source: Path
    texts: Sequence[str]
    traces: Sequence[dict]

    def token_ids(self, tokenizer: Tokenizer) -> tuple[list[array], str]:
        """The ids of each text and conversation, and a sentence for people.

        Raises:
            UserError: the chat template refuses all conversations, and there is no other text.
        """
        ids, refusal, refused = [array("l", tokenizer.encode(text)) for text in self.texts], None, 0
        for trace in self.traces:
            try:
                ids.append(array("l", trace_document(trace, tokenizer).ids))
            except TemplateRefusal as error:
                refusal, refused = error, refused + 1
        if refusal is not None and not ids:
            raise refusal
        left_out = f"; {refused:,} conversations left out, which the chat template refuses" if refused else ""
        return ids, f"{len(ids):,} texts of {sum(map(len, ids)):,} tokens{left_out}"


def read_general_text(path: Path | None) -> GeneralText:
    """The text at a path, or the shipped sample.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = path or SAMPLE
    texts, traces = [], []
    for file in general_files(path):
        if suffix_of(file) in SUFFIXES:
            rows = _text_rows(file)
            texts += rows
            traces += [] if rows else [_chosen(row) for row in load_data(file, learn="all").rows]
        else:
            texts.append(_plain(file))
    texts = [text for text in texts if text.strip()]
    if not texts and not traces:
        raise UserError(f"{path}: holds no text. Give plain text, or rows in a shape that docs/data.md lists.")
    return GeneralText(path, texts, traces)


def general_files(path: Path) -> list[Path]:
    """The files that a path means, sorted; of a folder those of plain text and of rows, hidden ones left out.

    Raises:
        UserError: there is none.
    """
    if not path.is_dir():
        return files_at(path)
    suffixes = (*PLAIN, *SUFFIXES)
    files = sorted(file for file in path.rglob("*") if file.is_file() and suffix_of(file) in suffixes
                   and not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise UserError(f"{path}: is a folder without text ({', '.join(suffixes)}). Name another one, or a file.")
    return files


def _plain(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}). Give a file that you may read.") from error


def _text_rows(file: Path) -> list[str]:
    """The texts of a file whose rows have `text` and no reply, as corpora are kept; empty where they are of another shape."""
    texts: list[str] = []
    for place, row in read_values(file):
        if not isinstance(row, dict) or "text" not in row or row.keys() & _REPLIES:
            if not texts:
                return []
            raise UserError(f"{place}: has no text, as the rows before it have. Give rows of one shape.")
        try:
            check_text("text", row["text"])
        except ValueError as error:
            raise UserError(f"{place}: {error}") from error
        texts.append(row["text"])
    return texts


def _chosen(row: dict) -> dict:
    """A trace as it is; of a pair of replies the better one."""
    return row if "answer" in row else row | row["chosen"]
