"""The text of a sample as its tokens come, and the stop texts in it."""

from collections.abc import Sequence

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.text.detokenization import IncrementalDetokenizer, StopTextBuffer
from spoutnik.text.tokenizer import Tokenizer


class OutputText:
    """before: the prompt's ids. text: all so far that cannot become part of a stop text, cut at the stop text that ended it."""

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, before: Sequence[int] = ()):
        self.text = ""
        self._num_taken = self._num_tokens = 0
        self._min_tokens = params.min_tokens
        self._detokenizer = IncrementalDetokenizer(tokenizer, not params.skip_special_tokens, before)
        self._stops = StopTextBuffer(params.stop, params.include_stop_str_in_output)

    def feed(self, token: int) -> str | None:
        """Returns the stop text that this token completes, if it does (never before min_tokens)."""
        self._num_tokens += 1
        search = self._num_tokens >= self._min_tokens
        text = self._detokenizer.feed([token])
        if search and self._stops.stops and self._stops.would_stop(text + self._detokenizer.held):
            text += self._detokenizer.close()  # nothing follows that could change what it holds back
        self.text += self._stops.feed(text, search)
        return self._stops.stopped

    def close(self) -> None:
        """No token follows: what was held back is text, and half a character the mark for one."""
        self.text += self._stops.feed(self._detokenizer.close(), search=False) + self._stops.close()

    def take(self) -> str:
        """The text since the last call, for a stream."""
        new = self.text[self._num_taken:]
        self._num_taken = len(self.text)
        return new
