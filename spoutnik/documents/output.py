"""The files of `spoutnik data make`: rows, and beside them what the teacher answered and the report."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from spoutnik.documents.making import MakeSettings
from spoutnik.documents.report import MakeReport
from spoutnik.documents.teacher import Teacher
from spoutnik.errors import UserError
from spoutnik.files import disk_errors, json_lines, read_json, sha256_file, write_json, write_text

_LIBRARIES = ("pypdf", "beautifulsoup4", "markdown-it-py")  # offsets are those of their texts
_ROWS, _ROWS_BEFORE = "rows_sha256", "rows_sha256_before"  # of what is written, and of what it takes the place of


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
    facts = read_json(report) if report.exists() else {}
    known = [facts[key] for key in (_ROWS, _ROWS_BEFORE) if key in facts] if isinstance(facts, dict) else []
    if not out.is_file() or sha256_file(out) not in known:
        raise UserError(f"--out {out}: is there already, and is not what this command last wrote there. Name another file, or "
                        "move this one away.")


def write_output(out: Path, rows: Sequence[dict], report: MakeReport, teacher: Teacher, settings: MakeSettings) -> dict:
    """Writes the report, which it returns, and the rows, if there are any. The report first: killed between the two, the
    command still knows the former rows for its own. Raises UserError where the file of rows was changed meanwhile."""
    check_out(out)
    with disk_errors(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        before, text = sha256_file(out) if out.exists() else None, json_lines(rows)
        facts = {"teacher": {"name": teacher.name, **teacher.facts}, "settings": asdict(settings),
                 "libraries": {name: version(name) for name in _LIBRARIES}, **report.as_dict(),
                 _ROWS: hashlib.sha256(text.encode()).hexdigest() if rows else before, _ROWS_BEFORE: before}
        write_json(report_of(out), facts)
        if rows:
            write_text(out, text)
    return facts
