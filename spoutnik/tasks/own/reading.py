"""Reading a user's rows: JSON lines, JSON, CSV or Parquet, with the file and the line in every complaint."""

import csv
import importlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from spoutnik.errors import UserError
from spoutnik.tasks.identification import check_language
from spoutnik.tasks.own.rows import VERIFIERS, Row
from spoutnik.validation import did_you_mean, sentences

LONGEST_LINE = 16 << 20  # bytes: more is no row but a file that lost its line breaks
MOST_TOLD = 5  # mistakes that one message lists
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_OTHER_UNICODE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Place:
    """Where a row stands: "line 3", "row 3"."""

    path: Path
    where: str

    def __str__(self) -> str:
        return f"{self.path}, {self.where}"


def read_rows(path: Path, kind: type[Row] | None = None) -> list[tuple[Place, Row]]:
    """All rows of a file, checked.

    Args:
        kind: of all rows, which then name no verifier; None where each names its own.

    Raises:
        UserError: the file cannot be read, is empty, or has rows that are wrong; up to MOST_TOLD of these are told at once.
    """
    rows, mistakes = [], []
    for place, value in _values(path):
        try:
            if isinstance(value, UserError):
                raise value
            rows.append((place, checked_row(value, kind)))
        except UserError as error:
            mistakes.append(f"{place}: {error}")
    if mistakes:
        more = f"\n... and {len(mistakes) - MOST_TOLD} more." if len(mistakes) > MOST_TOLD else ""
        raise UserError("\n".join(mistakes[:MOST_TOLD]) + more)
    if not rows:
        raise UserError(f"{path}: has no rows. Write one problem a line: "
                        '{"prompt": "What is 2 + 2?", "answer": "4", "verifier": "math"}.')
    return rows


def checked_row(value: object, kind: type[Row] | None = None) -> Row:
    """A row from its keys and values. Raises UserError for what is missing, unknown or wrong."""
    if not isinstance(value, dict):
        raise UserError('must be an object like {"prompt": ..., "answer": ..., "verifier": ...}.')
    if kind is None:
        verifier = value.get("verifier")
        if verifier is None:
            raise UserError(f"the key 'verifier' is missing. Add it: one of {', '.join(VERIFIERS)}.")
        if not isinstance(verifier, str) or verifier not in VERIFIERS:
            raise UserError(f"verifier = {verifier!r}: must be one of {', '.join(VERIFIERS)}."
                            f"{did_you_mean(verifier, VERIFIERS)}")
        kind = VERIFIERS[verifier]
    try:
        row = kind.model_validate(value)
    except ValidationError as error:
        raise UserError(sentences(error, kind)) from error
    try:
        check_language(row.language)
    except ValueError as error:
        raise UserError(f"language = {row.language!r}: {error}") from error
    row.check()
    return row


def _values(path: Path) -> Iterator[tuple[Place, object]]:
    """(place, value) of each row; in place of a value that cannot be read the error that says why."""
    if path.is_dir() or not path.exists():
        raise UserError(f"{path}: is {'a folder' if path.is_dir() else 'not there'}. Name a file ({', '.join(SUFFIXES)}).")
    readers = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise UserError(f"{path}: a file of rows ends in one of {', '.join(SUFFIXES)}.")
    try:
        yield from readers[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check the file and its permissions.") from error


def _json_lines(path: Path) -> Iterator[tuple[Place, object]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            place = Place(path, f"line {number}")
            if len(line) > LONGEST_LINE:
                yield place, UserError(f"is longer than {LONGEST_LINE >> 20} MiB. Write one row a line.")
                return
            if number == 1:
                _refuse_other_unicode(path, line)
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield place, _decoded_json(line)


def _decoded_json(line: bytes) -> object:
    """The value of a line, or the error that says why it has none."""
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return UserError(f"is not UTF-8 (byte {error.start + 1}). Save the file as UTF-8.")
    except json.JSONDecodeError as error:
        return UserError(f"is not JSON ({error.msg}, column {error.colno}). Correct the line.")
    except RecursionError:
        return UserError("is nested too deeply. Simplify it.")
    except ValueError as error:
        return UserError(f"is not JSON ({error}). Correct the line.")


def _json(path: Path) -> Iterator[tuple[Place, object]]:
    content = path.read_bytes()
    _refuse_other_unicode(path, content)
    rows = _decoded_json(content.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(rows, UserError):
        raise UserError(f"{path}: {rows}")
    if not isinstance(rows, list):
        raise UserError(f"{path}: must be a list of rows, [{{...}}, ...]. For one row a line name the file .jsonl.")
    for number, row in enumerate(rows, 1):
        yield Place(path, f"row {number}"), row


def _csv(path: Path) -> Iterator[tuple[Place, object]]:
    """Cells that are empty are keys that are not there; lists and objects are written as JSON."""
    content = path.read_bytes()
    _refuse_other_unicode(path, content)
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        for row in reader:
            place = Place(path, f"line {reader.line_num}")
            if None in row or None in row.values():
                yield place, UserError(f"has another number of cells than the first line ({len(reader.fieldnames)}).")
            else:
                of_json = {"choices", "tests", "schema", "metadata"} | ({"answer"} if row.get("verifier") == "json" else set())
                yield place, {name: _cell(text) if name in of_json else text for name, text in row.items() if text != ""}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 (byte {error.start + 1}). Save the file as UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"{path}: is not CSV ({error}). Correct it, or write JSON lines.") from error


def _cell(text: str) -> object:
    """The value that a cell has as JSON, where it is some; else its text."""
    value = _decoded_json(text.encode("utf-8", "surrogatepass"))
    return text if isinstance(value, UserError) else value


def _parquet(path: Path) -> Iterator[tuple[Place, object]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(f"{path}: reading Parquet needs pyarrow. Install it (pip install 'spoutnik[datasets]'), or write JSON "
                        "lines.") from error
    try:
        rows = parquet.read_table(path).to_pylist()
    except OSError:
        raise
    except Exception as error:  # pyarrow's own errors share no other base
        raise UserError(f"{path}: is not Parquet ({str(error).splitlines()[0]}). Correct it, or write JSON lines.") from error
    for number, row in enumerate(rows, 1):
        yield Place(path, f"row {number}"), {name: value for name, value in row.items() if value is not None}


def _refuse_other_unicode(path: Path, content: bytes) -> None:
    if (encoding := _OTHER_UNICODE.get(content[:2])) is not None:
        raise UserError(f"{path}: is {encoding}. Save the file as UTF-8.")


def _object(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")
