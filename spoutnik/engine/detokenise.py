"""Tokens to text as they come, and the stop texts in it."""

from spoutnik.engine.params import SamplingParams
from spoutnik.text.tokenizer import Tokenizer


class TextStream:
    """The text of one sample. Bytes that do not form a whole character yet wait for the next token.

    text: all so far, cut at the stop text. taken: how much of it `take` has given out.
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams):
        self.tokenizer, self.params = tokenizer, params
        self.text = ""
        self.taken = 0
        self._held = max((len(stop) - 1 for stop in params.stop), default=0)  # may be the beginning of a stop text
        self._ids: list[int] = []
        # A token's text may depend on the one before (a leading space): each is read together with those since `_before`.
        self._before = self._read = 0

    def _decode(self, start: int, end: int | None = None) -> str:
        return self.tokenizer.decode(self._ids[start:end], keep_special=not self.params.skip_special_tokens)

    def feed(self, token: int) -> str | None:
        """Returns the stop text that this token completes, if it does."""
        self._ids.append(token)
        text = self._decode(self._before)
        if text.endswith("\ufffd"):
            return None
        new = text[len(self._decode(self._before, self._read)):]
        self._before, self._read = self._read, len(self._ids)
        searched = max(len(self.text) - self._held, 0)
        self.text += new
        return self._cut(searched) if new and len(self._ids) >= self.params.min_tokens else None

    def _cut(self, searched: int) -> str | None:
        found = [(at, stop) for stop in self.params.stop if (at := self.text.find(stop, searched)) >= 0]
        if not found:
            return None
        at, stop = min(found)
        self.text = self.text[:at + len(stop) * self.params.include_stop_str_in_output]
        return stop

    def close(self) -> None:
        """No token follows: what is still held back is text too, half a character as the mark for one."""
        text = self._decode(self._before)
        self.text += text[len(self._decode(self._before, self._read)):]
        self._before = self._read = len(self._ids)
        self._held = 0

    def take(self) -> str:
        """What is new and cannot become part of a stop text."""
        upto = max(len(self.text) - self._held, self.taken)
        new, self.taken = self.text[self.taken:upto], upto
        return new
