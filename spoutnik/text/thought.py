"""The thought parser: where a thought starts and ends, for training, evaluation and chat alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.text.detokenization import IncrementalDetokenizer, StopTextBuffer
from spoutnik.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reply:
    """A completion, parsed.

    well_formed: a thought that was opened was closed exactly once, the answer is not empty, and the completion ended with the
        end of sentence. The thought itself may be empty, as R1's is for simple requests.
    thought_tokens: the thought's length, marks not counted.
    """

    thought: str
    answer: str
    well_formed: bool
    thought_tokens: int


def opens_thought(ids: list[int], tokenizer: Tokenizer) -> bool:
    """Whether a prompt ends inside a thought. R1's template opens one; Qwen3's closes it again with thinking switched off."""
    for token in reversed(ids):
        if token == tokenizer.think_id:
            return True
        if token == tokenizer.end_think_id or token in tokenizer.eos_ids:
            return False
    return False


def read_reply(ids: list[int], tokenizer: Tokenizer, finished: bool, thinking: bool = True) -> Reply:
    """Parses the ids that followed a prompt, without the end of sentence.

    thinking: the prompt opened the thought (`opens_thought`). If it did not, the model may do so with its first token; else all
    is answer, as always where the vocabulary has no end of thought. A thought that was never closed leaves no answer.
    """
    stream = ThoughtStream(tokenizer, thinking)
    opened = stream.thinking
    if not opened and ids and ids[0] == stream.start:
        ids, opened, stream.thinking = ids[1:], True, True
    thought, answer = map("".join, zip(stream.feed(ids), stream.close()))
    strays = {tokenizer.think_id, tokenizer.user_id, tokenizer.assistant_id, tokenizer.bos_id}
    closed = ids.count(tokenizer.end_think_id) == opened
    return Reply(thought, answer, finished and closed and bool(answer) and not strays.intersection(ids), stream.thought_tokens)


class ThoughtStream:
    """The parser on a stream: ids in pieces of any size to the texts of thought and answer, both without surrounding white
    space. Every mark counts: what follows `<think>` is thought, what follows `</think>` is answer.

    thinking: the next token belongs to the thought. thought_tokens: so far, marks not counted. start, end: ids of the marks,
        None where the vocabulary has none.
    stop: texts that end the answer. stopped: the one that was met; nothing comes after it. keep_special: the answer's text has
        special tokens (marks of tool calls are, in some vocabularies).
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
        """Returns the new text: (thought, answer)."""
        new, start = {True: "", False: ""}, 0
        for index, token in enumerate(ids):
            if token == self.end or token == self.start:
                new[self.thinking] += self._decode(ids[start:index])
                self.thinking, start = token == self.start, index + 1
        new[self.thinking] += self._decode(ids[start:])
        return new[True], new[False]

    def _decode(self, ids: Sequence[int]) -> str:
        self.thought_tokens += len(ids) * self.thinking
        return self._parts[self.thinking].feed(ids) if ids else ""

    def close(self) -> tuple[str, str]:
        """No id follows: returns what was held back, (thought, answer)."""
        return self._parts[True].close(), self._parts[False].close()


class _Part:
    """The text of thought or answer, without surrounding white space."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], keep_special: bool = False):
        self.stops, self._detokenizer = StopTextBuffer(stop), IncrementalDetokenizer(tokenizer, keep_special)
        self._held, self._started = "", False

    def feed(self, ids: Sequence[int]) -> str:
        return self._strip_end(self.stops.feed(self._strip_start(self._detokenizer.feed(ids))))

    def close(self) -> str:
        return self._strip_end(self.stops.feed(self._strip_start(self._detokenizer.close())) + self.stops.close())

    def _strip_start(self, text: str) -> str:
        """No stop text is looked for in leading white space: an empty line follows a thought's end."""
        text = text if self._started else text.lstrip()
        self._started = self._started or bool(text)
        return text

    def _strip_end(self, text: str) -> str:
        """Holds white space back until something follows."""
        text = self._held + text
        stripped = text.rstrip()
        self._held = text[len(stripped):]
        return stripped
