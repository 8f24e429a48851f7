"""No answer is empty: a logits processor that has the answer show something before it ends."""

import torch
from torch import Tensor

from spoutnik.engine.llm import LLM


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


def visible_tokens(llm: LLM) -> Tensor:
    """(V,) bool: which tokens are, by themselves, text that can be seen. Computed once for each model."""
    visible = getattr(llm, "visible_tokens", None)
    if visible is None:
        tokenizer = llm.tokenizer
        visible = torch.zeros(llm.config.vocab_size, dtype=torch.bool)
        texts = tokenizer.bpe.decode_batch([[token] for token in range(tokenizer.vocab_size)], skip_special_tokens=True)
        visible[:len(texts)] = torch.tensor([bool(text.strip()) and "\ufffd" not in text for text in texts])
        visible[[mark for mark in (tokenizer.think_id, tokenizer.end_think_id) if mark is not None]] = False
        llm.visible_tokens = visible
    return visible
