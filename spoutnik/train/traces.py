"""Traces of fine-tuning: read from files, checked, counted.

A trace is one JSON line: {"prompt", "thought", "answer"} and whatever says where it came from; "history", where there is one,
holds earlier turns as [question, answer]. What cannot be learned from is left out, and a report says how much of it there was.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import check_row, check_text, parse_json_line, text_lines
from spoutnik.text.special_token_escape import END_THINK, THINK

KEYS = ("prompt", "thought", "answer")
LARGE_SHARE = 0.1  # of a source's traces: who loses more than that should know
_SHOWN_LINES = 5  # of broken lines, beside the first


@dataclass
class TraceReport:
    """What became of one source's traces: read = used + all that was left out, each for the first reason that holds.

    too_long: more tokens than the model has positions. empty: no prompt or no answer. duplicate: the same as an earlier one.
    marks: <think> or </think> within the thought or the answer. unwrapped: used, and freed of marks around the thought.
    near_duplicate: nearly the same as an earlier one. contaminated: with a benchmark's problem. contaminated_used: the same,
    and used: the recipe only warns.
    """

    source: str
    read: int = 0
    used: int = 0
    too_long: int = 0
    empty: int = 0
    duplicate: int = 0
    marks: int = 0
    unwrapped: int = 0
    near_duplicate: int = 0
    contaminated: int = 0
    contaminated_used: int = 0

    @property
    def dropped(self) -> int:
        return self.read - self.used

    @property
    def is_large(self) -> bool:
        return self.dropped > LARGE_SHARE * self.read

    def sentence(self, positions: int) -> str:
        """For people, with the remedy where much is lost."""
        text = f"{self.source}: {self.read:,} traces read, {self.used:,} used"
        text += "".join(f", {part}" for part in self._reasons())
        if self.unwrapped:
            text += f"; {self.unwrapped:,} freed of marks around their thoughts"
        if not self.is_large:
            return text
        remedy = (f"Shorten them to {positions:,} tokens, or widen the model's context." if 2 * self.too_long > self.dropped
                  else "Mend the source.")
        return f"Warning: {text}. {100 * self.dropped / self.read:.0f} % of them teach nothing. {remedy}"

    def note(self) -> str:
        """For the stage table: nothing where everything was used."""
        if not self.dropped:
            return ""
        return f"{self.dropped:,} of {self.read:,} traces of {self.source} left out ({', '.join(self._reasons())})"

    def _reasons(self) -> list[str]:
        named = (("too long", self.too_long), ("empty", self.empty), ("with marks of thought inside", self.marks))
        reasons = [f"{count:,} {what}" for what, count in named if count]
        if self.duplicate:
            reasons.append(f"{self.duplicate:,} duplicate{'s' if self.duplicate > 1 else ''}")
        if self.near_duplicate:
            reasons.append(f"{self.near_duplicate:,} near duplicate{'s' if self.near_duplicate > 1 else ''}")
        if self.contaminated:
            reasons.append(f"{self.contaminated:,} with a benchmark's problem")
        return reasons


@dataclass
class Traces:
    """The usable traces of one source, and its report, which `sft.fit` completes: it needs a tokenizer."""

    rows: list[dict]
    report: TraceReport

    @staticmethod
    def of(source: str, rows: Sequence[dict]) -> "Traces":
        """Traces written by this package, which are what they should be."""
        return Traces(list(rows), TraceReport(source, len(rows), len(rows)))


def load_traces(path: Path) -> Traces:
    """The traces of a file that somebody wrote.

    Raises:
        UserError: there is none to learn from, or lines are no traces; names the lines.
    """
    path = Path(path)
    report, rows, seen, broken = TraceReport(path.name), [], set(), []
    for number, line in text_lines(path):
        try:
            row = checked_trace(parse_json_line(line))
        except ValueError as error:
            broken.append((number, error))
            continue
        report.read += 1
        row = _unwrapped(row, report)
        identity = json.dumps([row.get("history", []), *(row[key] for key in KEYS)])
        if not row["prompt"].strip() or not row["answer"].strip():
            report.empty += 1
        elif any(mark in row[key] for mark in (THINK, END_THINK) for key in ("thought", "answer")):
            report.marks += 1
        elif identity in seen:
            report.duplicate += 1
        else:
            seen.add(identity)
            rows.append(row)
    if broken:
        number, error = broken[0]
        others = ", ".join(str(other) for other, _ in broken[1:1 + _SHOWN_LINES])
        more = f" ({len(broken) - 1:,} more broken lines: {others}{' ...' if len(broken) > 1 + _SHOWN_LINES else ''})"
        raise UserError(f"{path}, line {number}: {error}" + (more if others else "")) from error
    report.used = len(rows)
    if not report.read:
        raise UserError(f"{path}: holds no traces. Give at least one line with prompt, thought and answer.")
    if not rows:
        raise UserError(f"{path}: none of its traces can be learned from ({', '.join(report._reasons())}). Mend the file.")
    return Traces(rows, report)


def read_traces(path: Path) -> list[dict]:
    """The usable rows of a file. Raises UserError as `load_traces` does."""
    return load_traces(path).rows


def checked_trace(row: object) -> dict:
    """Raises ValueError where a value is not a trace."""
    check_row(row, KEYS, texts=True)
    history = row.get("history", [])
    if not (isinstance(history, list) and all(isinstance(turn, list) and len(turn) == 2
                                              and all(isinstance(text, str) for text in turn) for turn in history)):
        raise ValueError("history must be a list of [question, answer]. Correct it or leave it out.")
    for turn in history:
        for text in turn:
            check_text("history", text)
    return row


def _unwrapped(row: dict, report: TraceReport) -> dict:
    """A thought that stands between its marks, as other tools write them, without these: the template has its own."""
    thought = row["thought"].strip()
    if not (thought.startswith(THINK) and thought.endswith(END_THINK)):
        return row
    report.unwrapped += 1
    return row | {"thought": thought.removeprefix(THINK).removesuffix(END_THINK).strip()}


def reports_of(sources: Sequence[Traces]) -> list[dict]:
    """For the manifest."""
    return [asdict(source.report) for source in sources]


def notes_of(data: Sequence[dict]) -> str:
    """For the stage table, from a manifest's `data`."""
    return "; ".join(note for report in data if (note := TraceReport(**report).note()))
