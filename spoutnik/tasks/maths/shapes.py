"""The shapes of answers: what `reading` reads and `comparison` compares."""

from dataclasses import dataclass

from spoutnik.tasks.maths.nodes import Node


@dataclass(frozen=True)
class Value:
    node: Node


@dataclass(frozen=True)
class Words:
    """text: as it is compared. raw: as it is written."""

    text: str
    raw: str


@dataclass(frozen=True)
class Based:
    """Digits with their sign in a base: 204_5."""

    digits: str
    base: int


@dataclass(frozen=True)
class Items:
    """kind: "list" (bare), "set" or "tuple", which two-element intervals are too. left, right: its brackets. variable: the one
    of an inequality that the interval was read from, "" for none."""

    kind: str
    items: "tuple[Answer, ...]"
    left: str = ""
    right: str = ""
    variable: str = ""


@dataclass(frozen=True)
class Union:
    """Intervals and finite sets together."""

    parts: "tuple[Answer, ...]"
    variable: str = ""


@dataclass(frozen=True)
class Relation:
    """parts joined by signs: a = b < c."""

    parts: "tuple[Answer, ...]"
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Matrix:
    rows: "tuple[tuple[Answer, ...], ...]"


@dataclass(frozen=True)
class Ratio:
    """3:1, 1:2:3, and times of day."""

    items: "tuple[Answer, ...]"


Shape = Value | Words | Based | Items | Union | Relation | Matrix | Ratio


@dataclass(frozen=True)
class Answer:
    shape: Shape
    units: frozenset[str] = frozenset()
