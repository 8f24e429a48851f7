"""A saved evaluation: the samples of `samples.jsonl`, and `evaluation.json` that says how they were drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import parse_json_line, read_json, text_lines

SAMPLES, EVALUATION = "samples.jsonl", "evaluation.json"
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "task": str, "problem": str, "sample": int, "correct": (int, float), "finished": bool, "well_formed": bool,
    "answered": bool, "answer": str, "thought_tokens": int, "tokens": int}

Row = Mapping[str, object]  # a line of samples.jsonl


@dataclass(frozen=True)
class Saved:
    """An evaluation on disk. rows: one for each (problem, sample). notes: sentences on lines that do not count."""

    folder: Path
    rows: list[dict]
    identity: dict
    hash: str
    model: str
    notes: tuple[str, ...] = ()


def read_evaluation(folder: Path) -> Saved:
    """The evaluation in a folder. Of two lines for one sample the first counts; a last line that is cut, of a process that was
    killed, does not.

    Raises:
        UserError: the folder has no evaluation, or a line is broken. RunError: evaluation.json is.
    """
    for name in (SAMPLES, EVALUATION):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: has no {name}. Give the folder that `spoutnik eval` wrote its samples to.")
    described = read_json(folder / EVALUATION)
    if not isinstance(described, dict) or not isinstance(described.get("identity"), dict):
        raise UserError(f"{folder / EVALUATION}: does not say how the samples were drawn (identity). Evaluate again.")
    missing = [name for name in ("hash", "model") if name not in described]
    if missing:
        raise UserError(f"{folder / EVALUATION}: the key '{missing[0]}' is missing. Evaluate again.")
    rows, notes = read_rows(folder / SAMPLES)
    return Saved(folder, rows, described["identity"], str(described["hash"]), str(described["model"]), notes)


def read_rows(path: Path) -> tuple[list[dict], tuple[str, ...]]:
    """The rows of a samples.jsonl, and what was left out. Raises UserError for a broken line and for a file without samples."""
    lines = list(text_lines(path))
    rows: dict[tuple, dict] = {}
    repeated, notes = 0, []
    for number, line in lines:
        try:
            row = parse_json_line(line)
        except ValueError as error:
            if number == lines[-1][0] and not line.endswith(b"\n"):
                notes.append(f"{path}: the last line is cut, as by a process that was killed; it does not count.")
                continue
            raise UserError(f"{path}, line {number}: {error}") from error
        _check(row, f"{path}, line {number}")
        key = row["task"], row["problem"], row["sample"]
        repeated += key in rows
        rows.setdefault(key, row)
    if not rows:
        raise UserError(f"{path}: has no samples. Evaluate first.")
    if repeated:
        notes.append(f"{path}: {repeated} samples stand there more than once; the first of each counts.")
    return list(rows.values()), tuple(notes)


def _check(row: object, where: str) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{where}: is no sample. Remove the line.")
    for name, kind in _FIELDS.items():
        value = row.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{where}: '{name}' of the sample is {str(value)[:60]!r}. Remove the line, or evaluate again.")
    if not 0 <= row["correct"] <= 1:
        raise UserError(f"{where}: 'correct' is {row['correct']!r}, and a grade is a number from 0 to 1. Remove the line.")
