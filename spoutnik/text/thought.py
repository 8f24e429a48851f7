"""Where a thought starts and ends. One place decides; training, evaluation and chat ask it."""

from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.text.detokenization import IncrementalText, StopTexts
from spoutnik.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reply:
    """A completion taken apart.

    well_formed: the thought, where one was opened, was closed exactly once, the answer is not empty and the sentence was
        ended. The thought itself may be empty, as R1's is for simple requests.
    thought_tokens: length of the thought in tokens, the end mark not counted.
    """

    thought: str
    answer: str
    well_formed: bool
    thought_tokens: int


def opens_thought(ids: list[int], tokenizer: Tokenizer) -> bool:
    """Does a prompt end inside a thought? R1's template opens one, Qwen3's closes it again with thinking switched off."""
    for token in reversed(ids):
        if token == tokenizer.think_id:
            return True
        if token == tokenizer.end_think_id or token in tokenizer.eos_ids:
            return False
    return False


def read_reply(ids: list[int], tokenizer: Tokenizer, finished: bool, thinking: bool = True) -> Reply:
    """Takes apart the ids that followed a prompt (the end of sentence itself not among them).

    thinking: the prompt opened the thought (`opens_thought`). Where it did not, the model may do so with its first token;
    else all is answer, as always where the vocabulary has no end of thought. A thought that was never closed is all thought
    and no answer: it earns nothing and leaks nothing.
    """
    stream = ThoughtStream(tokenizer, thinking)
    begins = stream.thinking
    if not begins and ids and ids[0] == stream.start:
        ids, begins = ids[1:], True
        stream.thinking = True
    thought, answer = map("".join, zip(stream.feed(ids), stream.close()))
    strays = {tokenizer.think_id, tokenizer.user_id, tokenizer.assistant_id, tokenizer.bos_id}
    closed = ids.count(tokenizer.end_think_id) == begins
    return Reply(thought, answer, finished and closed and bool(answer) and not strays.intersection(ids), stream.thought_tokens)


class ThoughtStream:
    """The same decision on a stream: ids come in, in pieces of any size, and text goes out, the thought's apart from the
    answer's, neither with white space around it. Any mark counts, wherever it stands: what follows `<think>` is thought, what
    follows `</think>` is not.

    thinking: is the next token thought? thought_tokens: so far, marks not counted. start, end: the marks, None where the
        vocabulary has none.
    stop: texts at which the answer ends; what follows one is lost. stopped: the one that was met. keep_special: special tokens
        are part of the answer's text (marks of tool calls are, in some vocabularies).
    """

    def __init__(self, tokenizer: Tokenizer, thinking: bool = True, stop: Sequence[str] = (),
                 keep_special: bool = False):
        self.end = tokenizer.end_think_id
        self.start = None if self.end is None else tokenizer.think_id
        self.thinking = thinking and self.end is not None
        self.thought_tokens = 0
        self._parts = {True: _Part(tokenizer, ()), False: _Part(tokenizer, stop, keep_special)}

    @property
    def stopped(self) -> str | None:
        return self._parts[False].stops.stopped

    def feed(self, ids: Sequence[int]) -> tuple[str, str]:
        """Returns what is new: (thought, answer)."""
        new, begun = {True: "", False: ""}, 0
        for place, token in enumerate(ids):
            if token == self.end or token == self.start:
                new[self.thinking] += self._read(ids[begun:place])
                self.thinking, begun = token == self.start, place + 1
        new[self.thinking] += self._read(ids[begun:])
        return new[True], new[False]

    def _read(self, ids: Sequence[int]) -> str:
        self.thought_tokens += len(ids) * self.thinking
        return self._parts[self.thinking].feed(ids) if ids else ""

    def close(self) -> tuple[str, str]:
        """Nothing follows: what was held back, (thought, answer)."""
        return self._parts[True].close(), self._parts[False].close()


class _Part:
    """Thought or answer: its text without white space before and after."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], keep_special: bool = False):
        self.stops = StopTexts(stop)
        self._text = IncrementalText(tokenizer, keep_special)
        self._held, self._begun = "", False

    def feed(self, ids: Sequence[int]) -> str:
        return self._show(self.stops.feed(self._begin(self._text.feed(ids))))

    def close(self) -> str:
        return self._show(self.stops.feed(self._begin(self._text.close())) + self.stops.close())

    def _begin(self, text: str) -> str:
        """Without the white space before the first word, where no stop text is looked for either: a thought's end is followed
        by an empty line."""
        text = text if self._begun else text.lstrip()
        self._begun = self._begun or bool(text)
        return text

    def _show(self, text: str) -> str:
        text = self._held + text
        shown = text.rstrip()
        self._held = text[len(shown):]
        return shown
