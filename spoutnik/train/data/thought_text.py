"""Thoughts within the text of a reply, between the marks that data sets write around them.

Whatever the marks are, a thought becomes a thought: the model's own marks are put around it when it is rendered.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spoutnik.text.special_token_escape import END_THINK, THINK

# Marks of a thought. Those that look like elements of XML may also be talked about; the others are nothing else.
_ELEMENTS = tuple((f"<{name}>", f"</{name}>") for name in ("thinking", "thought", "reasoning"))
_UNMISTAKABLE = (
    (THINK, END_THINK),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThoughts, Bespoke-Stratos
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),
)
_SOLUTION = ("<|begin_of_solution|>", "<|end_of_solution|>")
_ANSWERS = (_SOLUTION, ("<answer>", "</answer>"))  # around what follows a thought; the latter is R1-Zero's
_SPELLED = tuple(mark.lower() for pair in (*_UNMISTAKABLE, _SOLUTION) for mark in pair)
_ELEMENT = re.compile("|".join(re.escape(start) for start, _ in _ELEMENTS), re.IGNORECASE)
_FINAL = re.compile(r"(.*)\n####[ \t]*([^\n]+?)\s*", re.DOTALL)  # GSM8K: the answer stands on a last line of its own
_ASKING = frozenset(("system", "developer", "user", "human", "prompter", "tool", "function", "observation",
                     "function_response"))  # roles whose texts are no replies


@dataclass(frozen=True)
class MarkedReply:
    """marks: what stands before and after the thought in the text."""

    marks: tuple[str, str]
    thought: str
    answer: str


def _anywhere(mark: str) -> re.Pattern:
    return re.compile(re.escape(mark), re.IGNORECASE)


_PATTERNS = tuple((pair, *map(_anywhere, pair), pair in _UNMISTAKABLE) for pair in (*_UNMISTAKABLE, *_ELEMENTS))
_ENCLOSED = tuple(re.compile(rf"\s*{re.escape(start)}(.*){re.escape(end)}\s*", re.IGNORECASE | re.DOTALL)
                  for start, end in _ANSWERS)


def marked_reply(text: str) -> MarkedReply | None:
    """The parts of a reply that begins with one thought between marks, or, where these are nothing else, goes on in a thought
    that its prompt opened (R1's); None for any other text."""
    lower = text.lower()  # most texts have most of the marks nowhere, which this tells at once
    for marks, start, end, unmistakable in _PATTERNS:
        if marks[1].lower() not in lower:
            continue
        ends, starts = list(end.finditer(text)), list(start.finditer(text))
        if len(ends) != 1 or len(starts) > 1 or not (starts or unmistakable):
            continue
        if starts and (text[:starts[0].start()].strip() or starts[0].end() > ends[0].start()):
            continue
        thought = text[starts[0].end() if starts else 0:ends[0].start()]
        return MarkedReply(marks, thought.strip(), _unenclosed(text[ends[0].end():]))
    return None


def _unenclosed(text: str) -> str:
    """An answer without the marks around the whole of it."""
    matches = [pattern.fullmatch(text) for pattern in _ENCLOSED]
    inside = next((match[1] for match, marks in zip(matches, _ANSWERS)
                   if match and not any(mark in match[1].lower() for mark in marks)), text)
    return inside.strip()


def split_thought(text: str) -> tuple[str, str]:
    """(thought, answer) of a completion: where it has no marks of a thought, ("", the text)."""
    if reply := marked_reply(text):
        return reply.thought, reply.answer
    return "", _unenclosed(text) if text.lstrip().startswith(_SOLUTION[0]) else text


def split_final(text: str) -> tuple[str, str]:
    """(thought, answer) of a worked solution as GSM8K's: `#### 42` at its end is the answer, what stands before the thought.
    Where the thought stands between marks, these tell."""
    match = None if marked_reply(text) else _FINAL.fullmatch(text)
    return (match[1].strip(), match[2]) if match else split_thought(text)


def unwrapped_thought(text: str) -> str | None:
    """A thought without the marks around the whole of it; None where there are none."""
    reply = marked_reply(text)
    begins = reply is not None and text.lstrip()[:len(reply.marks[0])].lower() == reply.marks[0].lower()
    return reply.thought if begins and not reply.answer else None


def spells_marks(thought: str, answer: str) -> bool:
    """Whether a thought or an answer holds marks, so that it was not told where one ends and the other begins: those that are
    nothing else anywhere, elements where a text begins with them, and an answer's behind a thought."""
    for text in (thought, answer):
        lower = text.lower()
        if any(mark in lower for mark in _SPELLED) or _ELEMENT.match(lower.lstrip()):
            return True
    return bool(thought.strip()) and answer.lstrip().lower().startswith(_ANSWERS[1][0])


@dataclass(frozen=True)
class MarksFound:
    """What the texts of one row say of marks. replies: the marks around the thoughts of its replies. talked_of: elements like
    them elsewhere in replies, which stay text. asked_for: marks other than R1's in texts that are no replies, where its replies
    have the same ones: a system text that asks for them."""

    replies: frozenset[tuple[str, str]]
    talked_of: frozenset[str]
    asked_for: frozenset[str]


def marks_found(replies: Mapping[str, object], others: Mapping[str, object]) -> MarksFound:
    """Of a row, by the keys whose values are replies (or conversations), and those whose values are not."""
    said = list(_texts(dict(replies), replies=True))
    asked = [*_texts(dict(replies), replies=False), *_texts(dict(others), replies=True)]
    marked = [(text, marked_reply(text)) for text in said]
    marks = frozenset(reply.marks for _, reply in marked if reply)
    talked_of = frozenset(found[0].lower() for text, reply in marked if not reply and (found := _ELEMENT.search(text)))
    asked_for = frozenset(start for start, _ in marks if start != THINK and any(start in text for text in asked))
    return MarksFound(marks, talked_of, asked_for)


def _texts(value: object, replies: bool, asking: bool = False) -> Iterator[str]:
    """The texts in a value that are replies, or that are none; conversations may be written as JSON."""
    if isinstance(value, str):
        if value.lstrip().startswith("[{"):
            try:
                yield from _texts(json.loads(value), replies, asking)
                return
            except ValueError:
                pass
        if replies is not asking:
            yield value
    elif isinstance(value, Mapping):
        role = value.get("role", value.get("from"))
        asking = asking or isinstance(role, str) and role.lower() in _ASKING
        for entry in value.values():
            yield from _texts(entry, replies, asking)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry, replies, asking)
