"""The sampler: each row's next token. It is a function of the row alone (its logits, parameters, seed and position), never of
what else is in the batch or of which thread runs it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.native import kernels, library
from spoutnik.parallel import cores

_CANDIDATES = 64  # truncation sorts this many tokens first, and all of them only where these do not suffice
_LARGEST = 1 - 2.0 ** -24  # below 1 in float32: rounding up to 1 would leave the range
_64_BITS = 2 ** 64 - 1
GREEDY, UNTRUNCATED, TRUNCATED = 0, 1, 2  # kinds of rows


@dataclass
class SamplingMetadata:
    """Each row's sampling parameters and random number, all (B,) float32. temperature: 0 is greedy. top_k: 0 is off."""

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    min_p: Tensor
    u: Tensor

    @staticmethod
    def of(params: Sequence[SamplingParams], u: Tensor) -> "SamplingMetadata":
        return SamplingMetadata(*sampling_columns(params), u)

    def select(self, rows: Tensor) -> "SamplingMetadata":
        return SamplingMetadata(self.temperature[rows], self.top_p[rows], self.top_k[rows], self.min_p[rows], self.u[rows])


def sampling_columns(params: Sequence[SamplingParams]) -> Tensor:
    """(4, B): temperature, top_p, top_k, min_p."""
    return torch.tensor([[p.temperature, p.top_p, p.top_tokens, p.min_p] for p in params]).T


