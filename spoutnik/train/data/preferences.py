"""From rows that say which reply is better to what DPO and KTO compare: pairs from thumbs, thumbs from pairs, documents."""

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from spoutnik.errors import UserError
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.conversations import context_of
from spoutnik.train.data.loading import LoadedData, identity_of, load_data
from spoutnik.train.preferences import Pair, Thumb
from spoutnik.train.sft import Fitting
from spoutnik.train.traces import Traces, replies_of

Kind = Literal["pairs", "replies"]


def load_preferences(path: Path, kind: Kind, columns: Mapping[str, str] | None = None) -> LoadedData:
    """The pairs, or the good and bad replies, of files that hold either.

    Raises:
        UserError: they hold single replies without an opinion, or none of the kind that is asked for.
    """
    loaded = load_data(path, columns)
    if not loaded.preferences:
        raise UserError(f"{path}: is no preference data ({loaded.shape}): no reply is said to be better than another, or good. "
                        "Give prompt, chosen and rejected, or prompt, completion and label; from single replies a stage of "
                        "kind sft learns.")
    return as_pairs(loaded) if kind == "pairs" else as_replies(loaded)


def is_pair(row: Mapping) -> bool:
    return "chosen" in row and "answer" not in row


def as_pairs(loaded: LoadedData) -> LoadedData:
    """Pairs as they are; a good and a bad reply to the same conversation become one. Every reply that has a counterpart is used
    at least once, and none more often than its side is outnumbered. Raises UserError where there is no pair."""
    pairs = [row for row in loaded.rows if is_pair(row)]
    thumbs = [row for row in loaded.rows if not is_pair(row)]
    sides: dict[str, dict[bool, list[dict]]] = defaultdict(lambda: {True: [], False: []})
    for row in thumbs:
        sides[_conversation(row)][row["label"]].append(row)
    coupled, alone = [], 0
    for side in sides.values():
        good, bad = side[True], side[False]
        if not good or not bad:
            alone += len(good) + len(bad)
            continue
        longer = max(len(good), len(bad))
        coupled += [_coupled(*both) for both in itertools.islice(zip(itertools.cycle(good), itertools.cycle(bad)), longer)]
    rows, equal, duplicate = _distinct([*pairs, *coupled])
    report = replace(loaded.report, unit="pairs", read=loaded.report.read - len(thumbs) + len(coupled) + alone,
                     used=len(rows), alone=alone, equal=loaded.report.equal + equal,
                     duplicate=loaded.report.duplicate + duplicate)
    description = loaded.description
    if thumbs:
        description += (f"; {len(coupled):,} pairs of a good and a bad reply to the same conversation, of {len(thumbs):,} "
                        "replies")
    if not rows:
        raise UserError(f"{report.source}: there is no pair of a better and a worse reply to the same conversation "
                        f"({', '.join(report.reasons())}). From good and bad replies to different ones, a stage of kind kto "
                        "learns.")
    return replace(loaded, rows=rows, report=report, description=description)


def as_replies(loaded: LoadedData) -> LoadedData:
    """Thumbs as they are; of a pair the better reply is good and the worse one bad."""
    pairs = sum(map(is_pair, loaded.rows))
    split = [each for row in loaded.rows for each in (_split(row) if is_pair(row) else (row,))]
    rows, _, duplicate = _distinct(split)
    report = replace(loaded.report, unit="replies", read=loaded.report.read + pairs, used=len(rows),
                     duplicate=loaded.report.duplicate + duplicate)
    description = loaded.description + (f"; {pairs:,} pairs are a good and a bad reply each" if pairs else "")
    return replace(loaded, rows=rows, report=report, description=description)


def _conversation(row: Mapping) -> str:
    return json.dumps([row.get("tools"), context_of(row)], sort_keys=True)


def _coupled(good: Mapping, bad: Mapping) -> dict:
    before = {key: value for key, value in good.items() if key not in ("thought", "answer", "label")}
    return before | {"chosen": _reply(good), "rejected": _reply(bad)}


def _reply(row: Mapping) -> dict[str, str]:
    return {"thought": row["thought"], "answer": row["answer"]}


def _split(row: Mapping) -> list[dict]:
    before = {key: value for key, value in row.items() if key not in ("chosen", "rejected")}
    return [before | row[key] | {"label": key == "chosen"} for key in ("chosen", "rejected")]


def _distinct(rows: Sequence[dict]) -> tuple[list[dict], int, int]:
    """(rows that teach something else than earlier ones, pairs of equal replies, duplicates)."""
    distinct: dict[str, dict] = {}
    equal = 0
    for row in rows:
        if is_pair(row) and row["chosen"] == row["rejected"]:
            equal += 1
        else:
            distinct.setdefault(identity_of(row), row)
    return list(distinct.values()), equal, len(rows) - equal - len(distinct)


def reply_rows(rows: Sequence[dict]) -> list[dict]:
    """Each reply with what stands before it, as a trace."""
    return [row | reply for row in rows for reply in replies_of(row)]


def fit_preferences(source: Traces, tokenizer: Tokenizer, positions: int) -> list[Pair | Thumb]:
    """The documents of all pairs or replies that fit into the model's positions, in their order; completes the report.

    Raises:
        UserError: the chat template refuses all of them, for that reason.
    """
    fitting, examples = Fitting(tokenizer, positions), []
    for row in source.rows:
        if documents := fitting.documents(reply_rows([row]), source.report):
            examples.append(Pair(*documents) if is_pair(row) else Thumb(documents[0], row["label"]))
    return fitting.checked(examples)
