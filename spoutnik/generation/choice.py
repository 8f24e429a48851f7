"""One of the n replies to a request, while it is generated."""

from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.request import Sample
from spoutnik.generation.delta import Delta, GenerationWarning, WarningCode
from spoutnik.text.thought import ThoughtStream


class Choice:
    """ids: all that follows the prompt, those that we inserted too; thought_ids: of these, the thought's. generated: how many
    the model generated, thought_tokens: of these, the thought's without its marks. has_answer: something of the answer can be
    seen. sample: generates more (None: paused, or finished). segments: engine requests begun for it."""

    def __init__(self, index: int, stream: ThoughtStream):
        self.index, self.stream = index, stream
        self.ids: list[int] = []
        self.thought_ids: list[int] = []
        self.generated = self.thought_tokens = self.segments = self.checked_for_repetition = 0
        self.has_answer = False
        self.sample: Sample | None = None
        self.structure: LogitsProcessor | None = None  # what holds the answer to its form
        self.finish_reason: str | None = None
        self.delta = Delta(index)
        self._logprobs: list[tuple[int, float, dict[int, float]]] = []  # of tokens that may turn out to be a mark's

    def append(self, ids: list[int], generated: bool = False) -> None:
        if self.stream.thinking:
            self.thought_ids += ids
        self.ids += ids
        before = self.stream.thought_tokens
        self._add_text(self.stream.feed(ids))
        more = self.stream.thought_tokens - before
        self.thought_tokens += more if generated else min(more, 0)  # less: what we inserted made a mark of the model's tokens

    def add_logprobs(self, ids: list[int], logprobs: list[float], top_logprobs: list[dict[int, float]]) -> None:
        """Of tokens of the answer. Those of a mark of thought are not the answer's."""
        self._logprobs += zip(ids, logprobs, top_logprobs, strict=True)
        if self.stream.thinking:
            self._logprobs = [] if self.stream.start is None else self._logprobs[:-1]
        if self.stream.thinking or not self.stream.may_turn:
            self._flush_logprobs()

    def _flush_logprobs(self) -> None:
        for token, logprob, top in self._logprobs:
            self.delta.ids.append(token)
            self.delta.logprobs.append(logprob)
            self.delta.top_logprobs.append(top)
        self._logprobs = []

    def close_thought(self, closing: list[int], warning: WarningCode | None = None) -> None:
        if warning is not None:
            self.delta.warnings.append(GenerationWarning(warning, self.thought_tokens))
        self.append(closing)
        self.stream.expects_end = True

    def finish(self, finish_reason: str, stop_reason: str | None = None, flush: bool = True) -> None:
        """flush: with the text that the stream held back; not where its state cannot be relied on."""
        if self.finish_reason is None:
            self.finish_reason = self.delta.finish_reason = finish_reason
            if finish_reason == "length" and self.stream.stops.in_call:
                self.delta.warnings.append(GenerationWarning("cut_call", self.generated))
            self.delta.stop_reason = stop_reason or self.stream.stopped
            if flush:
                self._add_text(self.stream.close(cut=finish_reason != "stop"))
                self._flush_logprobs()
        self.sample = None

    def take_delta(self) -> Delta | None:
        """What was added since the last call; None where nothing was."""
        delta = self.delta
        if not (delta.thought or delta.answer or delta.ids or delta.finish_reason):  # warnings come with one of these
            return None
        delta.thinking, delta.thought_tokens = self.stream.thinking, self.thought_tokens
        delta.generated = self.generated
        self.delta = Delta(self.index)
        return delta

    def _add_text(self, texts: tuple[str, str]) -> None:
        self.delta.thought += texts[0]
        self.delta.answer += texts[1]
        self.has_answer = self.has_answer or bool(texts[1].strip())
