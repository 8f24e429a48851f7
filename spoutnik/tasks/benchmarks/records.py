"""The records of a benchmark's files: JSON lines, JSON, CSV, TSV (each also gzipped) and parquet, with where each stands."""

import codecs
import csv
import gzip
import importlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import LFS_POINTER, parse_json_line, text_lines

LISTS = ("examples", "data", "rows")  # under which a JSON object holds its records
_LFS = b"version https://git-lfs"
_LONGEST_FIELD = 1 << 27  # characters: hidden tests of code benchmarks are long


@dataclass(frozen=True)
class Record:
    """One row of a file. where: the file and the line or the number of the row, for sentences. names: False where the columns
    have no names and `values` has their numbers as text, "0" first."""

    where: str
    values: dict[str, object]
    file: str = ""
    names: bool = True

    def get(self, *names: str) -> object:
        """The value of the first of these fields that the record has. Raises UserError where it has none."""
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        raise self.error(f"the field '{names[0]}' is missing" + (f" (or {', '.join(names[1:])})" if names[1:] else "")
                         + f"; there are {', '.join(map(str, self.values))[:200] or 'none'}. Give the benchmark's own file.")

    def text(self, *names: str) -> str:
        """A text that is not blank. Raises UserError where it is none."""
        value = self.get(*names)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(names, value, "a text")
        return value

    def number(self, *names: str) -> str:
        """A number, or a text that states one, as a text: 145.0 is "145". Raises UserError where it is neither."""
        value = self.get(*names)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) != float("inf"):
            return str(int(value)) if value == int(value) else repr(value)
        if isinstance(value, str) and any(character.isdigit() for character in value):
            return value.strip()
        raise self.wrong(names, value, "a number")

    def texts(self, *names: str) -> list[str]:
        """A list of texts with at least one. Raises UserError where it is none."""
        value = self.get(*names)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value or not all(isinstance(x, str) for x in value):
            raise self.wrong(names, value, "a list of texts")
        return list(value)

    def has(self, *names: str) -> bool:
        return all(self.values.get(name) is not None for name in names)

    def wrong(self, names: Sequence[str], value: object, wanted: str) -> UserError:
        name = next((name for name in names if self.values.get(name) is not None), names[0])
        return self.error(f"the field '{name}' is {str(value)[:60]!r}, where {wanted} belongs. Give the benchmark's own file.")

    def error(self, sentence: str) -> UserError:
        return UserError(f"{self.where}: {sentence}")


def read_records(files: Iterable[Path]) -> list[Record]:
    """The records of all files, in their order.

    Raises:
        UserError: a file cannot be read, a row of it is broken, or there is none at all.
    """
    files = list(files)
    records = [record for file in files for record in _records(file)]
    if not records:
        raise UserError(f"{', '.join(map(str, files))}: there is no problem in it. Give the benchmark's own file.")
    return records


def rows_of(rows: Iterable[object], where: str, noun: str = "row") -> Iterator[Record]:
    """Records of what is read already."""
    for number, row in enumerate(rows, start=1):
        place = f"{where}, {noun} {number}"
        if not isinstance(row, dict):
            raise UserError(f"{place}: is {str(row)[:60]!r} and no object with fields. Give the benchmark's own file.")
        yield Record(place, row, where)


def _records(path: Path) -> Iterator[Record]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    if kind == ".parquet":
        yield from rows_of(_parquet(path), str(path))
    elif kind == ".jsonl" and suffixes[-1] != ".gz":
        yield from _json_lines(text_lines(path), path)
    elif kind == ".jsonl":
        yield from _json_lines(_numbered(_bytes(path)), path)
    elif kind == ".json":
        yield from _json(path)
    elif kind in (".csv", ".tsv"):
        limit = csv.field_size_limit(_LONGEST_FIELD)  # of the whole process
        try:
            records = list(_table(path, "," if kind == ".csv" else "\t"))
        finally:
            csv.field_size_limit(limit)
        yield from records
    else:
        raise UserError(f"{path}: benchmarks are read from .jsonl, .json, .csv, .tsv (or these with .gz) and .parquet. Give "
                        "such a file, or a folder with one.")


def _numbered(text: bytes) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(text.split(b"\n"), start=1) if line.strip())


def _json_lines(lines: Iterable[tuple[int, bytes]], path: Path) -> Iterator[Record]:
    for number, line in lines:
        place = f"{path}, line {number}"
        try:
            row = parse_json_line(line)
        except ValueError as error:
            raise UserError(f"{place}: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{place}: is {str(row)[:60]!r} and no object with fields. Give the benchmark's own file.")
        yield Record(place, row, str(path))


def _json(path: Path) -> Iterator[Record]:
    text = _text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):  # JSON lines under another name
            yield from _json_lines(_numbered(text.encode("utf-8")), path)
            return
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}). Fetch the file again.") from error
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: not valid JSON that can be read ({error}). Fetch the file again.") from error
    if isinstance(content, dict):
        listed = next((content[name] for name in LISTS if isinstance(content.get(name), list)), None)
        content = [content] if listed is None else listed
    if not isinstance(content, list):
        raise UserError(f"{path}: must be a JSON list of problems. Give the benchmark's own file.")
    yield from rows_of(content, str(path), "problem")


def _table(path: Path, delimiter: str) -> Iterator[Record]:
    """Rows with the names of the first one where it is one of names; TSV has no quotes."""
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, quoting=quoting)
    names: list[str] | None = None
    try:
        for number, row in enumerate(reader):
            place = f"{path}, line {reader.line_num}"
            if number == 0 and _is_header(row):
                names = row
                continue
            if not any(cell.strip() for cell in row):
                continue
            if names is not None and len(row) != len(names):
                raise UserError(f"{place}: has {len(row)} columns, and the first line names {len(names)}. Mend or remove it.")
            keys = names if names is not None else [str(column) for column in range(len(row))]
            yield Record(place, dict(zip(keys, row, strict=True)), str(path), names is not None)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV ({error}). Fetch the file again.") from error


def _is_header(row: Sequence[str]) -> bool:
    return any(cell.strip().lower() in ("question", "problem", "input", "prompt") for cell in row)


def _text(path: Path) -> str:
    raw = _bytes(path).removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text in UTF-8 (byte 0x{raw[error.start]:02x} at {error.start + 1}). Save it as "
                        "UTF-8.") from error


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if raw.startswith(_LFS):
            raise UserError(LFS_POINTER.format(path=path))
        return gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: is no whole gzip file ({error}). Fetch it again.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Give a file that you may read.") from error


def datasets_library(what: str):
    """The `datasets` package. Raises UserError with the remedy where it is not installed."""
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(f"{what} needs the package datasets. Install it (pip install 'spoutnik[datasets]'), or give --data "
                        "with the benchmark's JSON lines, JSON or CSV.") from error


def _parquet(path: Path) -> Iterable[object]:
    library = datasets_library(f"{path}: reading parquet")
    try:
        return library.Dataset.from_parquet(str(path))
    except Exception as error:  # whatever that library raises for a broken file
        raise UserError(f"{path}: cannot be read as parquet ({str(error)[:200]}). Fetch it again.") from error
