"""Published benchmarks, read from their own files or from the hub: `read_benchmark`, `BENCHMARKS`."""

from collections.abc import Sequence
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.tasks.benchmarks.benchmark import Benchmark, subset
from spoutnik.tasks.benchmarks.hub import hub_records
from spoutnik.tasks.benchmarks.records import Record, read_records
from spoutnik.tasks.benchmarks.revisions import REVISIONS
from spoutnik.tasks.benchmarks.table import SOURCES, Source
from spoutnik.tasks.problem import Problem
from spoutnik.validation import did_you_mean

JUDGED = ("mt_bench",)  # without a verdict that a program can give
BENCHMARKS = (*SOURCES, *JUDGED)

__all__ = ["BENCHMARKS", "Benchmark", "read_benchmark", "subset"]


def read_benchmark(name: str, data: Path | None) -> Benchmark:
    """A benchmark with all its problems, in the order of its files.

    Args:
        data: its file, its folder, or a folder with one folder for each benchmark; None reads it from the hub.

    Raises:
        UserError: no such benchmark, no file of it, a broken line, a missing field, or no problem at all.
    """
    if name in JUDGED:
        raise UserError(f"{name}: its answers have no verdict but a judge's. Write its questions as JSON lines with "
                        '"verifier": "judge", and give that file.')
    source = SOURCES.get(name)
    if source is None:
        raise UserError(f"There is no benchmark '{name}'.{did_you_mean(name, BENCHMARKS)} There are {', '.join(BENCHMARKS)}.")
    benchmark = source.task(name, source.about, source.languages)
    training: Sequence[Record] = ()
    if data is None:
        records = hub_records(name, source.hub)
        revision = REVISIONS.get(source.hub.repository, "its newest revision")
        benchmark.notes = (f"{name}: {source.hub.repository} of the hub, {revision}.",)
    else:
        records = read_records(find_files(source, data))
        if source.training and data.is_dir() and (files := _matches(source, data, source.training)):
            training = read_records(files)
    benchmark.held_out = _distinct(source.read(benchmark, records))
    benchmark.training = _distinct(source.read(benchmark, training))
    return benchmark


def find_files(source: Source, data: Path) -> list[Path]:
    """The files of a benchmark's test: `data` itself, or those in it or in its folder of the benchmark's name.

    Raises:
        UserError: there are none.
    """
    if data.is_file():
        return [data]
    if not data.exists():
        raise UserError(f"--data {data}: no such file or folder. Give the file of {source.name}, or a folder that has it.")
    if files := _matches(source, data, source.files):
        return files
    raise UserError(f"--data {data}: there is no file of {source.name} in it, nor in a folder {' or '.join(source.folders)} of "
                    f"it. It is looked for under the names {', '.join(source.files[:6])}. Give its file.")


def _matches(source: Source, data: Path, patterns: Sequence[str]) -> list[Path]:
    folders = [data / folder for folder in source.folders if (data / folder).is_dir()]
    for folder in folders or [data]:
        for pattern in patterns:
            if files := sorted(path for path in folder.glob(pattern) if path.is_file()):
                return files
    return []


def _distinct(problems: Sequence[Problem]) -> list[Problem]:
    """The problems with ids that differ: a question that stands there twice gets a number."""
    seen: dict[str, int] = {}
    for problem in problems:
        own = problem.data["id"]
        seen[own] = seen.get(own, 0) + 1
        if seen[own] > 1:
            problem.data["id"] = f"{own}-{seen[own]}"
    return list(problems)
