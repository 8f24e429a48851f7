"""Changes to a row's logits before a token is chosen: biases, forbidden ends, penalties. In vLLM's order."""

from typing import Protocol

import torch
from torch import Tensor

from spoutnik.engine.sampling_params import SamplingParams


class LogitsProcessor(Protocol):
    """What changes the logits of one sample's next token. done: it has nothing more to change."""

    done: bool

    def feed(self, token: int) -> None:
        """A token that was generated. Raises RunError where none can follow: the sample fails with its sentence."""

    def apply(self, logits: Tensor, generated: int) -> None:
        """logits (V,), changed in place, of the token that follows `generated` ones."""


class PenaltyProcessor:
    """The changes that one sample's parameters ask for, and the tokens that they depend on.

    ends: tokens that must not come before min_tokens.
    """

    done = False

    def __init__(self, params: SamplingParams, prompt: list[int], ends: list[int], vocabulary: int):
        self.params = params
        self.ends = torch.tensor(ends, dtype=torch.long)
        self.biased = torch.tensor(list(params.logit_bias), dtype=torch.long)
        self.biases = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)
        self.counts = torch.zeros(vocabulary) if params.penalised else None  # of each token in the completion
        self.seen = None  # in prompt or completion
        if params.repetition_penalty != 1:
            self.seen = torch.zeros(vocabulary, dtype=torch.bool)
            self.seen[torch.tensor(prompt)] = True

    def feed(self, token: int) -> None:
        if self.counts is not None:
            self.counts[token] += 1
            if self.seen is not None:
                self.seen[token] = True

    def apply(self, logits: Tensor, generated: int) -> None:
        params = self.params
        if len(self.biased):
            logits[self.biased] += self.biases
        if generated < params.min_tokens:
            logits[self.ends] = float("-inf")
        if self.seen is not None:
            penalised = torch.where(logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty)
            logits.copy_(torch.where(self.seen, penalised, logits))
        if params.frequency_penalty or params.presence_penalty:
            logits -= params.frequency_penalty * self.counts + params.presence_penalty * (self.counts > 0)
