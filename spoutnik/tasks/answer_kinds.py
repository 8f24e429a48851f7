"""Answers that are compared as text or as a number: exactly, with a regular expression, within a tolerance.

What is compared is the answer's last box, without one what follows its last "Answer:" or "the answer is", without either the
whole answer. No verdict raises or takes long for any answer: what cannot be read is wrong.
"""

import math
import re
import unicodedata
from decimal import Decimal, InvalidOperation

import regex

from spoutnik.errors import UserError

PATTERN_SECONDS = 1.0  # for one answer, looked at once a second or so: a pattern that backtracks further does not match
LONGEST = 100_000  # characters from the end in which a final answer is looked for
LONGEST_NUMBER = 400  # characters

_CUE = re.compile(r"(?i:\b(?:answer|réponse|reponse|response)\b[*_\"'`]*\s*(?:[:：=]|\s(?:is|est)\b)[*_\s:]*)")
_BOX = re.compile(r"\\boxed\s*\{")
_EXPONENT = re.compile(r"\s*(?:\\times|\\cdot|×|·|\*)\s*10\s*(?:\^|\*\*)\s*\{?\s*([+-]?\d+)\s*\}?")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?")
_QUOTIENT = re.compile(r"([^/]+)/([^/]+)|\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}")
_GROUPED = {",": re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?!\d)"), " ": re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?!\d)")}
_COMMA_IS_DECIMAL = frozenset("fr de es it pt nl ru pl cs da fi sv nb no tr uk el hu ro bg hr sk sl".split())


def final_answer(answer: str) -> str:
    """What an answer, without its thought, gives as its result: see the module."""
    answer = answer[-LONGEST:]
    boxes = [match.end() for match in _BOX.finditer(answer)]
    if boxes and (content := _braces(answer, boxes[-1])) is not None:
        return content.strip()
    *_, cue = [None, *_CUE.finditer(answer)]
    if cue is None:
        return answer.strip()
    return answer[cue.end():].strip().split("\n")[0].strip(" *_`")


def exact(gold: str, answer: str, ignore_case: bool = False, ignore_spacing: bool = True,
          ignore_punctuation: bool = False) -> bool:
    """Whether the answer is the gold text, in Unicode's composed form.

    Args:
        ignore_spacing: any run of white space is one space. Space around is never compared.
        ignore_punctuation: no punctuation is compared; otherwise "Paris." is not "Paris".
    """
    def form(text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        if ignore_punctuation:
            text = "".join(" " if unicodedata.category(character)[0] == "P" else character for character in text)
        text = " ".join(text.split()) if ignore_spacing or ignore_punctuation else text.strip()
        return text.casefold() if ignore_case else text

    return form(gold) in (form(final_answer(answer)), form(answer))


def compiled(pattern: str) -> regex.Pattern:
    """A pattern of the package regex, which knows Python's. Raises UserError for one that is none."""
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise UserError(f"The pattern {pattern!r}: {error}. Correct it.") from error


def matches(pattern: str, answer: str, seconds: float = PATTERN_SECONDS) -> bool:
    """Whether the whole answer matches a pattern. False where that cannot be decided in time."""
    try:
        return any(compiled(pattern).fullmatch(text, timeout=seconds) is not None
                   for text in dict.fromkeys((final_answer(answer), answer.strip())))
    except TimeoutError:
        return False


def close(gold: str, answer: str, absolute: float = 0.0, relative: float = 0.0, unit: str = "", language: str = "en") -> bool:
    """Whether the answer is a number within a tolerance of the gold one: absolute, or relative to the gold.

    Args:
        unit: may follow either number. A percent sign is no unit but a hundredth.
        language: says what a comma means (ISO 639-1).
    """
    wanted, given = number(gold, language, unit), number(final_answer(answer), language, unit)
    if wanted is None or given is None:
        return False
    if wanted == given:
        return True
    allowed = max(absolute, relative * abs(float(wanted)))
    # A part in 10^12 for limits that are no binary fractions: 0.3 is within 0.1 of 0.2.
    return allowed > 0 and abs(float(given) - float(wanted)) <= allowed * (1 + 1e-12)


def number(text: str, language: str = "en", unit: str = "") -> Decimal | None:
    """The number that a text is, from its digits without rounding; None where it is none, or more than that."""
    text = text.strip()
    if len(text) > LONGEST_NUMBER:
        return None
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("{,}", ",").replace("$", "")
    text = re.sub(r"\\[,;:! ]|[\u00a0\u202f\u2009]", " ", text).replace("\\%", "%").strip(" .*_")
    if unit:
        text = re.sub(rf"\s*(?:\\(?:text|mathrm)\s*\{{\s*)?{re.escape(unit)}\s*\}}?$", "", text).strip()
    percent = text.endswith("%")
    text = _EXPONENT.sub(r"e\1", text.removesuffix("%").strip())
    value = _quotient(text, language) if "/" in text or "frac" in text else _decimal(text, language)
    return value / 100 if value is not None and percent else value


def _decimal(text: str, language: str) -> Decimal | None:
    comma_is_decimal = language in _COMMA_IS_DECIMAL
    text = _ungrouped(text, " " if comma_is_decimal else ",")
    text = _ungrouped(text, " ")
    if comma_is_decimal:
        text = text.replace(",", ".", 1)
    if not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text)
    return value if math.isfinite(float(value)) else None


def _ungrouped(text: str, separator: str) -> str:
    match = _GROUPED[separator].match(text)
    return text if match is None else match[0].replace(separator, "") + text[match.end():]


def _quotient(text: str, language: str) -> Decimal | None:
    match = _QUOTIENT.fullmatch(text.removeprefix("-").strip())
    if match is None:
        return None
    parts = [_decimal(part.strip(), language) for part in match.groups() if part is not None]
    try:
        return None if None in parts else parts[0] / parts[1] * (-1 if text.startswith("-") else 1)
    except (InvalidOperation, ZeroDivisionError):
        return None


def _braces(text: str, start: int) -> str | None:
    """What stands up to the brace that closes one opened before `start`; None where none does."""
    depth = 1
    for match in re.finditer(r"\\[{}\\]|[{}]", text[start:]):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[start:start + match.start()]
    return None
