"""Spans: where a quotation stands in a document, letter for letter but for how it is set.

What does not count when a quotation is looked for: how much white space there is, a word that the end of a line divides with a
hyphen, the form of quotation marks, dashes and ligatures (Unicode's compatibility forms), soft hyphens, Markdown's asterisks
and backticks. What is kept is the document's own text.
"""

import re
import unicodedata
from dataclasses import asdict, dataclass

from spoutnik.documents.passages import Passage

_SET_ALIKE = str.maketrans({**dict.fromkeys("‘’‚‛′´", "'"), **dict.fromkeys("“”„‟«»″", '"'), **dict.fromkeys("‐‑‒–—―−", "-"),
                            **dict.fromkeys("*`\u00ad\u200b\ufeff", "")})
_ELLIPSIS = re.compile(r"^(?:\.{3}|…|\[…\]|\[\.{3}\])\s*|\s*(?:\.{3}|…|\[…\]|\[\.{3}\])$")
_AROUND = " \t\r\n\"'*_"


@dataclass(frozen=True)
class Span:
    """file: the document's name. heading, page: where the document has them. start, end: characters, as `reading` counts them.
    quote: the document's text there."""

    file: str
    heading: str | None
    page: int | None
    start: int
    end: int
    quote: str

    def as_dict(self) -> dict:
        return {key: value for key, value in asdict(self).items() if value is not None}


def find_span(quote: str, passage: Passage) -> Span | None:
    """Where a quotation first stands in a passage; None where it does not."""
    text = passage.text
    for joined in (False, True):
        compared, places = _as_compared(text, joined)
        for wanted in _forms(_as_compared(quote, joined)[0]):
            if (at := compared.find(wanted)) >= 0:
                first, last = places[at], places[at + len(wanted) - 1] + 1
                section, start = passage.section, passage.section.start + passage.start
                return Span(passage.document.name, section.heading or None, section.page, start + first, start + last,
                            text[first:last])
    return None


def _forms(quote: str) -> list[str]:
    """A quotation as it is, and without what was put around it: quotation marks, an ellipsis."""
    bare = _ELLIPSIS.sub("", quote.strip(_AROUND)).strip(_AROUND)
    return [form for form in dict.fromkeys((quote.strip(), bare)) if form]


def _as_compared(text: str, joined: bool) -> tuple[str, list[int]]:
    """A text as it is compared, and the place in `text` of each of its characters. joined: without hyphens at ends of lines."""
    characters, places = [], []
    hyphens = {match.start(): match.end() for match in re.finditer(r"(?<=\w)[-‐\u00ad]\s*\n\s*(?=\w)", text)} if joined else {}
    place = 0
    while place < len(text):
        if place in hyphens:
            place = hyphens[place]
            continue
        for character in unicodedata.normalize("NFKC", text[place].translate(_SET_ALIKE)):
            if not character.isspace():
                characters.append(character)
                places.append(place)
            elif characters and characters[-1] != " ":
                characters.append(" ")
                places.append(place)
        place += 1
    return "".join(characters), places
