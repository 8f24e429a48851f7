"""Speculative decoding with the model's own MTP module (DeepSeek-V3, section 5.4.3).

Each step asks the main model about two tokens, the one just chosen and a draft of its successor, and the MTP module for the
next draft. A draft is kept if it is the very token that sampling would have chosen: what comes out is exactly what plain
decoding gives, only sooner. Our sampler makes this simple: the token at a position is a function of the logits and of a
number hashed from seed and position, so the draft is drawn with the same number, and the two agree as often as they can.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.sampling import SamplingParams, sample
from spoutnik.errors import UserError
from spoutnik.model.cache import Cache
from spoutnik.model.packing import Packing
from spoutnik.model.transformer import Transformer


@dataclass
class Acceptance:
    """How many drafts were made, and how many were right."""

    drafted: int = 0
    accepted: int = 0

    @property
    def rate(self) -> float:
        return self.accepted / max(self.drafted, 1)


class SpeculativeDecoder:
    """Rows decoded together, each at its own pace: one or two tokens a step.

    tokens (B,): the last chosen token of each row, not yet in the cache; drafts (B,): the guess of its successor;
    generated (B,): how many tokens each row has chosen; alive (B,): rows that have neither ended nor reached max_tokens.
    """

    def __init__(self, model: Transformer, prompts: list[list[int]], params: SamplingParams, seeds: Tensor, eos_ids: Tensor):
        if model.mtp is None:
            raise UserError("speculative decoding needs a model with an MTP module (num_nextn_predict_layers 1): this one "
                            "has none. Decode it plainly.")
        self.model, self.params, self.seeds, self.eos_ids = model, params, seeds, eos_ids
        self.acceptance = Acceptance()
        lengths = [len(prompt) for prompt in prompts]
        # Two places more than a row may fill: a draft beyond the end is stored before it is dropped.
        self.cache = Cache.empty(model.config, len(prompts), max(lengths) + params.max_tokens + 2, model.compute_dtype,
                                 mtp=True)
        packing = Packing.of(lengths, fill=True)
        ids = torch.tensor([token for prompt in prompts for token in prompt] + [0] * packing.filler)
        self.generated = torch.zeros_like(seeds)
        self.tokens, ahead = model.mtp_prefill(ids, packing, self.cache, lambda hidden: self._choose(hidden, 0))
        self.generated += 1
        self.alive = ~torch.isin(self.tokens, eos_ids) & (self.generated < params.max_tokens)
        self.drafts = self._choose(ahead, 0)

    def step(self) -> tuple[Tensor, Tensor]:
        """Chooses the next one or two tokens of every row: tokens (B, 2), and how many of them count (B,), 0 for rows that
        are over."""
        hidden = self.model.extend(torch.stack([self.tokens, self.drafts], dim=1), self.cache)
        chosen = torch.stack([self._choose(hidden[:, 0], 0), self._choose(hidden[:, 1], 1)], dim=1)
        right = chosen[:, 0] == self.drafts
        ahead = self.model.mtp_extend(hidden, chosen, self.cache)
        self.acceptance.drafted += int(self.alive.sum())
        self.acceptance.accepted += int((right & self.alive).sum())
        last = right & ~torch.isin(chosen[:, 0], self.eos_ids) & (self.generated + 1 < self.params.max_tokens)
        counts = (1 + last.long()) * self.alive
        rows = torch.arange(len(chosen))
        self.cache.advance(counts)
        self.generated += counts
        self.tokens = chosen[rows, (counts - 1).clamp(min=0)]
        self.drafts = self._choose(ahead[rows, (counts - 1).clamp(min=0)], 0)
        self.alive &= ~torch.isin(self.tokens, self.eos_ids) & (self.generated < self.params.max_tokens)
        self.cache.lengths[~self.alive] = 0  # rows that are over write over themselves, never past the cache's end
        return chosen, counts

    def _choose(self, hidden: Tensor, ahead: int) -> Tensor:
        """The token that sampling chooses `ahead` places after the last chosen one, from the states (B, D) before it."""
        tokens, _ = sample(self.model.logits(hidden), self.params, self.seeds, self.generated + ahead)
        return tokens


def speculate(model: Transformer, prompts: list[list[int]], params: SamplingParams, seeds: Tensor,
              eos_ids: Tensor) -> tuple[list[list[int]], Acceptance]:
    """One completion per prompt, the end of sentence included where it came, and how the drafts did."""
    decoder = SpeculativeDecoder(model, prompts, params, seeds, eos_ids)
    completions = [[token] for token in decoder.tokens.tolist()]
    while bool(decoder.alive.any()):
        chosen, counts = decoder.step()
        for tokens, pair, count in zip(completions, chosen.tolist(), counts.tolist()):
            tokens += pair[:count]
    return completions, decoder.acceptance
