"""No answer is empty: logits processors that have the answer show something before it ends."""

from functools import cached_property

import torch
from torch import Tensor

from spoutnik.engine.llm import LLM
from spoutnik.text.thought_marks import ThoughtMarks


class TokenTexts:
    """What each token of a model is by itself, as a text."""

    def __init__(self, llm: LLM):
        tokenizer, self._vocab_size = llm.tokenizer, llm.config.vocab_size
        self.texts = tokenizer.bpe.decode_batch([[token] for token in range(tokenizer.vocab_size)], skip_special_tokens=True)
        self._marks = [mark for mark in (tokenizer.think_id, tokenizer.end_think_id) if mark is not None]
        self._ids: dict[tuple[str, str, bool], Tensor] = {}

    @cached_property
    def visible(self) -> Tensor:
        """(V,) bool: those that can be seen."""
        visible = torch.zeros(self._vocab_size, dtype=torch.bool)
        visible[:len(self.texts)] = torch.tensor([bool(text.strip()) and "\ufffd" not in text for text in self.texts])
        visible[self._marks] = False
        return visible

    def of_token(self, token: int) -> str:
        return self.texts[token] if token < len(self.texts) else ""  # models have rows that are no tokens

    def of_mark(self, begun: str, mark: str, partly: bool) -> Tensor:
        """Ids of the tokens that complete a mark in plain text, of which `begun` is there. partly: those that only go on with
        it, too."""
        key = (begun, mark, partly)
        if key not in self._ids:
            self._ids[key] = torch.tensor([token for token, text in enumerate(self.texts)
                                           if _goes_on(begun, text, mark, partly)], dtype=torch.long)
        return self._ids[key]


def _goes_on(begun: str, text: str, mark: str, partly: bool) -> bool:
    text = begun + text if begun else text.lstrip()
    return text.startswith(mark) or partly and len(text) > len(begun) and mark.startswith(text)


def token_texts(llm: LLM) -> TokenTexts:
    """Computed once for each model."""
    texts = getattr(llm, "token_texts", None)
    if texts is None:
        texts = llm.token_texts = TokenTexts(llm)
    return texts


class NonemptyAnswerProcessor:
    """Until a visible token was generated, forbids those that end the answer; the last one must be visible. visible: (V,) bool.
    ends: (E,) ids."""

    def __init__(self, visible: Tensor, ends: Tensor, max_tokens: int):
        self.visible, self.ends, self.max_tokens = visible, ends, max_tokens
        self.done = False

    def feed(self, token: int) -> None:
        self.done = self.done or bool(self.visible[token])

    def apply(self, logits: Tensor, num_generated: int) -> None:
        if not self.done:
            logits[self.ends] = float("-inf")
            if num_generated + 1 >= self.max_tokens:
                logits[~self.visible] = float("-inf")


class MarkProcessor:
    """Until an answer has begun, forbids the marks of thought in plain text that it must not begin with: after a thought its
    end again, and from the token number max_open on, or where that is 0, another thought. The last token is no part of one."""

    def __init__(self, texts: TokenTexts, marks: ThoughtMarks, after_thought: bool, max_tokens: int, max_open: int):
        self.texts, self.max_tokens, self.max_open = texts, max_tokens, max_open
        self.end, self.marks = marks.end, marks.pair[:2 if after_thought else 1]
        self.done, self._begun = False, ""

    def feed(self, token: int) -> None:
        self._begun = (self._begun + self.texts.of_token(token)).lstrip()
        self.done = self.done or not any(mark.startswith(self._begun) for mark in self.marks)

    def apply(self, logits: Tensor, num_generated: int) -> None:
        if self.done:
            return
        last = num_generated + 1 >= self.max_tokens
        for mark in self.marks:
            if last or mark == self.end or num_generated >= self.max_open:
                logits[self.texts.of_mark(self._begun, mark, last)] = float("-inf")
