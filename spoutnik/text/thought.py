"""Where a thought starts and ends. One place decides; training, evaluation and chat ask it."""

from dataclasses import dataclass

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
    thinking = thinking and tokenizer.end_think_id is not None
    if not thinking and ids[:1] == [tokenizer.think_id]:
        ids, thinking = ids[1:], True
    marks = [i for i, token in enumerate(ids) if token == tokenizer.end_think_id]
    end = (marks[0] if marks else len(ids)) if thinking else 0
    thought, answer = tokenizer.decode(ids[:end]).strip(), tokenizer.decode(ids[end + thinking:]).strip()
    strays = {tokenizer.think_id, tokenizer.user_id, tokenizer.assistant_id, tokenizer.bos_id}
    well_formed = finished and len(marks) == thinking and bool(answer) and not strays.intersection(ids)
    return Reply(thought, answer, well_formed, end)


class ThoughtStream:
    """The same decision on a stream: ids come in one by one, pieces of text go out, each marked thought or answer."""

    def __init__(self, tokenizer: Tokenizer, thinking: bool = True):
        self.tokenizer = tokenizer
        self.thinking = thinking and tokenizer.end_think_id is not None
        self._may_open = not self.thinking  # the model may open the thought with its first token
        self._pending: list[int] = []  # ids whose bytes do not yet form whole characters
        self._started = False  # has the current part shown anything but white space?

    def feed(self, token: int) -> tuple[str, bool]:
        """Returns (text to show, is it thought). Text may be empty."""
        if token == self.tokenizer.end_think_id and self.thinking:
            self.thinking, self._pending, self._started = False, [], False
            return "", False
        may_open, self._may_open = self._may_open, False
        if may_open and token == self.tokenizer.think_id:
            self.thinking = True
            return "", True
        self._pending.append(token)
        text = self.tokenizer.decode(self._pending)
        if text.endswith("\ufffd"):  # in the middle of a multi-byte character
            return "", self.thinking
        self._pending = []
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        return text, self.thinking
