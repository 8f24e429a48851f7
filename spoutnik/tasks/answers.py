"""Reading an answer written by a model: forgiving about its wrapping, strict about its content."""

import re

_WRAPPING = " \t\r\n*`\"'$«»"
_INTEGER = re.compile(r"(?:[^=]{0,80}=\s*)?([+-]?[0-9]{1,12})")  # "5", "-5", "x = 5", "7 + 5 = 12"


def clean(answer: str) -> str:
    """The answer without surrounding spaces, quotes, markdown bold or final period."""
    return answer.strip(_WRAPPING).removesuffix(".").strip(_WRAPPING)


def as_integer(answer: str) -> int | None:
    """The integer that the answer states, or None when it states anything else."""
    match = _INTEGER.fullmatch(clean(answer).replace("\u2212", "-"))
    return int(match.group(1)) if match else None


def as_word(answer: str) -> str | None:
    """The single word that the answer consists of, in lower case, or None."""
    word = clean(answer).lower()
    return word if word.isalpha() else None
