"""Passages: parts of documents that questions are asked about, and that are trained on or held out as a whole."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from spoutnik.documents.reading import Document
from spoutnik.documents.section import Section
from spoutnik.tasks.hygiene import duplicates, words_of

LONGEST = 1600  # characters, some 400 tokens
FEWEST_WORDS = 8  # less states no fact
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE = re.compile(r"(?<=[.!?])[\"'»”)]*\s+|(?<=[。！？])|\n")


@dataclass(frozen=True)
class Passage:
    """A part of a section. start, end: in the section's text."""

    document: Document
    section: Section
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.section.text[self.start:self.end]

    @cached_property
    def key(self) -> str:
        """Of its words: the same wherever it stands."""
        return hashlib.sha256(" ".join(words_of(self.text)).encode("utf-8", "backslashreplace")).hexdigest()

    @property
    def place(self) -> str:
        """For people and for the teacher."""
        where = f"page {self.section.page}" if self.section.page else self.section.heading
        return f"{self.document.name}{', ' if where else ''}{where}"


@dataclass(frozen=True)
class Passages:
    """kept: in the order of the documents. too_short: less than FEWEST_WORDS words. duplicate: repeats an earlier one, exactly
    or nearly. empty: names of documents without any text."""

    kept: list[Passage]
    too_short: int
    duplicate: int
    empty: list[str]


def cut(documents: Sequence[Document]) -> Passages:
    """The passages of documents. One that repeats an earlier one is left out: its facts would be asked twice, and could be both
    learned and held out."""
    passages = [Passage(document, section, start, end) for document in documents for section in document.sections
                for start, end in _spans(section.text)]
    long = [passage for passage in passages if len(words_of(passage.text)) >= FEWEST_WORDS]
    repeated = duplicates([passage.text for passage in long])
    kept = [passage for number, passage in enumerate(long) if number not in repeated.exact and number not in repeated.near]
    empty = [document.name for document in documents if not document.sections]
    return Passages(kept, len(passages) - len(long), len(long) - len(kept), empty)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Whole paragraphs that fit together into LONGEST; longer ones in whole sentences, or lines."""
    begin, end = None, 0
    for start, stop in _units(text):
        if begin is not None and stop - begin > LONGEST:
            yield begin, end
            begin = None
        begin, end = start if begin is None else begin, stop
    if begin is not None:
        yield begin, end


def _units(text: str) -> Iterator[tuple[int, int]]:
    for start, stop in _parts(text, 0, len(text), _PARAGRAPH):
        if stop - start <= LONGEST:
            yield start, stop
            continue
        for first, last in _parts(text, start, stop, _SENTENCE):
            yield from ((place, min(place + LONGEST, last)) for place in range(first, last, LONGEST))


def _parts(text: str, start: int, stop: int, separator: re.Pattern) -> Iterator[tuple[int, int]]:
    """The parts between separators, without space around them."""
    borders = [start, *(place for match in separator.finditer(text, start, stop) for place in match.span()), stop]
    for first, last in zip(borders[::2], borders[1::2]):
        part = text[first:last]
        if part.strip():
            yield first + len(part) - len(part.lstrip()), first + len(part.rstrip())
