"""Embeddings: the mean of a model's last hidden states."""

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.engine.runners.base import ForwardBatch, Runner
from spoutnik.engine.scheduler import Scheduler, num_blocks_for
from spoutnik.errors import RunError

PIECE = 128  # tokens computed between two steps of the engine; always as many, so that a vector never depends on the load


def embed_in_pieces(runner: Runner, scheduler: Scheduler, prompt: list[int],
                    adapter: int = -1) -> Generator[None, None, Tensor]:
    """Returns (D,) float32 of length 1, for the token ids of one text. Each `next` computes a piece of it between two steps of
    the engine; the engine may step in between. It borrows free blocks of the cache until its end. adapter: its number, -1 for
    the base.

    Raises:
        RunError: too few blocks are free, or requests needed them back.
    """
    blocks, total = scheduler.lend(num_blocks_for(len(prompt))), torch.zeros(runner.config.hidden_size)
    most = min(PIECE, scheduler.max_num_batched_tokens)
    try:
        for start in range(0, len(prompt), most):
            if start:
                yield
            if scheduler.lent is not blocks:
                raise RunError(f"an embedding of {len(prompt)} tokens lost its blocks of the cache to requests under way. Try "
                               "again when fewer are.")
            tokens = torch.tensor(prompt[start:start + most])
            batch = ForwardBatch(tokens, torch.tensor([len(tokens)]), torch.tensor([start]), torch.tensor([blocks]),
                                 torch.empty(0, dtype=torch.long), torch.tensor([True]),
                                 None if adapter < 0 else torch.tensor([adapter]))
            total += runner.forward(batch, states=True)[1].float().sum(0).cpu()
    finally:
        if scheduler.lent is blocks:
            scheduler.take_back()
    return F.normalize(total / len(prompt), dim=0)
