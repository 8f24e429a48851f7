"""Ragged batches for runners. Shared by the tests."""

import tiny
import torch

from spoutnik.engine.runners.base import BLOCK_SIZE, ForwardBatch
from spoutnik.model.packing import PackedSequences

LENGTHS = (3, 50, 17)


def batch_of(ids: list[torch.Tensor], contexts: list[int], prompt: bool | list[bool], tables: torch.Tensor,
             all_logits: bool = True) -> ForwardBatch:
    counts = torch.tensor([len(part) for part in ids])
    logits_indices = torch.arange(int(counts.sum())) if all_logits else counts.cumsum(0) - 1
    prompts = torch.tensor([prompt] * len(ids) if isinstance(prompt, bool) else prompt)
    return ForwardBatch(torch.cat(ids), counts, torch.tensor(contexts), tables, logits_indices, prompts)


def sequences(lengths=LENGTHS, vocabulary: int = 64) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Token ids of some sequences, and tables that mix their blocks."""
    ids = [tiny.tokens(length, vocab=vocabulary, seed=length) for length in lengths]
    blocks = max(lengths) // BLOCK_SIZE + 1
    return ids, torch.randperm(len(lengths) * blocks, generator=torch.Generator().manual_seed(3)).view(-1, blocks)


@torch.no_grad()
def plain_logits(model, ids: list[torch.Tensor]) -> torch.Tensor:
    return model.logits(model.hidden(torch.cat(ids), PackedSequences.of([len(part) for part in ids])))
