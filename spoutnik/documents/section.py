"""A section: what stands below one heading of a document, or on one page of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """start: of the text, in what offsets of its document count. heading: with those above it, "Pumps > Model A". page: of a
    PDF, from 1."""

    text: str
    start: int
    heading: str = ""
    page: int | None = None


class Headings:
    """The headings that hold at a place of a document."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, text: str) -> str:
        """The path of a heading that begins here, level 1 the highest."""
        self._open = [each for each in self._open if each[0] < level]
        self._open.append((level, " ".join(text.split())))
        return " > ".join(heading for _, heading in self._open if heading)
