"""The split into what is trained on and what is held out, by content: a conversation's first question decides, so that equal
questions, and all replies of one conversation, are on one side, whatever else the data holds. Rows that say themselves where
they belong ("split": "train" or "held_out", as `spoutnik data make` writes and tasks of one's own read it, or test, validation
and the like) stay there."""

import hashlib
from collections.abc import Mapping

from spoutnik.errors import UserError
from spoutnik.train.data.conversations import questions_of
from spoutnik.train.traces import TraceReport, Traces

SPLIT, TRAIN, HELD_OUT = "split", "train", "held_out"
_SIDES = dict.fromkeys(("train", "training"), TRAIN) | dict.fromkeys(
    ("held_out", "held-out", "heldout", "test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"), HELD_OUT)


def named_side(value: object) -> str | None:
    """TRAIN or HELD_OUT, where a row's `split` says one of them in a usual word; None for any other value."""
    return _SIDES.get(value.strip().lower()) if isinstance(value, str) else None


def is_held_out(row: Mapping, share: float) -> bool:
    """Whether a trace is of the held-out share, or says so itself."""
    if row.get(SPLIT) in (TRAIN, HELD_OUT):
        return row[SPLIT] == HELD_OUT
    digest = hashlib.sha256(_question(row).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2 ** 64


def has_held_out(traces: Traces) -> bool:
    """Whether some traces say that they are held out."""
    return any(row.get(SPLIT) == HELD_OUT for row in traces.rows)


def hold_out(traces: Traces, share: float) -> tuple[Traces, Traces]:
    """(what is trained on, what is held out); the first has the report on both.

    Raises:
        UserError: one of them is empty.
    """
    held_out = [row for row in traces.rows if is_held_out(row, share)]
    rows = [row for row in traces.rows if not is_held_out(row, share)]
    said = {row.get(SPLIT) for row in traces.rows}
    if len(said) == 1 and said <= {TRAIN, HELD_OUT}:
        repeated = traces.report.duplicate
        rest = f" but for {repeated:,} that repeat earlier ones and are left out" if repeated else ""
        raise UserError(f"{traces.report.source}: all its rows{rest} say that they belong to {SPLIT} = {said.pop()}, which "
                        f"leaves nothing to {'hold out' if rows else 'train on'}. Give some of the other, or leave the key "
                        "out.")
    if not rows or not held_out:
        first = {_question(row) for row in traces.rows}
        raise UserError(f"{traces.report.source}: held_out_share = {share:g} leaves nothing to "
                        f"{'hold out' if rows else 'train on'}: equal first questions stay on one side, and "
                        f"{len(traces.rows):,} {traces.report.unit} have {len(first):,} different ones. Give more questions, "
                        "or another share.")
    traces.report.held_out = len(held_out)
    traces.report.used -= len(held_out)
    name = f"{traces.report.source} (held out)"
    report = TraceReport(name, len(held_out), len(held_out), unit=traces.report.unit)
    return Traces(rows, traces.report, traces.description), Traces(held_out, report)


def _question(row: Mapping) -> str:
    """The first question; case and spaces do not count."""
    return " ".join(questions_of(row)[0].casefold().split())
