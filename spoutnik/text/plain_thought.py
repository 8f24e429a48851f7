"""Thoughts whose marks are plain text: fine-tunes that write `</think>` with a tokenizer that has no token for it.

The marks are found in the text, which comes in tokens that may hold a part of a mark and something else. They count only
where a thought begins or ends: `<think>` as the first text of a reply (or of what follows a thought), `</think>` in a thought.
A model that talks about `<think>` in the middle of an answer is not cut.
"""

from collections.abc import Sequence
from functools import lru_cache

from spoutnik.text.detokenization import IncrementalDetokenizer
from spoutnik.text.reply_text import ReplyStream, StopTexts, half_at_end
from spoutnik.text.tokenizer import Tokenizer


class PlainThoughtStream(ReplyStream):
    """The parser on a stream, with the interface of ThoughtStream. Any division of the ids gives the same.

    thought_tokens: those that hold text of thoughts, also what may yet become a mark. has_thought: there was one, here or in
    the prompt. overshoot: what the token that completed the last mark held after it. structured: what a token that ends the
    thought holds of the answer is left out, but for white space, since the form begins anew.
    """

    start = end = None

    def __init__(self, tokenizer: Tokenizer, thinking: bool, stop: Sequence[str] | StopTexts = (), keep_special: bool = False,
                 follows_mark: bool | None = None, structured: bool = False, before: Sequence[int] = ()):
        super().__init__(thinking, stop, follows_mark, structured, tokenizer.marks.answer)
        self._marks = tokenizer.marks
        self.has_thought, self.overshoot = thinking or self._follows_mark, ""
        self._keep_special, self._structured = keep_special, structured
        self._detokenizer = IncrementalDetokenizer(tokenizer, keep_special and not thinking, before)
        self._begun = thinking and not self._follows_mark  # the current part has more than white space
        self._held = ""  # may be the beginning of a mark
        self._starts: list[int] = []  # of the thought's tokens in the held text: where each begins
        self._new = {True: [], False: []}

    @property
    def half_mark(self) -> str:
        """What of the mark that ends a thought has come; a single `<` may be anything."""
        return self._held if self.thinking and len(self._held) > 1 and self._marks.end.startswith(self._held) else ""

    @property
    def may_turn(self) -> bool:
        """Whether a mark may end the current part: in a thought, and where the answer has not begun."""
        return self.thinking or not self._begun

    def feed(self, ids: Sequence[int]) -> tuple[str, str]:
        """Returns the new text: (thought, answer)."""
        for index, token in enumerate(ids):
            if self._begun and not self.thinking and not self.expects_end:
                self._new[False].append(self._answer.feed(self._detokenizer.feed(ids[index:])))
                break
            if self.thinking:
                self._starts.append(len(self._held))
                self.thought_tokens += 1
            self._read(self._detokenizer.feed([token]))
        return self._take()

    def close(self, cut: bool = False) -> tuple[str, str]:
        """No id follows: returns what was held back, (thought, answer). cut: the model would have gone on, so that half a mark
        is no text."""
        self._read(self._detokenizer.close())
        if not (cut and len(self._held) > 1):
            self._pass_on(self._held)
        self._held = ""
        self._new[False].append(self._answer.close(cut))
        return self._take()

    def _take(self) -> tuple[str, str]:
        thought, answer = ("".join(self._new[part]) for part in (True, False))
        self._new = {True: [], False: []}
        return thought, answer

    def _pass_on(self, text: str) -> None:
        self._new[self.thinking].append((self._thought if self.thinking else self._answer).feed(text))

    def _read(self, text: str) -> None:
        text, self._held = self._held + text, ""
        while text:
            size, mark = self._find_mark(text)
            self._pass_on(text[:size])
            self._begun = self._begun or not text[:size].isspace() and size > 0
            self._settle(size)
            text = text[size:]
            if mark is None:
                self._held = text
                return
            self._settle(len(mark), counted=False)
            text = self.overshoot = text[len(mark):]
            if self._structured and mark == self._marks.end and text.strip():
                text = ""
            if mark == self._marks.start or self.thinking:
                self._turn(mark == self._marks.start)
            else:
                self.expects_end = False

    def _find_mark(self, text: str) -> tuple[int, str | None]:
        """How much of the text comes before a mark that counts, and that mark; None where it is not there, or not all of it."""
        if self._begun and not self.thinking and not self.expects_end:
            return len(text), None
        if self._begun:
            end = self._marks.end
            at = text.find(end)
            return (at, end) if at >= 0 else (len(text) - half_at_end(text, end), None)
        rest = text.lstrip()
        space = len(text) - len(rest)
        marks = self._marks.pair[:2 if self.has_thought else 1]  # a second one of either kind says nothing new
        for mark in marks:
            if rest.startswith(mark):
                return space, mark
        if any(mark.startswith(rest) for mark in marks):
            return space, None
        self._begun = True
        return self._find_mark(text)

    def _turn(self, thinking: bool) -> None:
        """A thought begins or ends."""
        self.thinking, self.has_thought, self._begun = thinking, True, False
        self._detokenizer.keep_special = self._keep_special and not thinking
        self._answer.after_mark()

    def _settle(self, size: int, counted: bool = True) -> None:
        """So much of the held text has become thought, or a mark, which does not count."""
        if not counted:
            self.thought_tokens -= sum(start < size for start in self._starts)
        self._starts = [start - size for start in self._starts if start >= size]


def prompt_tail(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """What a prompt ends with: the text after its last special token, which opened the assistant's message. Of a prompt that
    has none but at its beginning nothing tells the assistant's text from the user's, so that only a mark at its end counts."""
    special = _special_ids(tokenizer)
    last = next((index for index in range(len(ids) - 1, 0, -1) if ids[index] in special), 0)
    text = tokenizer.decode(list(ids[last:] if last else ids[-32:]))
    if last:
        return text
    ending = text.rstrip()
    return next((mark for mark in tokenizer.marks.pair if ending.endswith(mark)), "")


def opens_plain_thought(ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether a prompt ends inside a thought."""
    tail = prompt_tail(ids, tokenizer)
    return tail.rfind(tokenizer.marks.start) > tail.rfind(tokenizer.marks.end)


def follows_plain_mark(ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether nothing but white space follows the last mark of a prompt's end."""
    return prompt_tail(ids, tokenizer).rstrip().endswith(tokenizer.marks.pair)


@lru_cache(maxsize=16)
def _special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    added = tokenizer.bpe.get_added_tokens_decoder()
    return frozenset({*tokenizer.eos_ids, *(token_id for token_id, token in added.items() if token.special)})
