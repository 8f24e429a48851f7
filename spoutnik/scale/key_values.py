"""Options such as "gpus=2048,kind=h800": values by key, each checked, none ignored."""

import math
from collections.abc import Collection

from spoutnik.errors import UserError
from spoutnik.validation import did_you_mean

_FACTORS = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


class KeyValues:
    """The pairs of an option. Each is asked for by its key, with a default (None: it must be given); `refuse_others` then finds
    what nobody asked for. Every method raises UserError with option, key, value and remedy."""

    def __init__(self, option: str, text: str):
        self._option, self._pairs, self._asked = option, {}, []
        for pair in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not key or not value:
                raise UserError(f"{option}: {pair!r} is no key=value. Write it as in gpus=8,kind=h100.")
            if key in self._pairs:
                raise UserError(f"{option}: {key} is given twice. Give it once.")
            self._pairs[key] = value

    def has(self, key: str) -> bool:
        return key in self._pairs

    def absent(self, key: str) -> None:
        """Counts as asked for, though it is not there."""
        self._asked.append(key)

    def text(self, key: str, default: str | None) -> str | None:
        self._asked.append(key)
        return self._pairs.get(key, default)

    def choice(self, key: str, choices: Collection[str], default: str | None) -> str:
        value = self._given(key, default)
        if value not in choices:
            raise UserError(f"{self._option}: {key} = {value!r}: is unknown.{did_you_mean(value, choices)} There are "
                            f"{', '.join(choices)}.")
        return value

    def number(self, key: str, default: float | None, zero: bool = False) -> float:
        """A positive number, as 14.8T or 0.5; zero too where `zero` says so."""
        value = self._given(key, default)
        if not isinstance(value, str):
            return value
        factor = _FACTORS.get(value[-1].upper(), 1.0)
        try:
            number = float(value if factor == 1.0 else value[:-1]) * factor
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
            least = "of at least 0" if zero else "above 0"
            raise UserError(f"{self._option}: {key} = {value!r}: must be a number {least}, as 8, 0.5 or 14.8T. Correct it.")
        return number

    def whole(self, key: str, default: int | None, zero: bool = False) -> int:
        number = self.number(key, default, zero)
        if number != int(number):
            raise UserError(f"{self._option}: {key} = {self._pairs[key]!r}: must be a whole number. Correct it.")
        return int(number)

    def refuse_others(self) -> None:
        for key in self._pairs:
            if key not in self._asked:
                raise UserError(f"{self._option}: {key}: is no key of it.{did_you_mean(key, self._asked)} It has "
                                f"{', '.join(dict.fromkeys(self._asked))}.")

    def _given(self, key: str, default: object) -> object:
        self._asked.append(key)
        value = self._pairs.get(key, default)
        if value is None:
            raise UserError(f"{self._option}: {key} is missing. Give it, as in {self._option} gpus=8,kind=h100.")
        return value