def row_seed(seed: int, request: int, sample: int) -> int:
    """A row's seed, from a run's seed, the request's number in the run and the sample's index in the request. The random number
    of the row's i-th token is `uniforms(row_seed, i)`."""
    return int(_uniform(seed, request * 100_003 + sample) * 2.0 ** 53)


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """(B,) float64 in [0, 1): the splitmix64 hash of each row's seed and position, without any generator state."""
    z = seeds + (positions + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
    z = (z ^ _shift(z, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    z = (z ^ _shift(z, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return _shift(z ^ _shift(z, 31), 11).double() * 2.0 ** -53


def uniforms_of(pairs: Iterable[tuple[int, int]]) -> Tensor:
    """`uniforms_below_1` of (seed, position) pairs; faster for few of them."""
    return torch.tensor([min(_uniform(seed, position), _LARGEST) for seed, position in pairs], dtype=torch.float32)


def uniforms_below_1(seeds: Tensor, positions: Tensor) -> Tensor:
    """`uniforms` as sampling reads them: float32, still below 1."""
    return uniforms(seeds, positions).to(torch.float32).clamp_(max=_LARGEST)


def _uniform(seed: int, position: int) -> float:
    """`uniforms` for one row, in Python integers."""
    z = (seed + (position + 1) * 0x9E3779B97F4A7C15) & _64_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return ((z ^ (z >> 31)) >> 11) * 2.0 ** -53


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def sample_tokens(logits: Tensor, metadata: SamplingMetadata) -> tuple[Tensor, Tensor]:
    """Samples one token per row. logits (B, V) float32; returns tokens (B,) and their log-probabilities (B,).

    The log-probabilities are those of the tempered distribution before truncation. Without truncation they are the sampling
    distribution's, which reinforcement learning needs (those of a truncated one would bias its ratios).
    """
    if library() is not None and logits.device.type == "cpu":
        return _sample_native(logits, metadata)
    truncated = (metadata.top_p < 1) | (metadata.top_k > 0) | (metadata.min_p > 0)
    kinds = torch.where(metadata.temperature == 0, GREEDY, UNTRUNCATED + truncated.long())
    tokens, log_probs = torch.empty(len(kinds), dtype=torch.long), torch.empty(len(kinds))
    for kind in (GREEDY, UNTRUNCATED, TRUNCATED):
        rows = (kinds == kind).nonzero()[:, 0]
        if len(rows):
            tokens[rows], log_probs[rows] = _sample_plain(logits[rows], metadata.select(rows), kind)
    return tokens, log_probs


def _sample_native(logits: Tensor, metadata: SamplingMetadata) -> tuple[Tensor, Tensor]:
    """All kinds of rows in one pass over each (native/sample.cpp)."""
    logits = logits.contiguous()
    columns = torch.stack([metadata.temperature, metadata.top_p, metadata.top_k, metadata.min_p, metadata.u])
    tokens, log_probs = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
    kernels.call(library(), "sample", None, logits, columns, tokens, log_probs, cores())
    return tokens, log_probs


def _sample_plain(logits: Tensor, metadata: SamplingMetadata, kind: int) -> tuple[Tensor, Tensor]:
    """The plain twin, for rows of one kind."""
    if kind == GREEDY:
        tokens = logits.argmax(-1)
        return tokens, logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
    log_probs = (logits / metadata.temperature[:, None]).log_softmax(-1)
    probs = log_probs.exp()
    tokens = _draw(probs, metadata.u) if kind == UNTRUNCATED else _draw_truncated(probs, metadata)
    return tokens, log_probs.gather(1, tokens[:, None])[:, 0]


def _draw(probs: Tensor, u: Tensor) -> Tensor:
    """Inverts the cumulative distribution: the first index whose cumulated mass exceeds u times the total mass."""
    cumulated = probs.cumsum(-1)
    return torch.searchsorted(cumulated, (u * cumulated[:, -1])[:, None], right=True)[:, 0].clamp(max=probs.shape[1] - 1)


def _draw_truncated(probs: Tensor, metadata: SamplingMetadata) -> Tensor:
    """Draws among the tokens that min_p, top_k and then top_p (of what these two leave) keep."""
    values, tokens = probs.topk(min(_CANDIDATES, probs.shape[1]), dim=-1)
    chosen = tokens.gather(1, _draw(_truncate(values, metadata), metadata.u)[:, None])[:, 0]
    limited = (metadata.top_k > 0) & (metadata.top_k <= _CANDIDATES) | (values[:, -1] < metadata.min_p * values[:, 0])
    enough = limited | (metadata.top_k == 0) & (metadata.min_p == 0) & (values.sum(-1) >= metadata.top_p)
    if values.shape[1] < probs.shape[1] and not bool(enough.all()):
        short = (~enough).nonzero()[:, 0]
        values, tokens = probs[short].sort(dim=-1, descending=True)
        metadata = metadata.select(short)
        chosen[short] = tokens.gather(1, _draw(_truncate(values, metadata), metadata.u)[:, None])[:, 0]
    return chosen


def _truncate(values: Tensor, metadata: SamplingMetadata) -> Tensor:
    """Probabilities (B, N), each row in descending order, with zeros for those that are cut off."""
    top_k, rank = metadata.top_k[:, None], torch.arange(values.shape[1])
    values = values.masked_fill((top_k > 0) & (rank >= top_k) | (values < metadata.min_p[:, None] * values[:, :1]), 0.0)
    # Without top_k and min_p the total mass is 1, even where these values are only the first candidates.
    limited = (metadata.top_k > 0) | (metadata.min_p > 0)
    mass = torch.where(limited, values.sum(-1), 1.0)[:, None]
    top_p = metadata.top_p[:, None]
    # The fewest most likely tokens that hold top_p of the mass (Holtzman et al. 2020).
    return values.masked_fill((values.cumsum(-1) - values >= top_p * mass) & (top_p < 1), 0.0)


def gather_logprobs(logits: Tensor, count: int, tokens: Sequence[int]) -> list[dict[int, float]]:
    """For each row of raw logits (B, V), the `count` likeliest tokens and the row's own of `tokens`, as {id: log-probability}
    under the model's own distribution."""
    log_probs = logits.log_softmax(-1)
    values, ids = log_probs.topk(min(count, logits.shape[1]), dim=-1)
    own = log_probs.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    return [dict(zip(row_ids, row)) | {token: mine}
            for row_ids, row, token, mine in zip(ids.tolist(), values.tolist(), tokens, own.tolist())]
