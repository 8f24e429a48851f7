"""`equal`: is an answer the gold one? Exact rules first; math-verify, in processes of its own, for what they cannot read."""

import re

from spoutnik.tasks.maths.comparison import same
from spoutnik.tasks.maths.expression import KNOWN_COMMANDS
from spoutnik.tasks.maths.extraction import last_box
from spoutnik.tasks.maths.formats import NumberFormat, formats
from spoutnik.tasks.maths.layout import bracket_depth, plain
from spoutnik.tasks.maths.nodes import TooLarge
from spoutnik.tasks.maths.percent import asks_percent, without_percent
from spoutnik.tasks.maths.pool import pool
from spoutnik.tasks.maths.reading import read_cached
from spoutnik.tasks.maths.shapes import Answer, Words

MAX_LENGTH = 12_000  # characters of an answer that are read; longer ones are compared as they are
MAX_BRACKETS = 100  # inside one another
_MAX_FOREIGN = 400  # characters of a text for math-verify
_LETTER = re.compile(r"\(?[A-J]\)?")
_OPTION = re.compile(r"\(([A-J])\)(?:[.:]\s*|\s+)[\w$\\]|([A-J])[.:)]\s+\S")
_LEADING_TEXT = re.compile(r"^\\(?:text(?:bf)?|mbox)\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_LARGE_RANGE = re.compile(r"\\(?:sum|prod)(?![A-Za-z]).*(?:\d{5}|\^\s*\{?\s*\d*\s*\^|!)|\d\s*!|\^\s*\{?\s*\d{5}"
                          r"|\^\s*(?:\{[^{}]*|\w\s*)\^", re.DOTALL)
_RANGE = r"\\(?:sum|prod|int|lim|iint)(?:_\s*(?:\{[^{}]*\}|\S))?(?:\s*\^\s*(?:\{[^{}]*\}|\\?\w+))?"
_NOT_SHAPE = re.compile(_RANGE + r"|[^\[\]{}(),;=<>_%!]|[{}]|\\(?=[A-Za-z])")


def equal(gold: str, answer: str, language: str = "en", ordered: bool = False) -> bool:
    """Is an answer the gold one, as mathematics?

    Args:
        gold: the right answer: LaTeX, a number, words. A box or dollars around it say nothing.
        answer: what is compared with it, as `extract` returns it.
        language: of both, by its code: it decides what a comma means (3,5 is 3.5 in "fr", two numbers in "en").
        ordered: the order of a bare list (1, 2) counts. That of a tuple always does, that of a set never.

    Returns:
        True or False for any two strings, in about a second at most; False for what is no string, and for nothing (""). 12 % is
        0.12, and not 12.
    """
    if not isinstance(gold, str) or not isinstance(answer, str):
        return False
    gold, answer = _content(gold), _content(answer)
    if max(len(gold), len(answer)) > MAX_LENGTH or max(bracket_depth(gold), bracket_depth(answer)) > MAX_BRACKETS:
        return gold == answer
    one, other = plain(gold), plain(answer)
    if not one or not other:
        return False
    if one == other:
        return True
    for letter, text in ((one, other), (other, one)):  # B and (B) 12
        if _LETTER.fullmatch(letter) and (option := _OPTION.match(_LEADING_TEXT.sub(r"\1", text))):
            return letter.strip("()") == (option[1] or option[2])
    return any(_equal(one, other, number_format, bool(ordered)) for number_format in formats(language))


def answers(question: str, gold: str, answer: str, language: str = "en", ordered: bool = False) -> bool:
    """`equal`, as an answer to this question: where it asks for a percentage, 20 and 20 % are the same."""
    if equal(gold, answer, language, ordered):
        return True
    return asks_percent(question) and equal(without_percent(gold), without_percent(answer), language, ordered)


def _content(text: str) -> str:
    box = last_box(text) if "\\boxed" in text or "\\fbox" in text else None
    return text.strip() if box is None else box


def _equal(gold: str, answer: str, number_format: NumberFormat, ordered: bool) -> bool:
    try:
        one, other = (read_cached(text, number_format) for text in (gold, answer))
        verdict = same(one, other, ordered) if one is not None and other is not None else None
    except (TooLarge, RecursionError):  # nobody should compute it: only the same text is the same
        return _compact(gold) == _compact(answer)
    if verdict is None:
        return _compact(gold) == _compact(answer) or _foreign(one, other, gold, answer)
    return verdict


def _compact(text: str) -> str:
    """The text without spaces beside signs; those between letters or digits part them."""
    return re.sub(r"(?<!\w) | (?!\w)", "", text)


def _foreign(one: Answer | None, other: Answer | None, gold: str, answer: str) -> bool:
    """math-verify's verdict on LaTeX that the exact rules cannot read, where its known mistakes are out of reach: brackets,
    commas, relations, subscripts, percents and factorials agree sign by sign, and no range is huge."""
    if max(len(gold), len(answer)) > _MAX_FOREIGN:
        return False
    sides = ((one, gold), (other, answer))
    if one is not None and other is not None:  # read, but of unknown values: it would guess
        return False
    if any(side is not None and isinstance(side.shape, Words) for side, _ in sides):
        return False
    if any(side is None and KNOWN_COMMANDS.issuperset(_COMMAND.findall(text)) for side, text in sides):
        return False  # broken, or prose: no other reader knows more
    if _NOT_SHAPE.sub("", gold) != _NOT_SHAPE.sub("", answer) or _LARGE_RANGE.search(gold) or _LARGE_RANGE.search(answer):
        return False
    return pool.equivalent(gold, answer) is True
