"""How a model's calls of tools are read while they are generated."""

import secrets
from collections.abc import Mapping, Sequence

from spoutnik.generation.tools.formats import HERMES, UNFINISHED, JsonObjectEnd, convention, match_prefix
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.text.detokenization import StopTextBuffer
from spoutnik.text.tokenizer import Tokenizer


class ToolCallStream:
    """A parser of an answer's text, in pieces of any size: `feed` returns what is content, and calls as the API's deltas,
    of each call one at most.

    A call has a delta once its name and the beginning of its arguments are there; these follow as they come. What turns out to
    be no call (an unknown name, another form) is content. began: calls so far. in_call: one has begun and not ended.
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
        self._pieces: list[tuple[str, bool]] = []  # of the text as it came: content or not

    @property
    def in_call(self) -> bool:
        """At its mark or its name, too, where what comes next decides; half a mark is more than its first character."""
        return self._inside or self._read != self._read_text or len(self._buffer) > 1

    def take_pieces(self) -> list[tuple[str, bool]]:
        """The text so far, as it came, in pieces that are parts of calls or are not."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def feed(self, text: str) -> tuple[str, list[dict]]:
        if not self.names:
            self._pieces.append((text, False))
            return text, []
        self._buffer += text
        while self._buffer and self._read():
            pass
        return self._flush()

    def close(self, cut: bool = False) -> tuple[str, list[dict]]:
        """Nothing follows: the beginning of what is no whole call is content, too; not if the model would have gone on (cut).
        White space after a call is not."""
        if self._buffer and not (cut and self._read in (self._read_text, self._read_head)):
            self._pieces.append((self._buffer, self._read != self._read_text))
        if cut:
            self._buffer = ""
        if self._read in (self._read_text, self._read_head):
            self._add_content((self._space + self._buffer).rstrip() if self.began else self._space + self._buffer)
        self._buffer = self._space = ""
        return self._flush()

    def _flush(self) -> tuple[str, list[dict]]:
        content, deltas = "".join(self._content), self._deltas
        self._content, self._deltas = [], []
        return content, deltas

    def _take(self, size: int, in_call: bool) -> str:
        """Removes so much of the buffer."""
        text, self._buffer = self._buffer[:size], self._buffer[size:]
        self._pieces.append((text, in_call))
        return text

    def _add_content(self, text: str) -> None:
        self._has_content = self._has_content or bool(text.strip())
        self._content.append(text)

    def _add_arguments(self, text: str) -> None:
        """To the delta that the call has already, if any: some clients read one delta of a call at a time."""
        index = self.began - 1
        if self._deltas and self._deltas[-1]["index"] == index:
            self._deltas[-1]["function"]["arguments"] += text
        else:
            self._deltas.append({"index": index, "function": {"arguments": text}})

    # Each of these reads one part of the buffer; false: it must wait for more.

    def _read_text(self) -> bool:
        if self._inside and self.format.end:
            at = match_prefix(self._buffer, self.format.end)
            if at == UNFINISHED:
                return False
            if at is not None:
                self._take(at, in_call=True)
                self._inside = False
                return True
        at, begun = self._find_mark()
        text = self._take(at, in_call=False)
        shown = text.rstrip()
        self._add_content(self._space + shown if shown else "")
        self._space = text[len(shown):] if shown else self._space + text
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
            self._add_content(self._space + self._take(end, in_call=False))
            self._space, self._read = "", self._read_text
            return True
        self._deltas.append({"index": self.began, "id": f"call_{secrets.token_hex(12)}", "type": "function",
                             "function": {"name": name, "arguments": ""}})
        self.began, self._inside, self._object_end = self.began + 1, True, JsonObjectEnd()
        self._take(at - 1, in_call=True)
        self._space, self._read = "", self._read_arguments
        return True

    def _read_arguments(self) -> bool:
        at = self._object_end.feed(self._buffer)
        self._add_arguments(self._take(at, in_call=True))
        if self._object_end.over:
            self._read = self._read_tail
        return self._object_end.over

    def _read_tail(self) -> bool:
        at = match_prefix(self._buffer, self.format.after)
        if at == UNFINISHED:
            return False
        self._take(at or 0, in_call=True)
        self._read = self._read_text
        if not self.format.end:
            self._inside = False
        return True


class CallAwareStops:
    """Stop texts of an answer that may call tools: looked for outside of calls, whose arguments may hold them. Passes the
    text on as it came. in_call: see ToolCallStream."""

    def __init__(self, tokenizer: Tokenizer, tools: ToolSet, stop: Sequence[str]):
        self._calls, self._stops = ToolCallStream(tokenizer, tools), StopTextBuffer(stop)

    @property
    def stopped(self) -> str | None:
        return self._stops.stopped

    @property
    def in_call(self) -> bool:
        return self._calls.in_call

    def feed(self, text: str) -> str:
        self._calls.feed(text)
        return self._pass_on()

    def close(self, cut: bool = False) -> str:
        self._calls.close(cut)
        return self._pass_on() + self._stops.close()

    def _pass_on(self) -> str:
        """What a stop text began with cannot end in a call."""
        passed = []
        for piece, in_call in self._calls.take_pieces():
            if self._stops.stopped is None:
                passed += [self._stops.close(), piece] if in_call else [self._stops.feed(piece)]
        return "".join(passed)


def whole_calls(deltas: Sequence[Mapping]) -> list[dict]:
    """All the deltas of an answer as the calls of a message: whole ones, of which the last may have been cut off."""
    calls: list[dict] = []
    for delta in deltas:
        if "id" in delta:
            calls.append({"id": delta["id"], "type": "function", "function": dict(delta["function"])})
        else:
            calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
    return [call for call in calls if _is_whole(call["function"]["arguments"])]


def _is_whole(arguments: str) -> bool:
    end = JsonObjectEnd()
    end.feed(arguments)
    return end.over
