"""The hygiene of a recipe's traces: near duplicates and benchmark problems among those that come from files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from spoutnik.errors import UserError
from spoutnik.files import read_jsonl, sha256_file, sha256_json
from spoutnik.tasks.hygiene import contamination, duplicates
from spoutnik.train.data.conversations import questions_of
from spoutnik.train.settings import Settings
from spoutnik.train.traces import KEYS, Traces, replies_of

_PROBLEM_KEYS = ("prompt", "question", "problem", "Problem", "Question", "text", "input")  # of published benchmarks


class HygieneSettings(Settings):
    """What becomes of traces read from files (`file` of a stage of kind sft or distill) that nearly repeat each other, or hold
    a benchmark's problems. What is dropped is counted in the manifest. Exact duplicates are always left out."""

    benchmarks: list[Path] = []
    """Files of JSON lines whose problems must not be trained on, each under `prompt`, `question`, `problem`, `text` or `input`.
    Relative to the recipe's folder. A trace holds one when its prompt or an earlier question shares ten words in a row with it,
    or all of a shorter one."""
    contamination: Literal["drop", "warn", "refuse"] = "drop"
    """Traces with a benchmark's problem are dropped; or kept, with a warning; or the run does not start."""
    near_duplicates: bool = False
    """Drop traces whose prompt, thought and answer nearly repeat an earlier one's: three words in a row each, Jaccard
    similarity 0.8."""

    @property
    def drops(self) -> dict:
        """What decides which traces remain, for a stage's key; empty where all do."""
        contaminated = {"contamination": "drop"} if self.benchmarks and self.contamination == "drop" else {}
        return contaminated | ({"near_duplicates": True} if self.near_duplicates else {})

    def contents(self) -> dict[str, str]:
        """The hash of the benchmarks, where they decide which traces remain."""
        if "contamination" not in self.drops:
            return {}
        return {"benchmarks": sha256_json(sorted(sha256_file(path) for path in self.benchmarks))}

    def located(self, recipe: Path) -> "HygieneSettings":
        """With the paths of benchmarks seen from here. Raises UserError where one cannot be read or holds no problems."""
        try:
            paths = [recipe.parent / path.expanduser() for path in self.benchmarks]
        except RuntimeError as error:  # ~somebody
            raise UserError(f"{recipe}: hygiene.benchmarks: has a home folder that is not known here. Write the whole "
                            "path.") from error
        for path in paths:
            try:
                benchmark_problems(path)
            except UserError as error:
                raise UserError(f"{recipe}: hygiene.benchmarks: {error}") from error
        return self.model_copy(update={"benchmarks": paths})


def benchmark_problems(path: Path) -> list[str]:
    """The problems of a benchmark's file of JSON lines.

    Raises:
        UserError: a line is broken, or holds no problem; there is none.
    """
    rows = read_jsonl(path)
    if not rows:
        raise UserError(f"{path}: holds no problems. Give a file with at least one line.")
    key = next((key for key in _PROBLEM_KEYS if isinstance(rows[0], dict) and key in rows[0]), None)
    for number, row in enumerate(rows, start=1):
        if key is None or not isinstance(row, dict) or not isinstance(row.get(key), str):
            raise UserError(f"{path}: problem {number}: has no text under {key or ' or '.join(_PROBLEM_KEYS)}. Mend the file, "
                            "or name the problems' key so.")
    return [row[key] for row in rows]


def clean_traces(traces: Traces, settings: HygieneSettings) -> tuple[Traces, str | None]:
    """The traces that remain, their report completed, and a warning where one is due.

    Raises:
        UserError: a trace holds a benchmark's problem, and the recipe refuses that; none remains.
    """
    rows, report, warning = traces.rows, traces.report, None
    if settings.benchmarks:
        shared = contamination([_questions(row) for row in rows], _named(settings.benchmarks))
        text = f"{report.source}: {shared.sentence()}"
        if shared.overlaps and settings.contamination == "refuse":
            raise UserError(f"{text}. Remove them, or set hygiene.contamination to drop.")
        if settings.contamination == "warn":
            report.contaminated_used = len(shared.texts)
            warning = f"Warning: {text}. Evaluations by these benchmarks will be too good." if shared.overlaps else None
        else:
            report.contaminated = len(shared.texts)
            rows = [row for number, row in enumerate(rows) if number not in shared.texts]
    if settings.near_duplicates:
        repeated = duplicates(["\n".join([_questions(row), *_replies(row)]) for row in rows])
        dropped = repeated.exact.keys() | repeated.near.keys()
        report.near_duplicate = len(dropped)
        rows = [row for number, row in enumerate(rows) if number not in dropped]
    if not rows:
        raise UserError(f"{report.source}: no trace remains after hygiene ({report.contaminated:,} contaminated, "
                        f"{report.near_duplicate:,} near duplicates). Give other traces.")
    report.used -= len(traces.rows) - len(rows)
    return replace(traces, rows=rows), warning


def _named(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Benchmarks under their files' names, or whole paths where names are alike."""
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): benchmark_problems(path) for path in paths}


def _questions(row: dict) -> str:
    return "\n".join(questions_of(row))


def _replies(row: dict) -> list[str]:
    """What a trace, or both replies of a pair, say; and of a reply with a label which one."""
    texts = [reply[key] for reply in replies_of(row) for key in KEYS[1:]]
    return [*texts, str(row["label"])] if "label" in row else texts
