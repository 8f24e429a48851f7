"""Tokens to text as they come, and the stop texts in it."""

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.text.detokenization import IncrementalText, first_stop
from spoutnik.text.tokenizer import Tokenizer


class TextStream:
    """The text of one sample. Bytes that do not form a whole character yet wait for the next token.

    text: all so far, cut at the stop text. taken: how much of it `take` has given out.
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams):
        self.params = params
        self.text = ""
        self.taken = self._count = 0
        self._held = max((len(stop) - 1 for stop in params.stop), default=0)  # may be the beginning of a stop text
        self._decoded = IncrementalText(tokenizer, keep_special=not params.skip_special_tokens)

    def feed(self, token: int) -> str | None:
        """Returns the stop text that this token completes, if it does."""
        self._count += 1
        new = self._decoded.feed([token])
        searched = max(len(self.text) - self._held, 0)
        self.text += new
        return self._cut(searched) if new and self._count >= self.params.min_tokens else None

    def _cut(self, searched: int) -> str | None:
        found = first_stop(self.text, self.params.stop, searched)
        if found is None:
            return None
        at, stop = found
        self.text = self.text[:at + len(stop) * self.params.include_stop_str_in_output]
        return stop

    def close(self) -> None:
        """No token follows: what is still held back is text too, half a character as the mark for one."""
        self.text += self._decoded.close()
        self._held = 0

    def take(self) -> str:
        """What is new and cannot become part of a stop text."""
        upto = max(len(self.text) - self._held, self.taken)
        new, self.taken = self.text[self.taken:upto], upto
        return new
