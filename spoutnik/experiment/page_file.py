"""An experiment's page as JSON, to and fro; and what a run may do with the page that is there already."""

import contextlib
import fcntl
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from spoutnik.errors import RunError, UserError
from spoutnik.experiment.finding import Finding
from spoutnik.experiment.results import ExperimentResults, Page, Spent, page_of, total
from spoutnik.files import disk_errors, read_json

FORMAT = 2  # of the JSON; 1 had no key of this name, and not all that writing the page again takes
WRITTEN_BY = "Written by `spoutnik experiment"  # in every page: others are not replaced
OVERVIEW = "overview.svg"
_RESULTS = TypeAdapter(ExperimentResults)
_STORED = [field.name for field in fields(Finding)]


def page_as_json(page: Page, notes: Sequence[str]) -> dict:
    """All that the page tells. What is computed from the rest is there for readers, and is computed again when it is read:
    notes, verdicts, sums."""
    return {"format": FORMAT, "code": page.code, "notes": list(notes), "cost": _costs(spent for one in page.experiments
                                                                                    for spent in one.bill),
            "experiments": [_experiment(one) for one in page.experiments],
            "findings": [_finding(finding, one.name) for one in page.experiments for finding in one.findings]}


def _costs(bill: Iterator[Spent]) -> dict:
    return {purpose: vars(cost) for purpose, cost in total(bill).items()}


def _experiment(one: ExperimentResults) -> dict:
    return {"name": one.name, "file": one.file, "about": one.about, "seeds": one.seeds, "shared": one.shared, "code": one.code,
            "versions": one.versions, "failed": one.failed, "curves": one.curves, "cost": _costs(one.bill),
            "bill": [{"purpose": spent.purpose, "name": spent.name,
                      "cost": {key: value for key, value in vars(spent.cost).items() if value}} for spent in one.bill]}


def _finding(one: Finding, experiment: str) -> dict:
    values = {key: _number(value) for key, value in asdict(one).items()}
    for side, mean, spent, own in zip("ab", one.means, one.core_seconds, one.of_stage):
        values[side] |= {"mean": _number(mean), "core_seconds": _number(spent), "core_seconds_of_stage": _number(own)}
    return values | {"experiment": experiment, "alone": one.alone}


