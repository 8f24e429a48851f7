"""Token ids to text as they come, and texts to stop at."""

from collections.abc import Iterable, Sequence

from spoutnik.text.tokenizer import Tokenizer


class IncrementalText:
    """The text of a growing sequence of ids. Bytes that do not form a whole character yet wait for the next ids, so what is
    given out adds up to the text of the whole, however it is cut into pieces."""

    def __init__(self, tokenizer: Tokenizer, keep_special: bool = False):
        self.tokenizer, self.keep_special = tokenizer, keep_special
        self._ids: list[int] = []
        # A token's text may depend on the one before (a leading space): new ids are read together with those before `_read`.
        self._read = 0

    def feed(self, ids: Iterable[int]) -> str:
        """What is new."""
        self._ids += ids
        text = self.tokenizer.decode(self._ids, self.keep_special)
        if text.endswith("\ufffd"):
            return ""
        return self._take(text)

    def close(self) -> str:
        """No id follows: half a character becomes the mark for one."""
        return self._take(self.tokenizer.decode(self._ids, self.keep_special))

    def _take(self, text: str) -> str:
        before = self.tokenizer.decode(self._ids[:self._read], self.keep_special) if self._read else ""
        new = text[len(before):]
        del self._ids[:self._read]
        self._read = len(self._ids)
        return new


def first_stop(text: str, stops: Sequence[str], start: int = 0) -> tuple[int, str] | None:
    """Of several texts the one that is complete first, from `start` on: where it begins, and which it is."""
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop, start)) >= 0]
    return min(found)[1:] if found else None


class StopTexts:
    """Holds back what may be the beginning of a stop text. stopped: the one that was found; nothing comes out after it."""

    def __init__(self, stops: Sequence[str]):
        self.stops = stops
        self.stopped: str | None = None
        self._held = ""
        self._longest = max(map(len, stops), default=0)

    def feed(self, text: str) -> str:
        if self.stopped is not None or not self._longest:
            return text if self.stopped is None else ""
        text = self._held + text
        found = first_stop(text, self.stops)
        if found is not None:
            at, self.stopped = found
            self._held = ""
            return text[:at]
        keep = next((n for n in range(min(self._longest - 1, len(text)), 0, -1)
                     if any(stop.startswith(text[-n:]) for stop in self.stops)), 0)
        self._held = text[len(text) - keep:]
        return text[:len(text) - keep]

    def close(self) -> str:
        held, self._held = self._held, ""
        return held
