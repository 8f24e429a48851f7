"""The text of a sample as its tokens come, and the stop texts in it."""

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.text.detokenization import IncrementalDetokenizer, StopTextBuffer
from spoutnik.text.tokenizer import Tokenizer


class OutputText:
    """text: all so far that cannot become part of a stop text, cut at the stop text that ended it."""

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams):
        self.text = ""
        self._num_taken = self._num_tokens = 0
        self._min_tokens = params.min_tokens
        self._detokenizer = IncrementalDetokenizer(tokenizer, keep_special=not params.skip_special_tokens)
        self._stops = StopTextBuffer(params.stop, params.include_stop_str_in_output)

    def feed(self, token: int) -> str | None:
        """Returns the stop text that this token completes, if it does (never before min_tokens)."""
        self._num_tokens += 1
        self.text += self._stops.feed(self._detokenizer.feed([token]), search=self._num_tokens >= self._min_tokens)
        return self._stops.stopped

    def close(self) -> None:
        """No token follows: what was held back is text, and half a character the mark for one."""
        self.text += self._stops.close() + self._detokenizer.close()

    def take(self) -> str:
        """The text since the last call, for a stream."""
        new = self.text[self._num_taken:]
        self._num_taken = len(self.text)
        return new