def _number(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def figure_of(finding: str) -> str:
    """The file's name. Names of findings, experiments and stages have no dot (recipe/schema.py: refuse_other_names)."""
    return f"{finding}.svg"


def figure_of_training(experiment: str, stage: str) -> str:
    return f"{experiment}.{stage}.svg"


def figures_of(page: Page) -> list[str]:
    """The files in the folder of a page's figures."""
    return [OVERVIEW, *(figure_of(finding.name) for finding in page.findings), *trainings_of(page.experiments)]


def trainings_of(experiments: Sequence[ExperimentResults]) -> list[str]:
    return [figure_of_training(one.name, stage) for one in experiments for stage in one.curves]


def read_page(path: Path) -> Page | None:
    """A page from the JSON beside it; None where there is neither.

    Raises:
        UserError: there is a page without JSON, somebody's own file, or one that this version cannot read.
    """
    data = path.with_suffix(".json")
    if not data.exists():
        if path.exists():
            raise UserError(f"{path}: has no {data.name} beside it, from which its findings would be kept. Restore that file, "
                            "or leave --add out, so that the page is replaced.")
        return None
    content = _content(data)
    if content.get("format") != FORMAT:
        raise UserError(f"{data}: is of a page of another version of Spoutnik (format {content.get('format', 1)}, not "
                        f"{FORMAT}), to which nothing can be added. Run {', '.join(_names(content))} again as well, without "
                        "--add and with all files on one command line, or give another page (--page).")
    try:
        rows = [dict(row) for row in content["findings"]]
        lacking = [f"{row['name']} lacks {key}" for row in rows for key in _STORED if key not in row]
        experiments = [_RESULTS.validate_python(one | {"findings": [row for row in rows if row["experiment"] == one["name"]]})
                       for one in content["experiments"]]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(data, f"{where} = {first['input']!r:.80}: {first['msg']}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(data, f"{type(error).__name__}: {error}") from error
    if lacking:
        raise _unreadable(data, f"findings: {lacking[0]}")
    names = [finding.name for one in experiments for finding in one.findings]
    if len(set(names)) < len(rows) or len({one.name for one in experiments}) < len(experiments):
        raise _unreadable(data, "a finding or an experiment stands twice, or a finding is of no experiment")
    return page_of(str(content.get("code")), experiments)


def _unreadable(data: Path, what: str) -> UserError:
    return UserError(f"{data}: {what}. So it cannot be added to. Restore the file as the command wrote it, or give another "
                     "page (--page).")


def _content(data: Path) -> dict:
    """The JSON beside a page, of any format."""
    try:
        content = read_json(data)
    except RunError as error:
        raise UserError(f"{data}: is not valid JSON, or cannot be read ({error.__cause__ or error}). Restore the file as the "
                        "command wrote it, or give another page (--page).") from error
    if not isinstance(content, dict) or not isinstance(content.get("experiments"), list):
        raise UserError(f"{data}: is not of an experiment's page, and would be replaced. Give another page (--page).")
    return content


def _names(content: dict) -> list[str]:
    """Of the experiments of a page of any format."""
    return [str(one.get("name") if isinstance(one, dict) else one) for one in content["experiments"]]


def check_page(path: Path, experiments: Collection[str], findings: Collection[str] = (), add: bool = False) -> Page | None:
    """The page to which results are to be added; None where there is none, or where it is to be replaced. Artifacts of several
    experiments may share a folder; a page is of the experiments that it was written for.

    Args:
        experiments, findings: names of those that are to be written.

    Raises:
        UserError: a page of others, or somebody's own text, which would be lost; nothing can be added to it; or no file can be
            written there.
    """
    if path.is_dir() or path.suffix == ".json":
        raise UserError(f"--page {path}: must name a file of Markdown, such as findings.md; figures and JSON are written "
                        "beside it.")
    if path.exists() and not path.with_suffix(".json").exists() and WRITTEN_BY not in path.read_text("utf-8", "replace"):
        raise UserError(f"{path}: is not an experiment's page, and would be replaced. Give another page (--page).")
    if add:
        page = read_page(path)
        if page is not None:
            _check_kept(page, path, experiments, findings)
        return page
    data = path.with_suffix(".json")
    lost = [name for name in _names(_content(data)) if name not in experiments] if data.exists() else []
    if lost:
        raise UserError(f"{path}: is the page of {', '.join(lost)}, and this is {', '.join(experiments)}. Say --add, which "
                        "keeps the findings that are there; or give another page (--page), another folder (--out), or "
                        f"{lost[0]}'s file as well.")
    return None


def _check_kept(page: Page, path: Path, experiments: Collection[str], findings: Collection[str]) -> None:
    """Of what stays: its findings have names of their own, and its figures are there."""
    kept = [one for one in page.experiments if one.name not in experiments]
    new = {name.casefold() for name in findings}  # on some systems files that differ by case alone are one
    for one in kept:
        for finding in one.findings:
            if finding.name.casefold() in new:
                raise UserError(f"{path}: has a finding {finding.name} of {one.name}, and {', '.join(experiments)} has one of "
                                "this name as well. Rename one of the two.")
    for name in trainings_of(kept):
        if not (path.with_suffix("") / name).exists():
            raise UserError(f"{path.with_suffix('') / name}: is missing, and cannot be drawn again without what it was drawn "
                            f"from. Restore it, or run {name.partition('.')[0]} again as well.")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Holds off other runs that add to the same page, from their reading of it to their writing."""
    folder = path.with_suffix("")
    with disk_errors(folder, "--page"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with disk_errors(folder, "--page"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
