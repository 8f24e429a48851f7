"""The two texts of a reply, thought and answer, as they come: what white space and which stop texts become of them."""

from collections.abc import Sequence
from typing import Protocol

from spoutnik.text.detokenization import StopTextBuffer


class StopTexts(Protocol):
    """Passes an answer's text on until a text that ends it. stopped: the one that was met."""

    stopped: str | None

    def feed(self, text: str) -> str: ...
    def close(self, cut: bool = False) -> str: ...


class ThoughtText:
    """A thought's text, without the white space at its end, and, where it follows its mark, at its beginning (the
    continuation of a thought that the prompt begins keeps it)."""

    def __init__(self, follows_mark: bool):
        self._held, self._started = "", not follows_mark

    def feed(self, text: str) -> str:
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        text = self._held + text
        stripped = text.rstrip()
        self._held = text[len(stripped):]
        return stripped


class AnswerText:
    """An answer's text as the model writes it, up to a stop text. Of its white space only the empty lines after a mark of
    thought are left out, which templates put there: the indentation of its first line is the model's.

    No stop text is looked for in leading white space: an answer would end before it begins.
    """

    def __init__(self, follows_mark: bool, stops: StopTexts):
        self.stops, self._follows_mark = stops, follows_mark
        self._leading: list[str] | None = []  # white space so far; None once something else has come

    def feed(self, text: str) -> str:
        if self._leading is None:
            return self.stops.feed(text)
        rest = text.lstrip()
        self._leading.append(text[:len(text) - len(rest)])
        return self._begin() + self.stops.feed(rest) if rest else ""

    def after_mark(self) -> None:
        """A mark of thought has come: the white space before it was nobody's."""
        if self._leading is not None:
            self._leading, self._follows_mark = [], True

    def close(self, cut: bool = False) -> str:
        """cut: the model would have gone on."""
        return (self._begin() if self._leading is not None else "") + self.stops.close(cut)

    def _begin(self) -> str:
        leading, self._leading = "".join(self._leading), None
        return leading[leading.rfind("\n") + 1:] if self._follows_mark else leading


def texts(follows_mark: bool, thinking: bool, stop: Sequence[str] | StopTexts,
          structured: bool) -> tuple[ThoughtText, AnswerText]:
    """For a reply that begins in its thought or not. follows_mark: the prompt ends with a mark of thought. structured: the
    answer is held to a form, of which the empty lines that it may begin with are no part."""
    stops = StopTextBuffer(stop) if isinstance(stop, Sequence) else stop
    return ThoughtText(follows_mark or not thinking), AnswerText(follows_mark or thinking or structured, stops)
