"""Choosing the next token. Everything here is a function of the row alone: its logits, its parameters, its seed and its
position, never of what else is in the batch or of which thread runs it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.native import kernels, library
from spoutnik.parallel import cores

_CANDIDATES = 64  # truncation looks at this many tokens first, at all of them only where these do not suffice
_LARGEST = 1 - 2.0 ** -24  # below 1 in float32: rounding up to 1 would leave the range
_64_BITS = 2 ** 64 - 1
GREEDY, WHOLE, TRUNCATED = 0, 1, 2  # kinds of rows: the likeliest token, any token, one of the likeliest


@dataclass
class SamplingMetadata:
    """What decides each row's choice, all (B,) float32: temperature, truncation (top_k 0 for off) and a random number."""

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    min_p: Tensor
    u: Tensor

    @staticmethod
    def of(params: Sequence[SamplingParams], u: Tensor) -> "SamplingMetadata":
        return SamplingMetadata(*columns_of(params), u)

    def select(self, rows: Tensor) -> "SamplingMetadata":
        return SamplingMetadata(self.temperature[rows], self.top_p[rows], self.top_k[rows], self.min_p[rows], self.u[rows])


def columns_of(params: Sequence[SamplingParams]) -> Tensor:
    """(4, B): temperature, top_p, top_k, min_p."""
    return torch.tensor([[p.temperature, p.top_p, p.top_tokens, p.min_p] for p in params]).T


def kinds_of(temperature: Tensor, top_p: Tensor, top_k: Tensor, min_p: Tensor) -> Tensor:
    """(B,) GREEDY, WHOLE or TRUNCATED."""
    truncated = (top_p < 1) | (top_k > 0) | (min_p > 0)
    return torch.where(temperature == 0, GREEDY, WHOLE + truncated.long())


