"""The two texts of a reply, thought and answer, as they come: what white space and which stop texts become of them."""

from collections.abc import Sequence
from typing import Protocol

from spoutnik.text.detokenization import StopTextBuffer


class StopTexts(Protocol):
    """Passes an answer's text on until a text that ends it. stopped: the one that was met. in_call: a call of a tool has begun
    and not ended."""

    stopped: str | None
    in_call: bool

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
        self._stops, self._follows_mark = stops, follows_mark
        self._leading: list[str] | None = []  # white space so far; None once something else has come

    def feed(self, text: str) -> str:
        if self._leading is None:
            return self._stops.feed(text)
        rest = text.lstrip()
        self._leading.append(text[:len(text) - len(rest)])
        return self._begin() + self._stops.feed(rest) if rest else ""

    def after_mark(self) -> None:
        """A mark of thought has come: the white space before it was nobody's."""
        if self._leading is not None:
            self._leading, self._follows_mark = [], True

    def close(self, cut: bool = False) -> str:
        """cut: the model would have gone on."""
        return (self._begin() if self._leading is not None else "") + self._stops.close(cut)

    def _begin(self) -> str:
        leading, self._leading = "".join(self._leading), None
        return leading[leading.rfind("\n") + 1:] if self._follows_mark else leading


class AnswerTags:
    """What stands between the tags of an answer (R1-Zero's `<answer>` and `</answer>`), with the interface of StopTexts; an
    answer that does not begin with the tag is passed on as it is, up to the one that ends it.

    is_enclosed: both tags have come, and nothing but white space after them.
    """

    def __init__(self, stops: StopTexts, tags: tuple[str, str]):
        self._stops, (self._opening, self._closing) = stops, tags
        self._held, self._begun, self._opened, self._closed, self._rest = "", False, False, False, ""

    @property
    def is_enclosed(self) -> bool:
        return self._opened and self._closed and not self._rest.strip()

    @property
    def stopped(self) -> str | None:
        return self._stops.stopped

    @property
    def in_call(self) -> bool:
        return self._stops.in_call

    def feed(self, text: str) -> str:
        if self._closed:
            self._rest += text
            return ""
        text, self._held = self._held + text, ""
        if not self._begun:
            text = self._begin(text)
        if not self._begun:
            self._held = text
            return ""
        at = text.find(self._closing)
        if at >= 0:
            self._closed, self._rest = True, text[at + len(self._closing):]
            return self._stops.feed(text[:at].rstrip())
        kept = text[:len(text) - half_at_end(text, self._closing)].rstrip()
        self._held = text[len(kept):]
        return self._stops.feed(kept)

    def close(self, cut: bool = False) -> str:
        held, self._held = self._held if not self._closed else "", ""
        return (self._stops.feed(held.rstrip() if self._opened else held) if held else "") + self._stops.close(cut)

    def _begin(self, text: str) -> str:
        """The text without the opening tag and the white space around it; all of it while it may yet be that."""
        rest = text.lstrip()
        if not self._opened and self._opening.startswith(rest) and rest != self._opening:
            return text
        if not self._opened and rest.startswith(self._opening):
            self._opened, rest = True, rest.removeprefix(self._opening).lstrip()
        self._begun = bool(rest)
        return rest if self._opened else text


def half_at_end(text: str, mark: str) -> int:
    """How many characters at a text's end may be the beginning of a mark."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-n:])), 0)


class ReplyStream:
    """What the parsers of replies share, whether the marks of thought are tokens (ThoughtStream) or plain text
    (PlainThoughtStream).

    thinking: the next token belongs to the thought. thought_tokens: so far, marks not counted.
    stop: texts that end the answer. stopped: the one that was met; nothing comes after it.
    follows_mark: the prompt ends with a mark of thought; None: as `thinking`. structured: the answer is held to a form, of
        which the empty lines that it may begin with are no part.
    tags: between which the model writes an answer; they are no part of it.
    expects_end: a thought was closed by others than the model, which may yet write its end: that mark is left out once.
    """

    def __init__(self, thinking: bool, stop: Sequence[str] | StopTexts, follows_mark: bool | None, structured: bool,
                 tags: tuple[str, str] | None = None):
        self.thinking, self.thought_tokens, self.expects_end = thinking, 0, False
        self.stops: StopTexts = StopTextBuffer(stop) if isinstance(stop, Sequence) else stop
        self._follows_mark = thinking if follows_mark is None else follows_mark
        self._thought = ThoughtText(self._follows_mark or not thinking)
        self._tags = None if tags is None else AnswerTags(self.stops, tags)
        self._answer = AnswerText(self._follows_mark or thinking or structured, self._tags or self.stops)

    @property
    def encloses_answer(self) -> bool:
        """Whether tags stand around the answer as they should, where there are any."""
        return self._tags is None or self._tags.is_enclosed

    @property
    def stopped(self) -> str | None:
        return self.stops.stopped
