"""Embeddings: the mean of a model's last hidden states."""

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.engine.runners.base import ForwardBatch, Runner
from spoutnik.engine.scheduler import Scheduler, num_blocks_for
from spoutnik.errors import RunError


def embed(runner: Runner, scheduler: Scheduler, prompt: list[int], adapter: int = -1) -> Tensor:
    """(D,) float32 of length 1, for the token ids of one text. Called between two steps of the engine: uses free blocks of the
    cache for a while, and computes as many tokens at a time as a step does. adapter: its number, -1 for the base.

    Raises:
        RunError: too few blocks are free.
    """
    needed = num_blocks_for(len(prompt))
    if needed > scheduler.pool.num_free_blocks:
        raise RunError(f"an embedding of {len(prompt)} tokens needs {needed} blocks of the cache, and "
                       f"{scheduler.pool.num_free_blocks} are free. Try again when fewer requests are under way.")
    blocks = scheduler.pool.allocate(needed)
    try:
        total, most = torch.zeros(runner.config.hidden_size), scheduler.max_num_batched_tokens
        for start in range(0, len(prompt), most):
            tokens = torch.tensor(prompt[start:start + most])
            batch = ForwardBatch(tokens, torch.tensor([len(tokens)]), torch.tensor([start]), torch.tensor([blocks]),
                                 torch.empty(0, dtype=torch.long), torch.tensor([True]),
                                 None if adapter < 0 else torch.tensor([adapter]))
            total += runner.forward(batch, states=True)[1].float().sum(0).cpu()
    finally:
        scheduler.pool.free(blocks)
    return F.normalize(total / len(prompt), dim=0)
