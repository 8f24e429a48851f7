"""What a teacher is asked, and how its questions are read."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

NOTHING = "NONE"  # what a teacher writes of a passage without facts
NOT_STATED = "not stated"

_MAKE = """Write {count} for an examination about the document below, each about one fact that a passage of it states.

Rules:
- Every question must be understood by somebody who has not seen the passage: name what it is about. Never write "the text", \
"the passage", "the document", "the author" or "above".
- Every answer is as short as possible: a number with its unit, a name, a date, or a few words. It follows from the passage \
alone.
- Every quote is copied from the passage letter by letter: one or two whole sentences that prove the answer.
- Write in the language of the passage.
- If the passage states no fact worth asking about, write only {nothing}.

Write each question in this form and nothing else:

Question: ...
Answer: ...
Quote: ...

Document: {place}

Passage:
\"\"\"
{passage}
\"\"\""""

_ANSWER = """Answer the question from the extract alone, without any other knowledge. Write only the answer, as short as \
possible: a number with its unit, a name, a date, or a few words in the language of the question. If the extract does not \
state the answer, write only: {not_stated}

Extract:
\"\"\"
{quote}
\"\"\"

Question: {question}"""

_AGREE = """Two people answered a question from an extract. Do both answers say the same, and does the extract state it? \
Answer with one word, yes or no.

Extract:
\"\"\"
{quote}
\"\"\"

Question: {question}

First answer: {first}

Second answer: {second}"""


@dataclass(frozen=True)
class Candidate:
    """A question as a teacher wrote it. What is missing is ""."""

    question: str
    answer: str
    quote: str


def ask_for_questions(place: str, passage: str, count: int) -> str:
    questions = "one question" if count == 1 else f"at most {count} questions"
    return _MAKE.format(count=questions, nothing=NOTHING, place=place, passage=passage)


def ask_for_answer(question: str, quote: str) -> str:
    return _ANSWER.format(question=question, quote=quote, not_stated=NOT_STATED)


def ask_for_agreement(question: str, quote: str, first: str, second: str) -> str:
    return _AGREE.format(question=question, quote=quote, first=first, second=second)


_LABEL = re.compile(r"^[\s>#*_\-]*(?:\d+\s*[.):]\s*)?[*_]*(?P<name>question|answer|quote)\s*\d*\s*[*_]*\s*[:：][*_]*[ \t]*",
                    re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"```[\w-]*\n(.*?)\n?```", re.DOTALL)
_SEPARATOR = re.compile(r"\n\s*(?:-{3,}|\*{3,}|={3,}|#{1,6}\s.*|\d+[.)])\s*$")


def read_questions(reply: str) -> list[Candidate] | None:
    """The questions of a reply, in the form that was asked for or as JSON; [] where it says that there is none, None where it
    holds neither."""
    reply = reply.strip()
    if re.fullmatch(rf"[\"'*_.\s]*{NOTHING}[\"'*_.\s]*", reply, re.IGNORECASE):
        return []
    return _json_questions(reply) or list(_labeled(reply)) or None


def _labeled(reply: str) -> Iterator[Candidate]:
    """The texts behind the labels, each up to the next label; a question begins a new candidate."""
    labels = [*_LABEL.finditer(reply)]
    parts: dict[str, str] = {}
    for label, following in zip(labels, [*labels[1:], None]):
        name = label["name"].lower()
        if name == "question" and parts:
            yield _candidate(parts)
            parts = {}
        text = reply[label.end():following.start() if following else len(reply)]
        parts.setdefault(name, _SEPARATOR.sub("", text.rstrip()).replace("```", "").strip().strip("*_ ").strip())
    if parts:
        yield _candidate(parts)


def _json_questions(reply: str) -> list[Candidate]:
    fence = _FENCE.search(reply)
    try:
        value = json.loads((fence[1] if fence else reply).strip())
    except (ValueError, RecursionError):
        return []
    if isinstance(value, dict):
        value = next((each for each in value.values() if isinstance(each, list)), [value])
    rows = [{str(name).lower(): _as_text(part) for name, part in row.items()} for row in value
            if isinstance(row, dict)] if isinstance(value, list) else []
    return [_candidate(row) for row in rows if "question" in row]


def _candidate(parts: dict[str, str]) -> Candidate:
    return Candidate(*(parts.get(name, "").strip() for name in ("question", "answer", "quote")))


def _as_text(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


_VERDICT = re.compile(r"[\s*_`\"'.]*(yes|no)\b", re.IGNORECASE)


def read_verdict(reply: str) -> bool | None:
    """What a reply says that was to be yes or no; None where it says neither."""
    match = _VERDICT.match(reply)
    return None if match is None else match[1].lower() == "yes"
