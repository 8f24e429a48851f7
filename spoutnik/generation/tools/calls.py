"""How a model's calls of tools are read while they are generated."""

import secrets
from collections.abc import Mapping, Sequence

from spoutnik.generation.tools.formats import HERMES, UNFINISHED, JsonObjectEnd, convention, match_prefix
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.text.tokenizer import Tokenizer


class ToolCallStream:
    """A parser of an answer's text, in pieces of any size: `feed` returns what is content, and calls as the API's deltas.

    A call has a delta once its name and the beginning of its arguments are there; these follow as they come. What turns out to
    be no call (an unknown name, another form) is content. began: calls so far.
    """

    def __init__(self, tokenizer: Tokenizer, tools: ToolSet):
        self.names = [function.name for function in tools.callable]
        self.format = convention(tokenizer).format if self.names else HERMES
        self.began = 0
        self._buffer = self._space = ""  # not returned yet; white space before what may be a call
        self._read = self._read_text
        self._object_end = JsonObjectEnd()
        self._has_content = self._inside = False  # some content was returned; calls have begun and not ended
        self._content: list[str] = []
        self._deltas: list[dict] = []

    def feed(self, text: str) -> tuple[str, list[dict]]:
        if not self.names:
            return text, []
        self._buffer += text
        while self._buffer and self._read():
            pass
        return self._flush()

    def close(self) -> tuple[str, list[dict]]:
        """Nothing follows: the beginning of what is no whole call is content, too. White space after a call is not."""
        if self._read in (self._read_text, self._read_head):
            self._add_content((self._space + self._buffer).rstrip() if self.began else self._space + self._buffer)
        self._buffer = self._space = ""
        return self._flush()

    def _flush(self) -> tuple[str, list[dict]]:
        content, deltas = "".join(self._content), self._deltas
        self._content, self._deltas = [], []
        return content, deltas

    def _add_content(self, text: str) -> None:
        self._has_content = self._has_content or bool(text.strip())
        self._content.append(text)

    # Each of these reads one part of the buffer; false: it must wait for more.

    def _read_text(self) -> bool:
        if self._inside and self.format.end:
            at = match_prefix(self._buffer, self.format.end)
            if at == UNFINISHED:
                return False
            if at is not None:
                self._buffer, self._inside = self._buffer[at:], False
                return True
        at, begun = self._find_mark()
        text = self._buffer[:at]
        shown = text.rstrip()
        self._add_content(self._space + shown if shown else "")
        self._space = text[len(shown):] if shown else self._space + text
        self._buffer = self._buffer[at:]
        if begun:
            self._read = self._read_head
        return begun

    def _find_mark(self) -> tuple[int, bool]:
        """Where the buffer has, or may have, the beginning of a call; is it one?"""
        if self.format.at_start:
            begins = not self._has_content and not self.began and self._buffer.lstrip().startswith("{")
            return (self._buffer.index("{"), True) if begins else (len(self._buffer), False)
        marks = self.format.marks[:2] if self.format.begin else self.format.marks[:1]
        places = [at for mark in marks if (at := self._buffer.find(mark)) >= 0]
        if places:
            return min(places), True
        keep = next((n for n in range(min(max(map(len, marks)) - 1, len(self._buffer)), 0, -1)
                     if any(mark.startswith(self._buffer[-n:]) for mark in marks)), 0)
        return len(self._buffer) - keep, False

    def _read_head(self) -> bool:
        """From the mark to the beginning of the arguments."""
        openings = {self.format.before, self.format.begin + self.format.before}
        matches = [(match_prefix(self._buffer, f"{opening}{name}{self.format.middle}{{"), name)
                   for name in self.names for opening in openings]
        at, name = next(((at, name) for at, name in matches if at is not None and at != UNFINISHED), (None, ""))
        if at is None and any(at == UNFINISHED for at, _ in matches):
            return False
        if at is None:
            end = next((len(mark) for mark in self.format.marks if self._buffer.startswith(mark)), 1)
            self._add_content(self._space + self._buffer[:end])
            self._space, self._buffer, self._read = "", self._buffer[end:], self._read_text
            return True
        self._deltas.append({"index": self.began, "id": f"call_{secrets.token_hex(12)}", "type": "function",
                             "function": {"name": name, "arguments": ""}})
        self.began, self._inside, self._object_end = self.began + 1, True, JsonObjectEnd()
        self._space, self._buffer, self._read = "", self._buffer[at - 1:], self._read_arguments
        return True

    def _read_arguments(self) -> bool:
        at = self._object_end.feed(self._buffer)
        self._deltas.append({"index": self.began - 1, "function": {"arguments": self._buffer[:at]}})
        self._buffer = self._buffer[at:]
        if self._object_end.over:
            self._read = self._read_tail
        return self._object_end.over

    def _read_tail(self) -> bool:
        at = match_prefix(self._buffer, self.format.after)
        if at == UNFINISHED:
            return False
        self._buffer, self._read = self._buffer[at or 0:], self._read_text
        return True


def whole_calls(deltas: Sequence[Mapping]) -> list[dict]:
    """All the deltas of an answer as the calls of a message."""
    calls: list[dict] = []
    for delta in deltas:
        if "id" in delta:
            calls.append({"id": delta["id"], "type": "function", "function": dict(delta["function"])})
        else:
            calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
    return calls
