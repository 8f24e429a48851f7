"""What the engine asks of whoever computes: one forward pass over a ragged batch, with a cache in blocks.

Two runners answer: TorchRunner (any device, the plain twin) and NativeRunner (a CPU with a compiler).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spoutnik.engine.sampler import SamplingMetadata, sample, uniforms_below_1
from spoutnik.model.config import ModelConfig

BLOCK_SIZE = 16  # tokens in a block of the cache: what prefix sharing counts in


@dataclass
class ForwardBatch:
    """The next tokens of S sequences, one sequence after the other: T tokens in all. All tensors int64 on the CPU.

    tokens (T,): their ids.
    counts (S,): how many of them are each sequence's, at least 1.
    contexts (S,): tokens of each sequence that are in the cache already; the new ones stand at positions contexts[s],
        contexts[s] + 1, ...
    block_tables (S, longest): the blocks of each sequence in order, enough for contexts + counts; what lies beyond is ignored.
    wanted (W,): indices into the T tokens whose logits are asked for, ascending.
    prompt (S,) bool: whether a sequence's new tokens are its prompt's, computed with their whole chunk, or were generated,
        where each is computed as if it came alone: a draft's verification gives the very bits that plain decoding gives.
    """

    tokens: Tensor
    counts: Tensor
    contexts: Tensor
    block_tables: Tensor
    wanted: Tensor
    prompt: Tensor

    @property
    def positions(self) -> Tensor:
        """(T,) the position of each token in its sequence."""
        starts = self.counts.cumsum(0) - self.counts
        return (self.contexts - starts).repeat_interleave(self.counts) + torch.arange(len(self.tokens))


@dataclass
class DecodeBatch:
    """S sequences that are left to generate on their own, a few tokens each. All int64, but for settings.

    tokens (S,): their last tokens, which are not in the cache yet. contexts (S,): how many are.
    tables (S, longest): their blocks, with places for what they will generate.
    seeds (S,), generated (S,): of the random numbers; how many tokens they have generated.
    limits (S,): how many they may. ends (S, most): tokens that end them, -1 for none.
    settings (4, S): temperature, top_p, top_k, min_p.
    """

    tokens: Tensor
    contexts: Tensor
    tables: Tensor
    seeds: Tensor
    generated: Tensor
    limits: Tensor
    ends: Tensor
    settings: Tensor


@dataclass
class MultiStepOutput:
    """What came of it: tokens (S, steps) and their log-probabilities, of which the first counts[s] are there: fewer than
    `steps` where a sequence ended, or was broken (S,): its logits were not finite."""

    tokens: Tensor
    logprobs: Tensor
    counts: Tensor
    broken: Tensor


class Runner(Protocol):
    """Computes batches. The cache's content survives between calls; who owns which block is the scheduler's business.

    max_multi_steps: how many steps `decode_multi_step` makes faster than so many calls of `forward`; 1: none.
    """

    config: ModelConfig
    device: torch.device
    max_multi_steps: int

    @property
    def weights_nbytes(self) -> int:
        """Memory that the weights take."""

    def bytes_per_block(self) -> int:
        """Memory that one block takes in all layers."""

    def allocate(self, blocks: int, mtp: bool = False) -> None:
        """Makes room for `blocks` blocks, with `mtp` for the MTP module's layer too. What was cached is forgotten."""

    def copy_blocks(self, sources: Tensor, targets: Tensor) -> None:
        """Blocks sources (N,) to targets (N,), in all layers."""

    def forward(self, batch: ForwardBatch, states: bool = False) -> tuple[Tensor, Tensor]:
        """Stores the batch's cache entries; returns logits (W, vocabulary) float32 of the wanted tokens, and the states
        after the final norm (T, D) of all tokens: with `states`, or where the cache was allocated with `mtp`; else (0, D)."""

    def draft(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The MTP module over the same batch, after `forward`: hidden (T, D) and each token's successor (T,). Stores its
        cache entries; returns logits (W, vocabulary) of the token after the successor, and its states (T, D)."""

    def draft_multi_step(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor, settings: Tensor) -> Tensor:
        """`draft`, then the module over its own states, one token further each time: settings (ahead, 5, W) decide the tokens
        drawn (temperature, top_p, top_k, min_p, random number); returns them (ahead, W). Its cache entries follow the batch's
        last ones."""

    def decode_multi_step(self, decoding: DecodeBatch, steps: int) -> MultiStepOutput:
        """`forward` and sampling, `steps` times or until all are over: the same tokens, without a word in between."""


def draft_multi_step(runner: Runner, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor, settings: Tensor) -> Tensor:
    """`Runner.draft_multi_step` by a runner's `draft`."""
    logits, states = runner.draft(batch, hidden, next_tokens)
    if not len(batch.wanted):
        return torch.empty(len(settings), 0, dtype=torch.long)
    sequence = torch.bucketize(batch.wanted, batch.counts.cumsum(0), right=True)
    position, states, drawn = batch.positions[batch.wanted], states[batch.wanted], []
    for number, columns in enumerate(settings, start=1):
        drawn.append(sample(logits, SamplingMetadata(*columns))[0])
        if number < len(settings):
            one = torch.ones_like(position)
            following = ForwardBatch(drawn[-1], one, position + number, batch.block_tables[sequence], torch.arange(len(one)),
                                     torch.zeros(len(one), dtype=torch.bool))
            logits, states = runner.draft(following, states, drawn[-1])
    return torch.stack(drawn)


def decode_multi_step(runner: Runner, decoding: DecodeBatch, steps: int) -> MultiStepOutput:
    """`Runner.decode_multi_step` by a runner's `forward`."""
    count, d = len(decoding.tokens), decoding
    made = MultiStepOutput(torch.zeros(count, steps, dtype=torch.long), torch.zeros(count, steps),
                           torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool))
    live, last = torch.arange(count), d.tokens.clone()
    for step in range(steps):
        if not len(live):
            break
        each = torch.arange(len(live))
        logits, _ = runner.forward(ForwardBatch(last[live], torch.ones_like(each), d.contexts[live] + step, d.tables[live],
                                                each,
                                                torch.zeros(len(live), dtype=torch.bool)))
        finite = logits.isfinite().all(-1)
        made.broken[live] = ~finite
        live, generated = live[finite], d.generated[live[finite]] + step
        if not len(live):
            break
        tokens, logprobs = sample(logits[finite], SamplingMetadata(*d.settings[:, live], uniforms_below_1(d.seeds[live],
                                                                                                          generated)))
        last[live], made.tokens[live, step], made.logprobs[live, step] = tokens, tokens, logprobs
        made.counts[live] += 1
        live = live[(generated + 1 < d.limits[live]) & ~(tokens[:, None] == d.ends[live]).any(1)]
    return made
