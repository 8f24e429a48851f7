"""One of the n replies to a request, while it is generated."""

from spoutnik.engine.logits_processors import LogitsProcessor
from spoutnik.engine.request import Sample
from spoutnik.generation.delta import Delta, GenerationWarning, WarningCode
from spoutnik.text.thought import ThoughtStream


class Choice:
    """ids: all that follows the prompt, those that we inserted too; thought_ids: of these, the thought's. generated: how many
    the model generated. has_answer: something of the answer can be seen. sample: generates more (None: paused, or finished).
    segments: engine requests begun for it."""

    def __init__(self, index: int, stream: ThoughtStream):
        self.index, self.stream = index, stream
        self.ids: list[int] = []
        self.thought_ids: list[int] = []
        self.generated = self.segments = self.checked_for_repetition = 0
        self.has_answer = False
        self.sample: Sample | None = None
        self.structure: LogitsProcessor | None = None  # what holds the answer to its form
        self.finish_reason: str | None = None
        self.delta = Delta(index)

    def append(self, ids: list[int]) -> None:
        if self.stream.thinking:
            self.thought_ids += ids
        self.ids += ids
        self._add_text(self.stream.feed(ids))

    def close_thought(self, closing: list[int], warning: WarningCode | None = None) -> None:
        if warning is not None:
            self.delta.warnings.append(GenerationWarning(warning, self.stream.thought_tokens))
        self.append(closing)

    def finish(self, finish_reason: str, stop_reason: str | None = None, flush: bool = True) -> None:
        """flush: with the text that the stream held back; not where its state cannot be relied on."""
        if self.finish_reason is None:
            self.finish_reason = self.delta.finish_reason = finish_reason
            self.delta.stop_reason = stop_reason or self.stream.stopped
            if flush:
                self._add_text(self.stream.close())
        self.sample = None

    def take_delta(self) -> Delta | None:
        """What was added since the last call; None where nothing was."""
        delta = self.delta
        if not (delta.thought or delta.answer or delta.ids or delta.finish_reason or delta.warnings):
            return None
        delta.thinking, delta.thought_tokens = self.stream.thinking, self.stream.thought_tokens
        delta.generated = self.generated
        self.delta = Delta(self.index)
        return delta

    def _add_text(self, texts: tuple[str, str]) -> None:
        self.delta.thought += texts[0]
        self.delta.answer += texts[1]
        self.has_answer = self.has_answer or bool(texts[1])
