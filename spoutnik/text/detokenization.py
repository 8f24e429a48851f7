"""Incremental detokenization, and texts to stop at."""

from collections.abc import Iterable, Sequence

from spoutnik.text.tokenizer import Tokenizer

MAX_CHARACTER = 4  # tokens, since a character has at most four bytes
MAX_HELD = 64  # tokens that wait for the rest of a character; more are no text, and would be decoded again and again


class IncrementalDetokenizer:
    """The text of a growing sequence of ids, in pieces that add up to the text of the whole: bytes that are no complete
    character yet wait for the next ids. (`tokenizers`' DecodeStream has no way to end and fails on some byte-fallback ids.)

    before: ids whose text is there already, on which that of the next ones may depend (the space at the join).
    """

    def __init__(self, tokenizer: Tokenizer, keep_special: bool = False, before: Sequence[int] = ()):
        self.tokenizer, self.keep_special = tokenizer, keep_special
        # A token's text may depend on the one before (a leading space): new ids are decoded together with the last piece's.
        self._ids = tokenizer.context(before, keep_special) if before else []
        self._num_read = len(self._ids)  # of these, the last piece's

    def feed(self, ids: Iterable[int]) -> str:
        """Returns the text that is new, as much as if the ids came one by one."""
        num_before = len(self._ids)
        self._ids += ids
        for end in range(len(self._ids), num_before, -1):
            if 0 < end - self._num_read <= MAX_HELD and self.tokenizer.byte_ids and self._ends_with_byte(end):
                continue  # a byte that follows may make the whole run of them no text
            text = self.tokenizer.decode(self._ids[:end], self.keep_special)
            if not text.endswith("\ufffd"):
                return self._advance(text, end)
        if len(self._ids) - self._num_read > MAX_HELD:  # bytes that are no text, or many tokens at once
            return self._advance(*self._before_last_character())
        return ""

    def _ends_with_byte(self, end: int) -> bool:
        """Whether the first ids do. Tokens that are not shown do not interrupt a run of bytes."""
        shown = (i for i in reversed(self._ids[:end]) if not self.tokenizer.is_hidden(i, self.keep_special))
        return next(shown, None) in self.tokenizer.byte_ids

    @property
    def held(self) -> str:
        """What waits: the text that `close` would return."""
        if self._num_read == len(self._ids):
            return ""
        return self.tokenizer.decode(self._ids, self.keep_special)[len(self._text_read):]

    def _before_last_character(self) -> tuple[str, int]:
        """The text before the incomplete character at the end, and of how many ids it is."""
        for end in range(len(self._ids) - 1, len(self._ids) - MAX_CHARACTER, -1):
            text = self.tokenizer.decode(self._ids[:end], self.keep_special)
            if not text.endswith("\ufffd"):
                break
        return text, end

    def close(self) -> str:
        """No id follows: an incomplete character becomes U+FFFD."""
        return self._advance(self.tokenizer.decode(self._ids, self.keep_special), len(self._ids))

    @property
    def _text_read(self) -> str:
        return self.tokenizer.decode(self._ids[:self._num_read], self.keep_special) if self._num_read else ""

    def _advance(self, text: str, end: int) -> str:
        """text: of the ids up to `end`, which are read then."""
        new = text[len(self._text_read):]
        if new or end > MAX_HELD:  # ids that show nothing (special tokens) do not take the place of the last word
            del self._ids[:self._num_read]
            end -= self._num_read
        self._num_read = end
        return new


class StopTextBuffer:
    """Passes text on until a stop text, of several the one that is complete first, and holds back what may become one.

    include_stop: the stop text itself is passed on, too. stopped: the one that was met; nothing comes after it.
    """

    in_call = False  # it knows no calls of tools

    def __init__(self, stops: Sequence[str], include_stop: bool = False):
        self.stops, self.include_stop = stops, include_stop
        self.stopped: str | None = None
        self._held = ""
        self._beginnings = {stop[:length] for stop in stops for length in range(1, len(stop))}
        self._first_characters = {beginning[0] for beginning in self._beginnings}
        self._max_held = max(map(len, self._beginnings), default=0)

    def feed(self, text: str, search: bool = True) -> str:
        """Returns the text that is passed on. search: whether a stop text may end here."""
        if self.stopped is not None or not self.stops:
            return text if self.stopped is None else ""
        text, self._held = self._held + text, ""
        if search and any([stop in text for stop in self.stops]):
            end, start, self.stopped = min((at + len(stop), at, stop) for stop in self.stops if (at := text.find(stop)) >= 0)
            return text[:end if self.include_stop else start]
        size = len(text)
        first = max(size - self._max_held, 0)
        if not self._first_characters.isdisjoint(text[first:]):  # rarely: most tokens pass after this test
            first = next((at for at in range(first, size) if text[at:] in self._beginnings), size)
            self._held = text[first:]
            return text[:first]
        return text

    def would_stop(self, text: str) -> bool:
        """Whether text completes a stop text."""
        return any(stop in self._held + text for stop in self.stops)

    def close(self, cut: bool = False) -> str:
        """No text follows: returns what was held back, cut or not."""
        held, self._held = self._held, ""
        return held
