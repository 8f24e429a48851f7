"""The interface of runners: forward passes over ragged batches, with a cache in blocks.

Implemented by TorchRunner (any device, the plain twin) and NativeRunner (a CPU with a compiler).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spoutnik.engine.sampler import SamplingMetadata, sample_tokens, uniforms_below_1
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LowRank

BLOCK_SIZE = 16  # tokens per block of the cache; prefixes are shared in whole blocks


@dataclass
class ForwardBatch:
    """The next tokens of S sequences, one sequence after the other, T tokens in all. Tensors on the CPU, int64 but for prompt.

    tokens (T,): token ids.
    counts (S,): how many of the tokens belong to each sequence, at least 1.
    contexts (S,): tokens of each sequence in the cache already; the new ones are at positions contexts[s], contexts[s] + 1, ...
    block_tables (S, width): each sequence's blocks in order, enough for contexts + counts; further entries are ignored.
    logits_indices (W,): indices into the T tokens whose logits are returned, ascending.
    prompt (S,) bool: the new tokens belong to the prompt and are computed together. Generated tokens are computed as if each
        came alone, so that verifying drafts gives exactly the bits of plain decoding.
    adapters (S,): the number of each sequence's adapter (`Runner.set_adapter`), -1 for the base; None: all are the base's.
    """

    tokens: Tensor
    counts: Tensor
    contexts: Tensor
    block_tables: Tensor
    logits_indices: Tensor
    prompt: Tensor
    adapters: Tensor | None = None

    @property
    def positions(self) -> Tensor:
        """(T,) each token's position in its sequence."""
        starts = self.counts.cumsum(0) - self.counts
        return (self.contexts - starts).repeat_interleave(self.counts) + torch.arange(len(self.tokens))


@dataclass
class DecodeBatch:
    """S sequences that generate several tokens each. All int64 but for settings.

    tokens (S,): each sequence's last token, not in the cache yet. contexts (S,): tokens in the cache.
    tables (S, width): their blocks, with slots for what they will generate.
    seeds (S,): of random numbers. generated (S,): tokens generated so far, of at most limits (S,).
    ends (S, width): tokens that end each sequence, -1 for none.
    settings (4, S) float32: temperature, top_p, top_k, min_p.
    adapters: as of ForwardBatch.
    """

    tokens: Tensor
    contexts: Tensor
    tables: Tensor
    seeds: Tensor
    generated: Tensor
    limits: Tensor
    ends: Tensor
    settings: Tensor
    adapters: Tensor | None = None


@dataclass
class MultiStepOutput:
    """tokens (S, steps) and their log-probabilities, valid up to counts (S,): fewer than `steps` where a sequence ended, or was
    broken (S,) bool by logits that are not finite."""

    tokens: Tensor
    logprobs: Tensor
    counts: Tensor
    broken: Tensor


class Runner(Protocol):
    """Computes batches. The cache's content persists between calls; the scheduler decides which block belongs to whom.

    max_multi_steps: how many steps `decode_multi_step` computes faster than as many calls of `forward`; 1 for none.
    """

    config: ModelConfig
    device: torch.device
    max_multi_steps: int

    @property
    def weights_nbytes(self) -> int:
        """Bytes of memory that the weights take."""

    def check_files(self) -> None:
        """In microseconds. Raises RunError: a file that weights are still read from was changed."""

    def bytes_per_block(self) -> int:
        """Bytes of one block in all layers (without the MTP module's)."""

    def allocate(self, blocks: int, mtp: bool = False) -> None:
        """Allocates an empty cache of `blocks` blocks; with `mtp`, for the MTP module's layer too."""

    def copy_blocks(self, sources: Tensor, targets: Tensor) -> None:
        """Copies blocks sources (N,) to targets (N,), in all layers."""

    def pack_adapter(self, parts: Mapping[str, LowRank]) -> object:
        """An adapter in the form that this runner computes, by the names of its linear maps; without DoRA's magnitudes. May be
        called in another thread than the rest."""

    def set_adapter(self, number: int, packed: object | None) -> None:
        """From the next batch on, this number (0, 1, 2, ...) means that adapter, or none."""

    def forward(self, batch: ForwardBatch, states: bool = False) -> tuple[Tensor, Tensor]:
        """Stores the batch's cache entries. Returns logits (W, V) float32, and all tokens' states after the final norm (T, D);
        the latter only with `states`, or where the cache was allocated with `mtp`, else (0, D)."""

    def draft(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The MTP module over the same batch, after `forward`, from hidden (T, D) and each token's successor (T,). Stores its
        cache entries; returns logits (W, V) of the token after the successor, and its states (T, D). Adapters leave the module
        as it is; `hidden` comes of them."""

    def draft_multi_step(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor, settings: Tensor) -> Tensor:
        """`draft`, then the module over its own states, one token further each time. settings (drafts, 5, W): temperature,
        top_p, top_k, min_p and random number of each draft. Returns the drafts (drafts, W). Their cache entries follow the
        batch's."""

    def decode_multi_step(self, decoding: DecodeBatch, steps: int) -> MultiStepOutput:
        """`forward` and sampling, up to `steps` times, in one call: the same tokens."""


def draft_multi_step(runner: Runner, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor, settings: Tensor) -> Tensor:
    """`Runner.draft_multi_step` by calls of `draft`."""
    logits, states = runner.draft(batch, hidden, next_tokens)
    if not len(batch.logits_indices):
        return torch.empty(len(settings), 0, dtype=torch.long)
    sequence = torch.bucketize(batch.logits_indices, batch.counts.cumsum(0), right=True)
    position, states, drafts = batch.positions[batch.logits_indices], states[batch.logits_indices], []
    for number, columns in enumerate(settings, start=1):
        drafts.append(sample_tokens(logits, SamplingMetadata(*columns))[0])
        if number < len(settings):
            one = torch.ones_like(position)
            following = ForwardBatch(drafts[-1], one, position + number, batch.block_tables[sequence], torch.arange(len(one)),
                                     torch.zeros(len(one), dtype=torch.bool))
            logits, states = runner.draft(following, states, drafts[-1])
    return torch.stack(drafts)


def decode_multi_step(runner: Runner, decoding: DecodeBatch, steps: int) -> MultiStepOutput:
    """`Runner.decode_multi_step` by calls of `forward`."""
    count, d = len(decoding.tokens), decoding
    output = MultiStepOutput(torch.zeros(count, steps, dtype=torch.long), torch.zeros(count, steps),
                             torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool))
    live, last = torch.arange(count), d.tokens.clone()
    for step in range(steps):
        if not len(live):
            break
        each = torch.arange(len(live))
        logits, _ = runner.forward(ForwardBatch(last[live], torch.ones_like(each), d.contexts[live] + step, d.tables[live],
                                                each, torch.zeros(len(live), dtype=torch.bool),
                                                None if d.adapters is None else d.adapters[live]))
        finite = logits.isfinite().all(-1)
        output.broken[live] = ~finite
        live = live[finite]
        if not len(live):
            break
        generated = d.generated[live] + step
        metadata = SamplingMetadata(*d.settings[:, live], uniforms_below_1(d.seeds[live], generated))
        tokens, logprobs = sample_tokens(logits[finite], metadata)
        last[live], output.tokens[live, step], output.logprobs[live, step] = tokens, tokens, logprobs
        output.counts[live] += 1
        live = live[(generated + 1 < d.limits[live]) & ~(tokens[:, None] == d.ends[live]).any(1)]
    return output
