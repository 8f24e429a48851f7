"""The files of `spoutnik data make`: rows, and beside them what the teacher answered and the report."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from spoutnik.documents.making import MakeSettings
from spoutnik.documents.report import MakeReport
from spoutnik.documents.teacher import Teacher
from spoutnik.errors import UserError
from spoutnik.files import disk_errors, read_json, sha256_file, write_json, write_jsonl

_LIBRARIES = ("pypdf", "beautifulsoup4", "markdown-it-py")  # offsets are those of their texts
_ROWS = "rows_sha256"


def journal_of(out: Path) -> Path:
    """Named so that nobody reading a folder of rows takes it for some."""
    return out.with_suffix(".journal")


def report_of(out: Path) -> Path:
    return out.with_suffix(".report")


def check_out(out: Path) -> None:
    """Raises UserError where rows cannot go there: another kind of file, or one that this command did not write."""
    if out.suffix != ".jsonl":
        raise UserError(f"--out {out}: must end in .jsonl.")
    if not out.exists():
        return
    report = report_of(out)
    if not out.is_file() or not report.exists() or read_json(report).get(_ROWS) != sha256_file(out):
        raise UserError(f"--out {out}: is there already, and is not what this command last wrote there. Name another file, or "
                        "move this one away.")


def write_output(out: Path, rows: Sequence[dict], report: MakeReport, teacher: Teacher, settings: MakeSettings) -> dict:
    """Writes the rows, if there are any, and the report, which it returns."""
    with disk_errors(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        if rows:
            write_jsonl(out, list(rows))
        facts = {"teacher": {"name": teacher.name, **teacher.facts}, "settings": asdict(settings),
                 "libraries": {name: version(name) for name in _LIBRARIES}, **report.as_dict(),
                 _ROWS: sha256_file(out) if out.exists() else None}
        write_json(report_of(out), facts)
    return facts
