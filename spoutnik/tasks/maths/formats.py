"""Number formats: decimals and thousands of the language in which an answer is written, as plain digits and a point.

Where a language leaves it open (German 1.234), several formats are tried, each on both sides of a comparison.
"""

import re
from dataclasses import dataclass
from functools import partial

from spoutnik.tasks.maths.layout import BRACE_COMMA

_COMMA_LANGUAGES = frozenset("fr pl ru uk cs sk bg fi sv nb nn no hu".split())  # thousands: a space
_COMMA_POINT_LANGUAGES = frozenset("de es it pt nl da id tr el ro hr sl sr vi ca".split())  # thousands: a point
_SPACED = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?: \d{3})+)(?![\d])")
_BRACED_THOUSANDS = re.compile(rf"(?<![\d.])([1-9]\d{{0,2}})((?:{BRACE_COMMA}\d{{3}})+)(?!\d)")
_COMMA_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+)(?![\d]|,\d)")
_COMMA_MILLIONS = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3}){2,})(?![\d]|,\d)")
_POINT_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:\.\d{3})+)(?!\d|\.\d)")
_COMMA_BEFORE_POINT = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+)(?=\.\d)")
_POINT_BEFORE_COMMA = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:\.\d{3})+)(?=,\d)")
_DECIMAL_COMMA = re.compile(r"(?<![\d,.])(\d+),(\d+)(?![,.]?\d)|(?<![\w,)}\].])(),(\d+)(?![,.]?\d)")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?|\.\d+)[eE]([-+]?\d+)(?![\w.])")


@dataclass(frozen=True)
class NumberFormat:
    """decimal_comma: 3,5 is 3.5. point_thousands: 1.234 is 1234. braced_thousands: {,} before three digits parts thousands."""

    decimal_comma: bool = False
    point_thousands: bool = False
    braced_thousands: bool = True

    def braces(self, text: str) -> str:
        """The text with {,} read: LaTeX's way to write a comma inside a number."""
        if BRACE_COMMA in text:
            if self.braced_thousands:
                text = _BRACED_THOUSANDS.sub(partial(_joined, BRACE_COMMA), text)
            text = re.sub(rf"(?<=\d){BRACE_COMMA}(?=\d)", ".", text).replace(BRACE_COMMA, ",")
        text = _SPACED.sub(partial(_joined, " "), text)
        return _SCIENTIFIC.sub(r"(\1\\cdot 10^{\2})", text) if "e" in text or "E" in text else text

    def commas(self, text: str) -> str:
        """Commas and points of the text outside of brackets, where a comma may belong to a number."""
        if self.point_thousands:
            text = _POINT_THOUSANDS.sub(partial(_joined, "."), text)
        if "," in text:
            text = (_COMMA_MILLIONS if self.decimal_comma else _COMMA_THOUSANDS).sub(partial(_joined, ","), text)
            if self.decimal_comma:
                text = _POINT_BEFORE_COMMA.sub(partial(_joined, "."), _COMMA_BEFORE_POINT.sub(partial(_joined, ","), text))
                text = _DECIMAL_COMMA.sub(lambda match: f"{match[1] or ''}.{match[2] or match[4]}", text)
        return text


def _joined(mark: str, match: re.Match[str]) -> str:
    return match[1] + match[2].replace(mark, "")


_ENGLISH = (NumberFormat(),)
_COMMA = (NumberFormat(decimal_comma=True, braced_thousands=False), NumberFormat(decimal_comma=True))
_COMMA_POINT = (NumberFormat(decimal_comma=True, point_thousands=True, braced_thousands=False), *_COMMA)


def formats(language: str) -> tuple[NumberFormat, ...]:
    """The formats of a language, by its code ("fr", "de-AT"), the strictest first; an unknown one writes as English does."""
    code = re.split("[-_]", language.lower(), maxsplit=1)[0] if isinstance(language, str) else "en"
    return _COMMA if code in _COMMA_LANGUAGES else _COMMA_POINT if code in _COMMA_POINT_LANGUAGES else _ENGLISH
