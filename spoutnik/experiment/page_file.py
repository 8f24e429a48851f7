"""An experiment's page as JSON, to and fro; and what a run may do with the page that is there already."""

import contextlib
import fcntl
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from spoutnik.errors import RunError, UserError
from spoutnik.experiment.content import Page, page_of
from spoutnik.experiment.finding import Finding
from spoutnik.experiment.results import ExperimentResults, Spent, total
from spoutnik.files import disk_errors, read_json

FORMAT = 3  # of the JSON; 1 and 2 had not all that writing the page again, and joining sittings, takes
WRITTEN_BY = "Written by `spoutnik experiment"  # in every page: others are not replaced
OVERVIEW = "overview.svg"
_RESULTS = TypeAdapter(ExperimentResults)
_STORED = [field.name for field in fields(Finding)]


def page_as_json(page: Page, notes: Sequence[str]) -> dict:
    """All that the page tells. The sittings are what was measured; all else is for readers, and is computed again when the
    page is read: experiments, findings with their verdicts, notes, sums."""
    return {"format": FORMAT, "code": page.code, "notes": list(notes), "cost": _costs(spent for one in page.experiments
                                                                                    for spent in one.bill),
            "experiments": [_experiment(one) for one in page.experiments],
            "findings": [_finding(finding) | {"experiment": one.name} for one in page.experiments for finding in one.findings],
            "sittings": [_experiment(one) | {"findings": [_finding(finding) for finding in one.findings]}
                         for one in page.sittings]}


def _costs(bill: Iterator[Spent]) -> dict:
    return {purpose: vars(cost) for purpose, cost in total(bill).items()}


def _experiment(one: ExperimentResults) -> dict:
    return {"name": one.name, "file": one.file, "about": one.about, "seeds": one.seeds, "shared": one.shared, "code": one.code,
            "versions": one.versions, "failed": one.failed, "curves": one.curves, "cost": _costs(one.bill),
            "bill": [{"purpose": spent.purpose, "name": spent.name,
                      "cost": {key: value for key, value in vars(spent.cost).items() if value}} for spent in one.bill]}


def _finding(one: Finding) -> dict:
    values = {key: _number(value) for key, value in asdict(one).items()}
    for side, mean, spent, own in zip("ab", one.means, one.core_seconds, one.of_stage):
        values[side] |= {"mean": _number(mean), "core_seconds": _number(spent), "core_seconds_of_stage": _number(own)}
    return values | {"alone": one.alone}


