"""The opinions that Spoutnik's page keeps, as they are stored: `feedback/given.jsonl` of the data folder, a line for each time
somebody rates or corrects an answer; and the votes in what `spoutnik history export` writes, beside conversations.

A correction stands behind the thought of the answer that it corrects: what is compared is the answer, not whether there is a
thought. Votes are on answers alone, since their thoughts are not stored.
"""

from collections.abc import Mapping
from pathlib import Path

from spoutnik.files import check_text
from spoutnik.train.data.conversations import Drop, Learn, chat_messages, trace_of
from spoutnik.train.data.row_shape import Shape

LOG = "given.jsonl"  # of all opinions; the files beside it are made of it
OPINION = "opinion"  # of a row: what it is about; a later one on the same replaces it
_GIVEN = ("id", "messages", "thought", "answer", "rating", "correction")
_VOTE = ("models", "winner", "extras")
_CONVERSATION = ("title", "messages", "head")
_RATINGS = {"up": True, "down": False}


def opinion_shape(keys: frozenset[str]) -> Shape | None:
    """The shape of rows with these keys, where they are the page's."""
    if keys.issuperset(_GIVEN):
        return Shape("the page's feedback (thumbs and corrections)", _GIVEN, ("model", "time"), _given, True)
    if "kind" in keys and (keys.issuperset(_VOTE) or keys.issuperset(_CONVERSATION)):
        beside = ("id", "created", "updated", "owner", *_CONVERSATION)
        return Shape("an export of the page's history (votes in the arena)", ("kind",), (*_VOTE, *beside), _history, True)
    return None


def log_of(path: Path) -> Path | None:
    """The log in a folder of the page's feedback, or in the data folder around it; None where it is neither."""
    return next((log for log in (path / LOG, path / "feedback" / LOG) if log.is_file()), None)


def _given(row: Mapping, learn: Learn) -> list[dict | Drop]:
    check_text("id", row["id"])
    for key in ("thought", "answer"):
        check_text(key, row[key])
    mark = {OPINION: row["id"]}
    context = chat_messages("messages", row["messages"])
    trace = trace_of(context, row["thought"], row["answer"])
    if row["correction"]:
        check_text("correction", row["correction"])
        reply = {"thought": row["thought"], "answer": row["answer"]}
        before = {key: value for key, value in trace.items() if key not in reply}
        return [before | {"chosen": reply | {"answer": row["correction"]}, "rejected": reply} | mark]
    if row["rating"] is None:
        return [mark]  # an opinion that was taken back
    if row["rating"] not in _RATINGS:
        raise ValueError(f"rating = {row['rating']!r}: must be up, down or null. Correct it.")
    return [trace | {"label": _RATINGS[row["rating"]]} | mark]


def _history(row: Mapping, learn: Learn) -> list[dict | Drop]:
    """A vote that both answers are bad is a thumb down for each."""
    if row["kind"] == "conversation":
        return ["no_opinion"]
    extras = row.get("extras")
    if row["kind"] != "vote" or not isinstance(extras, Mapping):
        raise ValueError(f"kind = {row['kind']!r}: must be conversation, or vote with extras. Export the history again.")
    outcome, question, answers = (extras.get(key) for key in ("outcome", "question", "answers"))
    if outcome == "tie":
        return ["tie"]
    check_text("question", question)
    if outcome not in ("a", "b", "bad") or not isinstance(answers, list) or len(answers) != 2:
        raise ValueError(f"outcome = {outcome!r}: must be a, b, tie or bad, with two answers. Export the history again.")
    for answer in answers:
        check_text("answers", answer)
    context = [{"role": "user", "content": question}]
    if outcome == "bad":
        return [trace_of(context, "", answer) | {"label": False} for answer in answers]
    better, worse = answers if outcome == "a" else answers[::-1]
    return [{"prompt": question, "chosen": {"thought": "", "answer": better}, "rejected": {"thought": "", "answer": worse}}]
