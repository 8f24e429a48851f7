"""Where a thought starts and ends. One place decides; training, evaluation and chat ask it."""

from dataclasses import dataclass

from spoutnik.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reply:
    """A completion taken apart.

    well_formed: the thought was closed exactly once, the answer is not empty and the sentence was ended. The thought itself
        may be empty, as R1's is for simple requests.
    thought_tokens: length of the thought in tokens, the end mark not counted.
    """

    thought: str
    answer: str
    well_formed: bool
    thought_tokens: int


def read_reply(ids: list[int], tokenizer: Tokenizer, finished: bool) -> Reply:
    """Takes apart the ids that followed `<think>\\n` (the end of sentence itself not among them).

    A thought that was never closed is all thought and no answer: it earns nothing and leaks nothing.
    """
    marks = [i for i, token in enumerate(ids) if token == tokenizer.end_think_id]
    end = marks[0] if marks else len(ids)
    thought, answer = tokenizer.decode(ids[:end]).strip(), tokenizer.decode(ids[end + 1:]).strip()
    strays = {tokenizer.think_id, tokenizer.user_id, tokenizer.assistant_id, tokenizer.bos_id}
    well_formed = finished and len(marks) == 1 and bool(answer) and not strays.intersection(ids)
    return Reply(thought, answer, well_formed, end)


class ThoughtStream:
    """The same decision on a stream: ids come in one by one, pieces of text go out, each marked thought or answer."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.thinking = True
        self._pending: list[int] = []  # ids whose bytes do not yet form whole characters
        self._started = False  # has the current part shown anything but white space?

    def feed(self, token: int) -> tuple[str, bool]:
        """Returns (text to show, is it thought). Text may be empty."""
        if token == self.tokenizer.end_think_id and self.thinking:
            self.thinking, self._pending, self._started = False, [], False
            return "", False
        self._pending.append(token)
        text = self.tokenizer.decode(self._pending)
        if text.endswith("\ufffd"):  # in the middle of a multi-byte character
            return "", self.thinking
        self._pending = []
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        return text, self.thinking
