"""Files of rows that people have: JSON lines, JSON, CSV, TSV or Parquet, also gzipped, with the place of every row.

What the rows mean is decided elsewhere: tasks of one's own (`tasks.own`), data to fine-tune on (`train.data`).
"""

import csv
import glob
import gzip
import importlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from spoutnik.errors import UserError
from spoutnik.files import LFS_POINTER, is_lfs_pointer
from spoutnik.hub_data import hub_file, is_hub_name, parse_hub_name

LONGEST_LINE = 16 << 20  # bytes: more is no row but a file that lost its line breaks
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".tsv", ".ndjson")
_DATABASE = b"SQLite format 3\0"
# The first bytes of files that are no text of ours -> what they are, and what to do.
_FOREIGN = {b"\xff\xfe": "UTF-16. Save the file as UTF-8", b"\xfe\xff": "UTF-16. Save the file as UTF-8",
            b"PK\x03\x04": "a ZIP archive or a workbook. Unpack it, or save the sheet as CSV",
            b"BZh": "packed by bzip2. Unpack it", b"\xfd7zXZ": "packed by xz. Unpack it",
            b"\x28\xb5\x2f\xfd": "packed by zstd. Unpack it", b"ARROW1": "an Arrow file. Write it as Parquet",
            b"\xff\xff\xff\xff": "an Arrow stream. Write it as Parquet", b"PAR1": "Parquet. Name it so: .parquet"}
_SEPARATOR = re.compile(r"sep=(.)\r?\n")
_DELIMITERS = ",;\t|"  # of cells, where the suffix does not say it: spreadsheets of half of Europe write semicolons
_ABOUT_OTHERS = ("dataset_info.json", "dataset_infos.json", "state.json")  # what the library datasets writes beside its rows
_TEXT_TYPE = re.compile(r"(dictionary<values=)?(large_)?string(_view)?\b")  # of a column, pandas' categories among them
_TRAINING = re.compile(r"train(ing)?(?![a-z])", re.IGNORECASE)
_HELD_OUT = re.compile(r"(test|val|valid|validation|dev|eval|evaluation|held[-_]?out)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where a row stands: "line 3", "row 3"."""

    path: Path
    where: str

    def __str__(self) -> str:
        return f"{self.path}, {self.where}"


def suffix_of(path: Path) -> str:
    """The suffix that says what a file is, below a .gz."""
    return (Path(path.stem) if path.suffix == ".gz" else path).suffix.lower()


def files_at(path: Path) -> list[Path]:
    """The files that a path means, sorted: the file itself, those of rows in a folder and the folders in it (hidden ones left
    out), those that a pattern such as data/*.jsonl fits, or that of a data set of the hub (hub:owner/name, `hub_data`).

    Raises:
        UserError: there is none. RunError: the hub cannot be reached.
    """
    if is_hub_name(path):
        return [hub_file(parse_hub_name(path))]
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and suffix_of(file) in SUFFIXES
                       and file.name not in _ABOUT_OTHERS
                       and not any(part.startswith(".") for part in file.relative_to(path).parts))
        if not files:
            raise UserError(f"{path}: is a folder without files of rows ({', '.join(SUFFIXES)}). Name another one, or a file.")
        _refuse_held_out(path, files)
        return files
    if path.exists():
        raise UserError(f"{path}: is no regular file. Give the path of a file.")
    if glob.has_magic(str(path)):
        files = sorted(file for name in glob.glob(str(path), recursive=True) if (file := Path(name)).is_file())
        if not files:
            raise UserError(f"{path}: no file fits this pattern. Correct it.")
        return files
    raise UserError(f"{path}: no such file. Give the path of a file, of a folder, or a pattern such as data/*.jsonl.")


def _refuse_held_out(folder: Path, files: list[Path]) -> None:
    """A folder with parts to train on and parts to measure with is no file of rows: read as a whole it would be learned as a
    whole. Raises UserError."""
    def parts(pattern: re.Pattern) -> list[Path]:
        return [file for file in files if any(pattern.match(part) for part in file.relative_to(folder).parts)]

    if (training := parts(_TRAINING)) and (held_out := [file for file in parts(_HELD_OUT) if file not in training]):
        raise UserError(f"{folder}: holds {training[0].relative_to(folder)} and {held_out[0].relative_to(folder)}, and all its "
                        f"files would be learned. Name the part that is meant: '{training[0]}', or a pattern.")


def read_values(path: Path, longest: int = LONGEST_LINE) -> Iterator[tuple[Place, object]]:
    """(place, value) of each row; in place of a value that cannot be read the error that says why. A file whose suffix says
    nothing is one of JSON lines. Empty cells of tables are empty texts. longest: bytes of a line, characters of a cell.

    Raises:
        UserError: the file cannot be read at all.
    """
    readers = {".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    try:
        if is_lfs_pointer(path):
            raise UserError(LFS_POINTER.format(path=path))
        yield from readers.get(suffix_of(path), _json_lines)(path, longest)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}). It is cut short or damaged: fetch it again.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Check the file and its permissions.") from error


