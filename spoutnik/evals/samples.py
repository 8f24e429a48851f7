"""The samples of an evaluation on disk: one JSON object a line, appended as they come, none asked for twice."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import cut_half_line, disk_errors, parse_json_line, sha256_json, text_lines, write_text
from spoutnik.tasks import Problem

SAMPLES = "samples.jsonl"  # in an evaluation's folder


@dataclass(frozen=True)
class ModelReply:
    """A reply in its parts, before it is graded; fields as of Sample."""

    thought: str
    answer: str
    finished: bool
    well_formed: bool
    tokens: int
    thought_tokens: int


@dataclass(frozen=True)
class Sample:
    """One reply to one problem, with its grade.

    problem: see `problem_id`. sample: 0..k-1. stratum: family, subject or level; "" for none. correct: in [0, 1]. finished:
    false where the reply was cut at a limit. well_formed: the thought was closed and an answer follows. answered: an answer
    could be read from it; extracted: that answer, None for none. tokens: of the whole reply, 0 where an endpoint does not
    count. verifier_error: what the verifier raised instead of a grade; such an answer counts as wrong.
    """

    task: str
    problem: str
    sample: int
    level: int
    language: str
    stratum: str
    prompt: str
    gold: str
    thought: str
    answer: str
    correct: float
    finished: bool
    well_formed: bool
    answered: bool
    extracted: str | None
    tokens: int
    thought_tokens: int
    verifier_error: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.problem, self.sample

    def row(self) -> dict:
        """Without `verifier_error` where there was none."""
        row = asdict(self)
        if self.verifier_error is None:
            del row["verifier_error"]
        return row


def sample_of(problem: Problem, number: int, reply: ModelReply, correct: float, verifier_error: str | None = None) -> Sample:
    """The sample of a graded reply."""
    extracted = _extracted(problem, reply.answer) if reply.well_formed and verifier_error is None else None
    return Sample(problem.task.name, problem_id(problem), number, problem.level, problem.language, _stratum(problem),
                  problem.prompt, problem.answer, reply.thought, reply.answer, correct, reply.finished, reply.well_formed,
                  extracted is not None, extracted, reply.tokens, reply.thought_tokens, verifier_error)


def _extracted(problem: Problem, answer: str) -> str | None:
    """The answer as its task reads it; None where there is nothing."""
    try:
        return problem.task.extract(problem, answer) or None
    except Exception:  # noqa: BLE001 - what a task cannot read holds no answer
        return None


def _stratum(problem: Problem) -> str:
    """What kind of problem it is within its task, where the task says it."""
    named = (problem.data.get(name) for name in ("stratum", "subject", "category"))
    return next((value for value in named if isinstance(value, str)), problem.family)


_KEYS = {field.name: field.type for field in fields(Sample)}
_REQUIRED = [name for name in _KEYS if name != "verifier_error"]


def problem_id(problem: Problem) -> str:
    """The same in every evaluation that asks this question and expects this answer."""
    history = [list(turn) for turn in problem.history]
    return sha256_json([problem.task.name, history, problem.prompt, problem.answer])[:16]


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file; of two with one key, the first.

    Raises:
        UserError: the file is not there, or a line is no sample.
    """
    samples: dict[tuple[str, int], Sample] = {}
    for number, line in text_lines(path):
        try:
            sample = _sample(parse_json_line(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        samples.setdefault(sample.key, sample)
    return list(samples.values())


def _sample(row: object) -> Sample:
    if not isinstance(row, Mapping):
        raise ValueError("is no sample but another JSON value. Remove the line: its sample is asked for again.")
    missing = [name for name in _REQUIRED if name not in row]
    if missing:
        raise ValueError(f"the key '{missing[0]}' of a sample is missing. Remove the line: its sample is asked for again.")
    values = {name: row[name] for name in _KEYS if name in row}
    wrong = [name for name, kind in _KEYS.items() if name in values and not _is(values[name], kind)]
    if wrong:
        raise ValueError(f"{wrong[0]} = {str(values[wrong[0]])[:60]!r}: a sample has {_KEYS[wrong[0]]} there. Remove the line: "
                         "its sample is asked for again.")
    return Sample(**values)


def _is(value: object, kind: object) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    if kind is int:
        return type(value) is int
    return isinstance(value, kind)


class SampleStore:
    """The samples of one evaluation. A process that is killed loses those that it was computing, and no other."""

    def __init__(self, folder: Path):
        """Reads what is there. A last line without its end, of a process that was killed while it wrote, is cut off."""
        self.path = folder / SAMPLES
        with disk_errors(folder, "--out"):
            folder.mkdir(parents=True, exist_ok=True)
            cut_half_line(self.path)
            self._file = open(self.path, "a", encoding="utf-8", errors="replace")  # noqa: SIM115 - until `close`
        self.samples = {sample.key: sample for sample in read_samples(self.path)}

    def append(self, sample: Sample) -> None:
        if sample.key in self.samples:
            return
        with disk_errors(self.path, "--out"):
            self._file.write(_line(sample))
            self._file.flush()
        self.samples[sample.key] = sample

    def missing(self, keys: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        return [key for key in keys if key not in self.samples]

    def finish(self, order: Sequence[tuple[str, int]]) -> list[Sample]:
        """The samples of these keys, in their order. The file is written anew in that order, so that it is the same however
        often its process was killed; samples of other keys follow."""
        listed = set(order)
        samples = [self.samples[key] for key in order]
        others = [sample for key, sample in sorted(self.samples.items()) if key not in listed]
        self.close()
        write_text(self.path, "".join(map(_line, samples + others)))
        return samples

    def close(self) -> None:
        self._file.close()


def _line(sample: Sample) -> str:
    """Half a surrogate pair, which an endpoint may send and UTF-8 cannot hold, becomes a question mark."""
    return json.dumps(sample.row(), ensure_ascii=False).encode("utf-8", "replace").decode("utf-8") + "\n"
