"""The thought parser: where a thought starts and ends, for training, evaluation and chat alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from spoutnik.errors import RunError, UserError
from spoutnik.text.detokenization import IncrementalDetokenizer
from spoutnik.text.plain_thought import PlainThoughtStream, follows_plain_mark, opens_plain_thought
from spoutnik.text.reply_text import ReplyStream, StopTexts
from spoutnik.text.special_token_escape import END_THINK, THINK
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


def has_plain_marks(tokenizer: Tokenizer) -> bool:
    """Whether the marks of thoughts are plain text, if the model writes any: its vocabulary has no token for their end."""
    return tokenizer.end_think_id is None


def opens_thought(ids: list[int], tokenizer: Tokenizer) -> bool:
    """Whether a prompt ends inside a thought. R1's template opens one; Qwen3's closes it again with thinking switched off."""
    if has_plain_marks(tokenizer):
        return opens_plain_thought(ids, tokenizer)
    for token in reversed(ids):
        if token == tokenizer.think_id:
            return True
        if token == tokenizer.end_think_id or token in tokenizer.eos_ids:
            return False
    return False


def follows_mark(ids: list[int], tokenizer: Tokenizer) -> bool:
    """Whether nothing but white space follows the last mark of thought in a prompt: what comes next begins the thought or the
    answer, and does not go on with one."""
    if has_plain_marks(tokenizer):
        return follows_plain_mark(ids, tokenizer)
    for token in reversed(ids):
        if token in (tokenizer.think_id, tokenizer.end_think_id):
            return True
        if tokenizer.decode([token], keep_special=True).strip():
            return False
    return False


def read_reply(ids: list[int], tokenizer: Tokenizer, finished: bool, thinking: bool = True) -> Reply:
    """Parses the ids that followed a prompt, without the end of sentence.

    thinking: the prompt opened the thought (`opens_thought`). If it did not, the model may do so with its first token; else all
    is answer. A thought that was never closed leaves no answer.
    """
    if has_plain_marks(tokenizer):
        return _read_plain_reply(ids, tokenizer, finished, thinking and _template_opens_thought(tokenizer))
    stream = ThoughtStream(tokenizer, thinking)
    opened = stream.thinking
    if not opened and ids and ids[0] == stream.start:
        ids, opened, stream.thinking = ids[1:], True, True
    thought, answer = (text.strip() for text in map("".join, zip(stream.feed(ids), stream.close())))
    strays = {tokenizer.think_id, tokenizer.user_id, tokenizer.assistant_id, tokenizer.bos_id}
    closed = ids.count(tokenizer.end_think_id) == opened
    return Reply(thought, answer, finished and closed and bool(answer) and not strays.intersection(ids), stream.thought_tokens)


def _read_plain_reply(ids: list[int], tokenizer: Tokenizer, finished: bool, thinking: bool) -> Reply:
    stream = PlainThoughtStream(tokenizer, thinking)
    thought, answer = (text.strip() for text in map("".join, zip(stream.feed(ids), stream.close())))
    closed = tokenizer.decode(ids).count(END_THINK) == stream.has_thought and not stream.thinking
    well_formed = finished and closed and bool(answer) and THINK not in thought + answer
    return Reply(thought, answer, well_formed, stream.thought_tokens)


@lru_cache(maxsize=16)
def _template_opens_thought(tokenizer: Tokenizer) -> bool:
    """Whether it does by default, for those who have no prompt to look at."""
    try:
        return opens_thought(tokenizer.chat_ids([{"role": "user", "content": "a"}]), tokenizer)
    except (UserError, RunError):  # no template, or one that wants more: a base model's texts have no thoughts
        return False


def thought_stream(tokenizer: Tokenizer, prompt: list[int], thinking: bool, stop: Sequence[str] | StopTexts = (),
                   keep_special: bool = False, structured: bool = False,
                   continues: bool = False) -> "ThoughtStream | PlainThoughtStream":
    """The parser of what follows a prompt that ends in a thought or not. structured: the answer is held to a form. continues:
    the prompt ends with the reply's beginning, so that the text goes on as it stands, a space at the join included."""
    begins = follows_mark(prompt, tokenizer)
    kind = PlainThoughtStream if has_plain_marks(tokenizer) else ThoughtStream
    return kind(tokenizer, thinking, stop, keep_special, begins, structured, prompt if continues and not begins else ())


class ThoughtStream(ReplyStream):
    """The parser on a stream: ids in pieces of any size to the texts of thought and answer. Every mark counts: what follows
    `<think>` is thought, what follows `</think>` is answer. (PlainThoughtStream: where the marks are no tokens.)

    start, end: ids of the marks, None where the vocabulary has none. keep_special: the answer's text has special tokens (marks
    of tool calls are, in some vocabularies). before: ids whose text the first ones go on with.
    """

    def __init__(self, tokenizer: Tokenizer, thinking: bool = True, stop: Sequence[str] | StopTexts = (),
                 keep_special: bool = False, follows_mark: bool | None = None, structured: bool = False,
                 before: Sequence[int] = ()):
        self.end = tokenizer.end_think_id
        self.start = None if self.end is None else tokenizer.think_id
        super().__init__(thinking and self.end is not None, stop, follows_mark, structured)
        self._detokenizers = {part: IncrementalDetokenizer(tokenizer, keep_special and not part,
                                                           before if part == self.thinking else ()) for part in (True, False)}

    @property
    def may_turn(self) -> bool:
        """Whether it must see each token by itself, since one may end a part and begin the next."""
        return False

    @property
    def half_mark(self) -> str:
        """A mark that is a token comes whole. (See PlainThoughtStream.)"""
        return ""

    def feed(self, ids: Sequence[int]) -> tuple[str, str]:
        """Returns the new text: (thought, answer)."""
        new, start = {True: "", False: ""}, 0
        for index, token in enumerate(ids):
            if token == self.end or token == self.start:
                new[self.thinking] += self._decode(ids[start:index]) + self._rest()
                self.thinking, start = token == self.start, index + 1
                self._answer.after_mark()
        new[self.thinking] += self._decode(ids[start:])
        return new[True], new[False]

    def _decode(self, ids: Sequence[int]) -> str:
        self.thought_tokens += len(ids) * self.thinking
        text = self._detokenizers[self.thinking].feed(ids) if ids else ""
        return (self._thought if self.thinking else self._answer).feed(text) if text else ""

    def _rest(self) -> str:
        """What the current part's bytes are, now that a mark follows: half a character waits for the next such part."""
        detokenizer = self._detokenizers[self.thinking]
        if detokenizer.held.endswith("\ufffd"):
            return ""
        text = detokenizer.close()
        return (self._thought if self.thinking else self._answer).feed(text) if text else ""

    def close(self, cut: bool = False) -> tuple[str, str]:
        """No id follows: returns what was held back, (thought, answer). cut: the model would have gone on."""
        thought = self._thought.feed(self._detokenizers[True].close())
        return thought, self._answer.feed(self._detokenizers[False].close()) + self._answer.close(cut)