def row_seed(seed: int, request: int, sample: int) -> int:
    """The seed of a row, from a run's seed, the request's number in it and the sample's number in its group. The random number
    of the row's i-th token is then `uniforms(seed, i)`: the same (seed, request, sample, i) gives the same number."""
    return int(_uniform(seed, request * 100_003 + sample) * 2.0 ** 53)


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """(B,) numbers in [0, 1), a hash (splitmix64) of each row's seed and position: no generator, no shared state."""
    z = seeds + (positions + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
    z = (z ^ _shift(z, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    z = (z ^ _shift(z, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return _shift(z ^ _shift(z, 31), 11).double() * 2.0 ** -53


def uniforms_of(pairs: Iterable[tuple[int, int]]) -> Tensor:
    """The random numbers of (seed, position) pairs as sampling reads them: float32, below 1."""
    return torch.tensor([min(_uniform(seed, position), _LARGEST) for seed, position in pairs], dtype=torch.float32)


def uniforms_below_1(seeds: Tensor, positions: Tensor) -> Tensor:
    """The same for many, (B,) each."""
    return uniforms(seeds, positions).to(torch.float32).clamp_(max=_LARGEST)


def _uniform(seed: int, position: int) -> float:
    """`uniforms` for one row: with few of them, integers are quicker than tensors."""
    z = (seed + (position + 1) * 0x9E3779B97F4A7C15) & _64_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return ((z ^ (z >> 31)) >> 11) * 2.0 ** -53


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own keeps the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def sample(logits: Tensor, settings: SamplingMetadata) -> tuple[Tensor, Tensor]:
    """One token per row. logits (B, V) float32; returns tokens (B,) and their log-probabilities (B,).

    The log-probabilities are those of the tempered distribution before truncation: without any they are exactly the
    sampling distribution's, which is what reinforcement learning needs (a truncated one would bias its ratios).
    """
    if library() is not None and logits.device.type == "cpu":
        return _sample_native(logits, settings)
    kinds = kinds_of(settings.temperature, settings.top_p, settings.top_k, settings.min_p)
    tokens, log_probs = torch.empty(len(kinds), dtype=torch.long), torch.empty(len(kinds))
    for kind in (GREEDY, WHOLE, TRUNCATED):
        rows = (kinds == kind).nonzero()[:, 0]
        if len(rows):
            tokens[rows], log_probs[rows] = _sample_plain(logits[rows], settings.select(rows), kind)
    return tokens, log_probs


def _sample_native(logits: Tensor, settings: SamplingMetadata) -> tuple[Tensor, Tensor]:
    """All kinds of rows in one pass over each (native/sample.cpp)."""
    logits = logits.contiguous()
    columns = torch.stack([settings.temperature, settings.top_p, settings.top_k, settings.min_p, settings.u])
    tokens, log_probs = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
    kernels.call(library(), "sample", None, logits, columns, tokens, log_probs, cores())
    return tokens, log_probs


def _sample_plain(logits: Tensor, settings: SamplingMetadata, kind: int) -> tuple[Tensor, Tensor]:
    """The plain twin, for rows of one kind."""
    if kind == GREEDY:
        tokens = logits.argmax(-1)
        return tokens, logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
    log_probs = (logits / settings.temperature[:, None]).log_softmax(-1)
    probs = log_probs.exp()
    tokens = _draw(probs, settings.u) if kind == WHOLE else _draw_truncated(probs, settings.u, settings)
    return tokens, log_probs.gather(1, tokens[:, None])[:, 0]


def _draw(probs: Tensor, u: Tensor) -> Tensor:
    """Inverse of the cumulative distribution: the first index whose cumulated mass exceeds u times the whole mass."""
    cumulated = probs.cumsum(-1)
    return torch.searchsorted(cumulated, (u * cumulated[:, -1])[:, None], right=True)[:, 0].clamp(max=probs.shape[1] - 1)


def _draw_truncated(probs: Tensor, u: Tensor, settings: SamplingMetadata) -> Tensor:
    """Draws among the likeliest tokens only, those that min_p, top_k and then top_p (of what these two leave) let pass."""
    values, tokens = probs.topk(min(_CANDIDATES, probs.shape[1]), dim=-1)
    chosen = tokens.gather(1, _draw(_kept(values, settings), u)[:, None])[:, 0]
    limited = (settings.top_k > 0) & (settings.top_k <= _CANDIDATES) | (values[:, -1] < settings.min_p * values[:, 0])
    enough = limited | (settings.top_k == 0) & (settings.min_p == 0) & (values.sum(-1) >= settings.top_p)
    if values.shape[1] < probs.shape[1] and not bool(enough.all()):
        short = (~enough).nonzero()[:, 0]
        values, tokens = probs[short].sort(dim=-1, descending=True)
        drawn = _draw(_kept(values, settings.select(short)), u[short])
        chosen[short] = tokens.gather(1, drawn[:, None])[:, 0]
    return chosen


def _kept(values: Tensor, settings: SamplingMetadata) -> Tensor:
    """Probabilities in falling order, 0 where they are cut off."""
    top_k, rank = settings.top_k[:, None], torch.arange(values.shape[1])
    kept = values.masked_fill((top_k > 0) & (rank >= top_k) | (values < settings.min_p[:, None] * values[:, :1]), 0.0)
    # Without top_k and min_p the mass is 1, whether all tokens are among these values or not.
    limited = (settings.top_k > 0) | (settings.min_p > 0)
    mass = torch.where(limited, kept.sum(-1), 1.0)[:, None]
    top_p = settings.top_p[:, None]
    # The fewest most likely tokens that hold top_p of the mass (Holtzman et al. 2020).
    return kept.masked_fill((kept.cumsum(-1) - kept >= top_p * mass) & (top_p < 1), 0.0)


def likeliest(logits: Tensor, count: int, tokens: Sequence[int]) -> list[dict[int, float]]:
    """For each row of raw logits (B, V), the `count` likeliest tokens and the row's own of `tokens`: id -> log-probability
    under the model's own distribution."""
    log_probs = logits.log_softmax(-1)
    values, ids = log_probs.topk(min(count, logits.shape[1]), dim=-1)
    own = log_probs.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    return [dict(zip(row_ids, row)) | {token: mine}
            for row_ids, row, token, mine in zip(ids.tolist(), values.tolist(), tokens, own.tolist())]
