"""Choosing the next token. Everything here is a function of the row alone: its logits, its parameters, its seed and its
position, never of what else is in the batch or of which thread runs it."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.native import library

_CANDIDATES = 64  # top-p looks at this many tokens first, at all of them only where they do not hold the mass


@dataclass(frozen=True)
class SamplingParams:
    """temperature 0 is greedy. max_tokens counts every generated token, the end of sentence included."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 256

    def __post_init__(self):
        if not 0 <= self.temperature <= 10:
            raise UserError(f"temperature = {self.temperature}: must lie in 0..10.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p = {self.top_p}: must lie in (0, 1].")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens = {self.max_tokens}: must be at least 1.")


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """(B,) numbers in [0, 1), a hash (splitmix64) of each row's seed and position: no generator, no shared state."""
    z = seeds + (positions + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
    z = (z ^ _shift(z, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    z = (z ^ _shift(z, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return _shift(z ^ _shift(z, 31), 11).double() * 2.0 ** -53


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own keeps the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def sample(logits: Tensor, params: SamplingParams, seeds: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row. logits (B, V) float32; returns tokens (B,) and their log-probabilities (B,).

    The log-probabilities are those of the tempered distribution before top-p: at top_p 1 they are exactly the sampling
    distribution's, which is what reinforcement learning needs (a truncated one would bias its ratios).
    """
    if params.temperature == 0:
        log_probs = logits.log_softmax(-1)
        tokens = logits.argmax(-1)
        return tokens, log_probs.gather(1, tokens[:, None])[:, 0]
    u = uniforms(seeds, positions).to(torch.float32).clamp_(max=1 - 2.0**-24)  # rounding up to 1 would leave the range
    if params.top_p == 1 and logits.device.type == "cpu" and library() is not None:
        return _draw_native(logits, u, params.temperature)
    log_probs = (logits / params.temperature).log_softmax(-1)
    tokens = _draw(log_probs.exp(), u) if params.top_p == 1 else _draw_nucleus(log_probs.exp(), u, params.top_p)
    return tokens, log_probs.gather(1, tokens[:, None])[:, 0]


def _draw(probs: Tensor, u: Tensor) -> Tensor:
    """Inverse of the cumulative distribution: the first index whose cumulated mass exceeds u times the whole mass."""
    cumulated = probs.cumsum(-1)
    return torch.searchsorted(cumulated, (u * cumulated[:, -1])[:, None], right=True)[:, 0].clamp(max=probs.shape[1] - 1)


def _draw_native(logits: Tensor, u: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Softmax, `_draw` and the log-probability in one pass over each row."""
    logits = logits.contiguous()
    tokens, log_probs = torch.empty_like(u, dtype=torch.long), torch.empty_like(u)
    library().draw(*(ctypes.c_void_p(t.data_ptr()) for t in (logits, u, tokens, log_probs)),
                   *map(ctypes.c_int64, logits.shape), ctypes.c_float(temperature))
    return tokens, log_probs


def _draw_nucleus(probs: Tensor, u: Tensor, top_p: float) -> Tensor:
    """Draws among the fewest most likely tokens that hold `top_p` of the mass (Holtzman et al. 2020)."""
    values, tokens = probs.topk(min(_CANDIDATES, probs.shape[1]), dim=-1)
    if bool((values.sum(-1) < top_p).any()):
        values, tokens = probs.sort(dim=-1, descending=True)
    before = values.cumsum(-1) - values
    chosen = _draw(values.masked_fill(before >= top_p, 0.0), u)
    return tokens.gather(1, chosen[:, None])[:, 0]
