"""Logits processors: changes to a sample's logits before its next token is chosen, in vLLM's order."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.text.tokenizer import Tokenizer


class LogitsProcessor(Protocol):
    """Changes the logits of one sample's next token. done: it will change nothing more."""

    done: bool

    def feed(self, token: int) -> None:
        """A token was generated. Raises RunError where none can follow: the sample fails with its sentence."""

    def apply(self, logits: Tensor, num_generated: int) -> None:
        """logits (V,), changed in place, of the token that follows `num_generated` ones."""


class PenaltyProcessor:
    """Logit biases, the ban on ends before min_tokens, and penalties on tokens seen before.

    stop_ids: tokens that must not come before min_tokens.
    """

    done = False

    def __init__(self, params: SamplingParams, prompt: list[int], stop_ids: list[int], vocab_size: int):
        self.params = params
        self.stop_ids = torch.tensor(stop_ids, dtype=torch.long)
        self.biased = torch.tensor(list(params.logit_bias), dtype=torch.long)
        self.biases = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)
        self.counts = torch.zeros(vocab_size) if params.has_penalties else None  # of each token in the completion
        self.seen = None  # in prompt or completion
        if params.repetition_penalty != 1:
            self.seen = torch.zeros(vocab_size, dtype=torch.bool)
            self.seen[torch.tensor(prompt)] = True

    def feed(self, token: int) -> None:
        if self.counts is not None:
            self.counts[token] += 1
            if self.seen is not None:
                self.seen[token] = True

    def apply(self, logits: Tensor, num_generated: int) -> None:
        params = self.params
        if len(self.biased):
            logits[self.biased] += self.biases
        if num_generated < params.min_tokens:
            logits[self.stop_ids] = float("-inf")
        if self.seen is not None:
            penalized = torch.where(logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty)
            logits.copy_(torch.where(self.seen, penalized, logits))
        if params.frequency_penalty or params.presence_penalty:
            logits -= params.frequency_penalty * self.counts + params.presence_penalty * (self.counts > 0)


class AllowedTokensProcessor:
    """No other token may come."""

    done = False

    def __init__(self, allowed: Sequence[int], vocab_size: int):
        self.forbidden = torch.ones(vocab_size, dtype=torch.bool)
        self.forbidden[torch.tensor(allowed)] = False

    def feed(self, token: int) -> None:
        pass

    def apply(self, logits: Tensor, num_generated: int) -> None:
        logits[self.forbidden] = float("-inf")


class BadWordsProcessor:
    """Of each sequence of tokens, the last one may not come after the others. (As in vLLM: the word as the tokenizer writes it
    is forbidden, not each way to spell it.)"""

    done = False

    def __init__(self, sequences: Sequence[Sequence[int]]):
        self.sequences = [(list(sequence[:-1]), sequence[-1]) for sequence in sequences]
        self._last: deque[int] = deque(maxlen=max(map(len, sequences), default=0))

    @staticmethod
    def of(words: Sequence[str], tokenizer: Tokenizer) -> "BadWordsProcessor":
        """Each word with and without a space before it."""
        sequences = [tuple(tokenizer.encode(space + word.lstrip(" "), continues=True)) for word in words for space in ("", " ")]
        return BadWordsProcessor([sequence for sequence in dict.fromkeys(sequences) if sequence])

    def feed(self, token: int) -> None:
        self._last.append(token)

    def apply(self, logits: Tensor, num_generated: int) -> None:
        last = list(self._last)
        for before, token in self.sequences:
            if not before or last[-len(before):] == before:
                logits[token] = float("-inf")