def _number(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def figure_of(finding: str) -> str:
    """The file's name. Names of findings, experiments and stages have no dot (recipe/schema.py: refuse_other_names)."""
    return f"{finding}.svg"


def figure_of_training(sitting: ExperimentResults, stage: str) -> str:
    """No two sittings of an experiment begin with the same seed."""
    return f"{sitting.name}.{stage}.seeds-{min(sitting.seeds)}-{max(sitting.seeds)}.svg"


def figures_of(page: Page) -> list[str]:
    """The files in the folder of a page's figures."""
    return [OVERVIEW, *(figure_of(finding.name) for finding in page.findings), *trainings_of(page.sittings)]


def trainings_of(sittings: Sequence[ExperimentResults]) -> list[str]:
    return [figure_of_training(one, stage) for one in sittings for stage in one.curves]


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
        rows = [dict(row) for one in content["sittings"] for row in one["findings"]]
        lacking = [f"{row['name']} lacks {key}" for row in rows for key in _STORED if key not in row]
        sittings = [_RESULTS.validate_python(one) for one in content["sittings"]]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(data, f"{where} = {first['input']!r:.80}: {first['msg']}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(data, f"{type(error).__name__}: {error}") from error
    if lacking:
        raise _unreadable(data, f"findings: {lacking[0]}")
    asked = [(finding.name, seed) for one in sittings for finding in one.findings for seed in one.seeds]
    experiment_of = {(one.name, finding.name) for one in sittings for finding in one.findings}
    if len(set(asked)) < len(asked) or len({finding for _, finding in experiment_of}) < len(experiment_of):
        raise _unreadable(data, "a finding stands twice, or a seed in two sittings of an experiment")
    return page_of(str(content.get("code")), sittings)


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


@dataclass(frozen=True)
class Planned:
    """What is to be written of an experiment. findings: name -> definition (Finding)."""

    name: str
    seeds: tuple[int, ...]
    findings: dict[str, str]


def check_page(path: Path, planned: Sequence[Planned], add: bool = False, join: bool = False) -> Page | None:
    """The page to which results are to be added; None where there is none, or where it is to be replaced. Artifacts of several
    experiments may share a folder; a page is of the experiments that it was written for.

    Args:
        join: what the page has of these experiments on other seeds is to stay.

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
            _check_kept(page, path, planned, join)
            if join:
                _check_joins(page, path, planned)
            else:
                _refuse_lost_seeds(path, [(one.name, one.seeds) for one in page.sittings], planned, join)
        return page
    if path.with_suffix(".json").exists():
        _refuse_loss(path, _content(path.with_suffix(".json")), planned, join)
    return None


def _refuse_loss(path: Path, content: dict, planned: Sequence[Planned], join: bool) -> None:
    """Of a page that is to be replaced, in any format: what would be gone."""
    new = {one.name: one for one in planned}
    lost = [name for name in _names(content) if name not in new]
    if lost:
        raise UserError(f"{path}: is the page of {', '.join(lost)}, and this is {', '.join(new)}. Say --add, which "
                        "keeps the findings that are there; or give another page (--page), another folder (--out), or "
                        f"{lost[0]}'s file as well.")
    there = content["sittings"] if isinstance(content.get("sittings"), list) else content["experiments"]
    sittings = [(str(one.get("name")), one.get("seeds") or ()) for one in there if isinstance(one, dict)]  # format 1: names
    _refuse_lost_seeds(path, sittings, planned, join)


def _refuse_lost_seeds(path: Path, sittings: Sequence[tuple[str, Sequence[int]]], planned: Sequence[Planned],
                       join: bool) -> None:
    """Where an experiment is to be replaced. join: its seeds were chosen on the command line; else what its file says is a
    whole, and seeds that were joined with it are what would be lost."""
    for one in planned:
        seeds = [set(of) for name, of in sittings if name == one.name]
        gone = sorted(set().union(*seeds) - set(one.seeds))
        if gone and (join or len(seeds) > 1):
            more = f"seed{'s' * (len(gone) > 1)} {_listed(gone)}"
            raise UserError(f"{path}: has {one.name} on {more} as well, which would be lost. Say --seeds "
                            f"{','.join(map(str, one.seeds))} --add, which keeps and joins them, or give another "
                            "page (--page).")


def _check_kept(page: Page, path: Path, planned: Sequence[Planned], join: bool) -> None:
    """Of what stays: its findings have names of their own, and its figures are there."""
    names = {one.name: one for one in planned}
    kept = page.kept_beside({one.name: one.seeds for one in planned}, join)
    new = {name.casefold() for one in planned for name in one.findings}  # on some systems files that differ by case are one
    for one in kept:
        for finding in one.findings:
            if one.name not in names and finding.name.casefold() in new:
                raise UserError(f"{path}: has a finding {finding.name} of {one.name}, and {', '.join(names)} has one of "
                                "this name as well. Rename one of the two.")
    for name in trainings_of(kept):
        if not (path.with_suffix("") / name).exists():
            raise UserError(f"{path.with_suffix('') / name}: is missing, and cannot be drawn again without what it was drawn "
                            f"from. Restore it, or run {name.partition('.')[0]} again as well.")


def _check_joins(page: Page, path: Path, planned: Sequence[Planned]) -> None:
    """Sittings of one experiment on other seeds: whole ones, of the same findings by the same rules."""
    for new in planned:
        for there in page.sittings:
            if there.name != new.name or set(there.seeds) <= set(new.seeds):
                continue
            if both := sorted(set(there.seeds) & set(new.seeds)):
                raise UserError(f"--seeds: {path} has a sitting of {new.name} on seeds {_listed(there.seeds)}, which cannot be "
                                f"taken apart, and {_listed(both)} would stand in two. Name all of its seeds, or none.")
            of_there = {finding.name: finding.definition for finding in there.findings}
            other = [name for name in {**of_there, **new.findings} if of_there.get(name) != new.findings.get(name)]
            if other:
                raise UserError(f"{path}: {new.name} on seeds {_listed(there.seeds)} was measured by other rules or settings "
                                f"({other[0]}), and cannot be joined with seeds {_listed(new.seeds)}. Run all seeds again, or "
                                "give another page (--page).")


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


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
