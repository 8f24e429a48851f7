"""Reading a user's rows of problems, with the file and the line in every complaint."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from spoutnik.errors import UserError
from spoutnik.row_files import SUFFIXES, Place, cell, read_values, suffix_of
from spoutnik.tasks.identification import check_language
from spoutnik.tasks.own.rows import VERIFIERS, Row
from spoutnik.validation import did_you_mean, sentences

MOST_TOLD = 5  # mistakes that one message lists


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
    """`read_values` of one file. Cells that are empty are keys that are not there; lists and objects in them are JSON."""
    if path.is_dir() or not path.exists():
        raise UserError(f"{path}: is {'a folder' if path.is_dir() else 'not there'}. Name a file ({', '.join(SUFFIXES)}).")
    if suffix_of(path) not in SUFFIXES:
        raise UserError(f"{path}: a file of rows ends in one of {', '.join(SUFFIXES)}.")
    is_table, is_text = (suffix_of(path) in suffixes for suffixes in ((".csv", ".tsv", ".parquet"), (".csv", ".tsv")))
    for place, row in read_values(path):
        if is_table and isinstance(row, dict):
            of_json = {"choices", "tests", "schema", "metadata"} | ({"answer"} if row.get("verifier") == "json" else set())
            row = {name: cell(value) if is_text and name in of_json else value for name, value in row.items()
                   if value not in ("", None)}
        yield place, row
