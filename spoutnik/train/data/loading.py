"""Users' files to traces: every row is read by the shape that the first one has, checked, counted."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from spoutnik.errors import UserError
from spoutnik.files import LONGEST_LINE
from spoutnik.row_files import Place, files_at, read_values
from spoutnik.train.data.conversations import Drop, Learn, context_of
from spoutnik.train.data.key_names import with_known_keys
from spoutnik.train.data.opinions import LOG, OPINION, log_of
from spoutnik.train.data.row_shape import BEFORE, COMMON, SYSTEM, Shape
from spoutnik.train.data.shapes import KNOWN_KEYS, shape_of
from spoutnik.train.data.split import SPLIT, named_side
from spoutnik.train.data.thought_text import MarksFound, marks_found, spells_marks, unwrapped_thought
from spoutnik.train.traces import TraceReport, Traces, replies_of
from spoutnik.validation import did_you_mean

_SHOWN = 5  # of broken rows beside the first, of keys that are not read


@dataclass
class LoadedData(Traces):
    """The usable rows of a user's files. preferences: they are not traces, but pairs ({"chosen", "rejected"}) or thumbs (traces
    with "label"), for stages that learn which reply is better."""

    preferences: bool = False
    shape: str = ""


def load_traces(path: Path, columns: Mapping[str, str] | None = None, learn: Learn = "last") -> LoadedData:
    """`load_data` of files to fine-tune on. Raises UserError where they hold preferences, with what can be done instead."""
    loaded = load_data(path, columns, learn)
    if not loaded.preferences:
        return loaded
    text = f"{path}: is preference data ({loaded.shape}), and fine-tuning learns from single replies."
    if loaded.shape.startswith("the page's"):
        raise UserError(f"{text} The answers that were liked lie beside it, in traces.jsonl.")
    if "label" in loaded.rows[0]:
        raise UserError(f"{text} Keep the rows whose label is true, and leave label out.")
    raise UserError(f"{text} To learn the chosen ones alone: columns: {{prompt: prompt, completion: chosen}}, or, where chosen "
                    "holds whole conversations, columns: {messages: chosen}.")


def read_traces(path: Path) -> list[dict]:
    """The usable rows of a file. Raises UserError as `load_traces` does."""
    return load_traces(path).rows


def load_data(path: Path, columns: Mapping[str, str] | None = None, learn: Learn = "last") -> LoadedData:
    """What files that somebody wrote hold.

    Args:
        path: a file, a folder or a pattern (`row_files.files_at`).
        columns: what a key of a shape is called in these files; None where they use its own.
        learn: of conversations with several replies, the last one or each.

    Raises:
        UserError: there is nothing to learn from, or rows are broken or of several shapes.
    """
    rows = _Rows(Path(path), columns or {}, learn)
    report, kept, seen = TraceReport(rows.name), [], set()
    for row in _last_opinions(rows.traces()):
        report.read += 1
        if isinstance(row, str):
            setattr(report, row, getattr(report, row) + 1)
            continue
        row = row if rows.shape.preferences else _unwrapped(row, report)
        identity = identity_of(row)
        reason = _why_dropped(row) or ("duplicate" if identity in seen else None)
        if reason is not None:
            setattr(report, reason, getattr(report, reason) + 1)
            continue
        seen.add(identity)
        kept.append(row)
    rows.refuse_broken()
    report.used = len(kept)
    if rows.shape is not None and rows.shape.preferences:
        report.unit = "opinions"
    if not report.read:
        raise UserError(f"{path}: holds no traces. Give at least one row with prompt, thought and answer, or of another shape "
                        "that docs/data.md lists.")
    if not kept:
        raise UserError(f"{path}: none of its {report.unit} can be learned from ({', '.join(report.reasons())}). Mend the "
                        "file.")
    return LoadedData(kept, report, rows.description(), rows.shape.preferences, rows.shape.name)


def _last_opinions(traces: Iterable[dict | Drop]) -> Iterator[dict | Drop]:
    """In place of an opinion that a later one on the same answer replaces, or that was taken back, that."""
    last: dict[str, int] = {}
    rows = []
    for row in traces:
        about = row.pop(OPINION, None) if isinstance(row, dict) else None
        if about is not None and about in last:
            rows[last[about]] = "replaced"
        if about is not None:
            last[about] = len(rows)
        rows.append(row or "no_opinion")
    return iter(rows)


def _why_dropped(row: dict) -> Literal["empty", "marks", "equal"] | None:
    """Why a row teaches nothing, as its report counts it."""
    replies = replies_of(row)
    if not row["prompt"].strip() or not all(reply["answer"].strip() for reply in replies):
        return "empty"
    if any(spells_marks(reply["thought"], reply["answer"]) for reply in replies):
        return "marks"
    return "equal" if len(replies) == 2 and replies[0] == replies[1] else None


def identity_of(row: Mapping) -> str:
    """Equal for rows that teach the same; which row they came from does not count."""
    replies = [[reply["thought"], reply["answer"], reply.get("label")] for reply in replies_of(row)]
    return json.dumps([row.get("tools"), context_of(row), replies])


class _Rows:
    """The rows of all files at a path, in order. shape: of the first row, once that was read; the others must have it."""

    def __init__(self, path: Path, columns: Mapping[str, str], learn: Learn):
        log = log_of(path)
        self.files, self.columns, self.learn = files_at(path) if log is None else [log], columns, learn
        self.path, self.shape, self._first = path, None, None
        self.name = path.name if log is None else LOG
        self._unread: dict[str, None] = {}
        self._windows = 0  # rows with Windows' line ends
        self._spelled: dict[str, str] = {}  # known keys -> as rows spell them
        self._marks = _MarksOfRows()
        self._broken: list[tuple[Place, Exception]] = []
        _check_columns(path, columns)

    def traces(self) -> Iterator[dict | Drop]:
        """Of each row its traces, or why there is none. Broken rows are kept for `refuse_broken`."""
        for file in self.files:
            for place, value in read_values(file, LONGEST_LINE):
                try:
                    if isinstance(value, UserError):
                        raise value
                    yield from self._read(place, value)
                except (ValueError, UserError) as error:
                    self._broken.append((place, error))

    def _read(self, place: Place, value: object) -> list[dict | Drop]:
        if not isinstance(value, dict):
            raise ValueError("the key 'prompt' is missing: a row is an object like "
                             '{"prompt": ..., "thought": ..., "answer": ...}. Correct it.')
        plain = with_plain_line_ends(value)
        self._windows += plain != value
        row, spelled = self._renamed(plain)
        shape = self._shape(place, row)
        traces = shape.read(row, self.learn)
        self._spelled |= {key: name for key, name in spelled.items() if key in (*shape.keys, *shape.optional)}
        self._marks.add({key: row[key] for key in (*shape.keys, *shape.optional) if key in row})
        given = spelled | self.columns
        read = {given.get(key, key) for key in (*shape.keys, *shape.optional) if key in row}
        split = next((key for key in value if with_known_keys({key: None}, (SPLIT,))[0].keys() == {SPLIT}), SPLIT)
        if split not in read and (side := named_side(value.get(split))) is not None:
            traces = [trace | {SPLIT: side} if isinstance(trace, dict) else trace for trace in traces]
            read.add(split)
        self._unread |= dict.fromkeys(key for key in value if key not in read)
        return traces

    def _renamed(self, row: dict) -> tuple[dict, dict[str, str]]:
        """By the columns, where there are some: what else all shapes have (a system text, earlier turns, tools) stays. And how
        the row spells the known keys that it spells otherwise."""
        if not self.columns:
            return with_known_keys(row, KNOWN_KEYS)
        for key, name in self.columns.items():
            if name not in row:
                raise ValueError(f"the key {name!r} is missing, which columns.{key} names; the row has "
                                 f"{', '.join(map(str, row)) or 'none'}.{did_you_mean(name, map(str, row))} Correct columns.")
        others = {key: value for key, value in row.items() if key not in self.columns.values()}
        beside, spelled = with_known_keys(others, COMMON)
        given = {*self.columns, *(SYSTEM if "system" in self.columns else ())}
        beside = {key: value for key, value in beside.items() if key in COMMON and key not in given}
        return beside | {key: row[name] for key, name in self.columns.items()}, spelled

    def _shape(self, place: Place, row: dict) -> Shape:
        """Raises UserError where rows have several shapes."""
        try:
            shape = shape_of(frozenset(row))
        except ValueError as error:
            missing = [key for key in self.shape.keys if key not in row] if self.shape is not None else []
            if not missing:
                raise
            raise ValueError(f"the key {missing[0]!r} is missing. Each row needs {', '.join(self.shape.keys)}, which "
                             f"{self._other(place)} has.") from error
        if self.shape is None:
            self.shape, self._first = shape, place
        elif not self.shape.same_as(shape):
            missing = [key for key in self.shape.keys if key not in row]
            lacks = f"the key {missing[0]!r} is missing: " if missing else ""
            raise ValueError(f"{lacks}it is {shape.name}, and {self._other(place)} is {self.shape.name}. Give rows of one "
                             "shape, or columns that all have.")
        return self.shape

    def _other(self, place: Place) -> str:
        """The first row, named from another one."""
        return self._first.where if self._first.path == place.path else str(self._first)

    def refuse_broken(self) -> None:
        """Raises UserError where rows are broken; names them."""
        if not self._broken:
            return
        (place, error), *others = self._broken
        named = ", ".join(other.where.removeprefix("line ") if other.path == place.path else str(other)
                          for other, _ in others[:_SHOWN])
        more = f" ({len(others):,} more broken lines: {named}{' ...' if len(others) > _SHOWN else ''})" if others else ""
        raise UserError(f"{place}: {error}{more}") from error

    def description(self) -> str:
        """The shape, and what of it was not read, for people."""
        names = [f"{key} from {name}" for key, name in (self._spelled | self.columns).items() if key != name]
        unread = [str(name) or "a column without a name" for name in self._unread]
        text = f"{self.name}: recognized as {self.shape.name}" + (f" ({', '.join(names)})" if names else "")
        if len(self.files) > 1:
            text += f", in {len(self.files)} files"
        if self._windows:
            text += f"; line ends of Windows in {self._windows:,} row{'s' if self._windows > 1 else ''} are read as plain ones"
        text += self._marks.description()
        if unread:
            text += f"; not read: {', '.join(unread[:_SHOWN])}{' ...' if len(unread) > _SHOWN else ''}"
        return text


class _MarksOfRows:
    """What the rows have of marks of thought, counted in rows."""

    def __init__(self):
        self._counts: dict[str, Counter] = {each.name: Counter() for each in fields(MarksFound)}

    def add(self, row: Mapping) -> None:
        """Of a row those keys that are read."""
        found = marks_found({key: value for key, value in row.items() if key not in BEFORE},
                            {key: value for key, value in row.items() if key in BEFORE})
        for name, counter in self._counts.items():
            counter.update(getattr(found, name))

    def description(self) -> str:
        """For people; "" where there are none."""
        def rows(count: int) -> str:
            return f"{count:,} row{'s' if count > 1 else ''}"

        parts = [f"thoughts between {start} and {end} in {rows(count)}"
                 for (start, end), count in self._counts["replies"].items()]
        parts += [f"{start} is text in {rows(count)}, since no reply there is a thought and an answer by it"
                  for start, count in self._counts["talked_of"].items()]
        parts += [f"what stands before the reply asks for {start} in {rows(count)}, and the model learns marks of its own: "
                  "leave that text out" for start, count in self._counts["asked_for"].items()]
        return "".join(f"; {part}" for part in parts)


def with_plain_line_ends(value: object) -> object:
    """A row whose texts have "\n" where they had "\r\n" or "\r": a model that learns these writes them."""
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n") if "\r" in value else value
    if isinstance(value, dict):
        return {key: with_plain_line_ends(entry) for key, entry in value.items()}
    return [with_plain_line_ends(entry) for entry in value] if isinstance(value, list) else value


def _check_columns(path: Path, columns: Mapping[str, str]) -> None:
    for key in columns:
        if key not in KNOWN_KEYS:
            raise UserError(f"{path}: columns.{key}: is no key of a known shape.{did_you_mean(key, KNOWN_KEYS)} Use prompt, "
                            "thought and answer, or messages.")


def _unwrapped(row: dict, report: TraceReport) -> dict:
    """A thought that stands between its marks, as other tools write them, without these: the template has its own."""
    thought = unwrapped_thought(row["thought"])
    if thought is None:
        return row
    report.unwrapped += 1
    return row | {"thought": thought}