def _open(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where its first ones say that it is gzipped, whatever its name."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _json_lines(path: Path, longest: int) -> Iterator[tuple[Place, object]]:
    with _open(path) as file:
        first = file.readline(longest + 1)
        if first.startswith(_DATABASE):
            raise UserError(f"{path}: is a database. The page's history is written as JSON lines by `spoutnik history export "
                            "FILE`.")
        _refuse_foreign(path, first)
        if first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[") and (rows := _list_of_objects(path)) is not None:
            yield from _numbered(path, rows)
            return
        number, line = 0, first.removeprefix(b"\xef\xbb\xbf")
        while line or number == 0 and first:
            number += 1
            place = Place(path, f"line {number}")
            if len(line) > longest:
                yield place, UserError(f"is longer than {longest >> 20} MiB. Write one row a line.")
                return
            if line.strip():
                yield place, decoded_json(line)
            line = file.readline(longest + 1)


def _list_of_objects(path: Path) -> list | None:
    """The rows of a JSON array that is called a file of JSON lines; None where it is none."""
    with _open(path) as file:
        rows = decoded_json(file.read().removeprefix(b"\xef\xbb\xbf"))
    return rows if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows) else None


def _numbered(path: Path, rows: list) -> Iterator[tuple[Place, object]]:
    for number, row in enumerate(rows, 1):
        yield Place(path, f"row {number}"), row


def decoded_json(line: bytes) -> object:
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


def _json(path: Path, longest: int) -> Iterator[tuple[Place, object]]:
    """A list of rows, or {"data": [...]}; JSON lines under this name are read as such, since published data has them."""
    with _open(path) as file:
        content = file.read().removeprefix(b"\xef\xbb\xbf")
    _refuse_foreign(path, content)
    rows = decoded_json(content)
    first, _, others = content.strip().partition(b"\n")
    if isinstance(rows, UserError):
        if others.strip() and isinstance(decoded_json(first), dict):
            yield from _json_lines(path, longest)
            return
        raise UserError(f"{path}: {rows}")
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    if not isinstance(rows, list):
        raise UserError(f'{path}: must be a list of rows, [{{...}}, ...], or {{"data": [...]}}. For one row a line name the '
                        "file .jsonl.")
    yield from _numbered(path, rows)


def _csv(path: Path, longest: int) -> Iterator[tuple[Place, object]]:
    """The first line names the columns; a .tsv has tabs between its cells. Before it a spreadsheet may say what stands between
    cells: sep=; for itself."""
    with _open(path) as file:
        content = file.read()
    _refuse_foreign(path, content)
    csv.field_size_limit(longest)
    try:
        text = content.decode("utf-8-sig")
        said = _SEPARATOR.match(text)
        delimiter = said[1] if said else "\t" if suffix_of(path) == ".tsv" else _delimiter(content)
        reader = csv.DictReader(io.StringIO(text[said.end() if said else 0:], newline=""), strict=True, delimiter=delimiter)
        names = [name for name in reader.fieldnames or () if name]
        if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
            raise UserError(f"{path}: has two columns {twice!r}, of which only one could be read. Rename one.")
        for row in reader:
            place = Place(path, f"line {reader.line_num + bool(said)}")
            if None in row or None in row.values():
                yield place, UserError(f"has another number of cells than the first line ({len(reader.fieldnames)}).")
            else:
                yield place, row
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 (byte {error.start + 1}). Save the file as UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"{path}: is not CSV ({error}). Correct it, or write JSON lines.") from error


def _delimiter(content: bytes) -> str:
    """What stands between the cells of the first line: a comma, unless it has none and another one."""
    first = content.lstrip(b"\xef\xbb\xbf\r\n").splitlines()[:1]
    return next((mark for mark in _DELIMITERS if first and mark.encode() in first[0]), ",")


def cell(text: str) -> object:
    """The value that a cell has as JSON, where it is some; else its text."""
    value = decoded_json(text.encode("utf-8", "surrogatepass"))
    return text if isinstance(value, UserError) else value


def _parquet(path: Path, longest: int) -> Iterator[tuple[Place, object]]:
    """Nulls of columns of text are empty texts, other nulls are None. In objects within a cell a null is no key: Parquet gives
    each of them the keys of all, so that a tool call would have the arguments of every other tool."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(f"{path}: reading Parquet needs pyarrow. Install it (pip install 'spoutnik[datasets]'), or write JSON "
                        "lines.") from error
    try:
        table = parquet.ParquetFile(path)
        texts = {field.name for field in table.schema_arrow if _TEXT_TYPE.match(str(field.type))}
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield Place(path, f"row {number}"), {name: "" if value is None and name in texts else _without_nulls(value)
                                                     for name, value in row.items()}
    except (OSError, GeneratorExit):
        raise
    except Exception as error:  # pyarrow's own errors share no other base
        raise UserError(f"{path}: is not Parquet ({str(error).splitlines()[0]}). Correct it, or write JSON lines.") from error


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _refuse_foreign(path: Path, content: bytes) -> None:
    for mark, sentence in _FOREIGN.items():
        if content.startswith(mark):
            raise UserError(f"{path}: is {sentence}.")


def _object(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")
