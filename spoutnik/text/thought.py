"""The thought parser: where a thought starts and ends, for training, evaluation and chat alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.text.detokenization import IncrementalDetokenizer
from spoutnik.text.plain_thought import PlainThoughtStream
from spoutnik.text.reply_text import ReplyStream, StopTexts
from spoutnik.text.thought_format import follows_mark, has_plain_marks, thought_format
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


def read_reply(ids: list[int], tokenizer: Tokenizer, finished: bool, thinking: bool | None = None) -> Reply:
    """Parses the ids that followed a prompt, without the end of sentence.

    thinking: the prompt opened the thought (`opens_thought`); None: as the chat template does. If it did not, the model may do
    so with its first token that is not white space; else all is answer. A thought that was never closed leaves no answer.
    """
    if thinking is None:
        thinking = thought_format(tokenizer).opened_by == "prompt"
    if has_plain_marks(tokenizer):
        return _read_plain_reply(ids, tokenizer, finished, thinking)
    stream = ThoughtStream(tokenizer, thinking)
    opened = stream.thinking
    if not opened and stream.start in ids and not tokenizer.decode(before := ids[:ids.index(stream.start)], True).strip():
        ids, opened, stream.thinking = ids[len(before) + 1:], True, True
    thought, answer = (text.strip() for text in map("".join, zip(stream.feed(ids), stream.close())))
    strays = {tokenizer.think_id, tokenizer.user_id, tokenizer.assistant_id, tokenizer.bos_id}
    closed = ids.count(tokenizer.end_think_id) == opened
    well_formed = finished and closed and bool(answer) and stream.encloses_answer and not strays.intersection(ids)
    return Reply(thought, answer, well_formed, stream.thought_tokens)


def _read_plain_reply(ids: list[int], tokenizer: Tokenizer, finished: bool, thinking: bool) -> Reply:
    stream = PlainThoughtStream(tokenizer, thinking)
    thought, answer = (text.strip() for text in map("".join, zip(stream.feed(ids), stream.close())))
    closed = tokenizer.decode(ids).count(tokenizer.marks.end) == stream.has_thought and not stream.thinking
    well_formed = (finished and closed and bool(answer) and stream.encloses_answer
                   and tokenizer.marks.start not in thought + answer)
    return Reply(thought, answer, well_formed, stream.thought_tokens)


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
        super().__init__(thinking and self.end is not None, stop, follows_mark, structured, tokenizer.marks.answer)
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
