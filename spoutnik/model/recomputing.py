"""Gradient checkpointing (Chen et al. 2016): of each layer the input alone is kept for the backward pass, which computes the
layer again. Memory falls from all activations to one a layer and those of one layer; the results keep their bits, since the
second computation is the first one once more, with the same masks of dropout."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spoutnik.model.adapter_switches import dropout_from, dropout_generator


def recomputed(layer: Callable[..., Tensor], x: Tensor, *arguments: object) -> Tensor:
    """layer(x, *arguments), computed again when its gradient is asked for."""
    generator = dropout_generator()
    state, is_first = None if generator is None else generator.get_state(), [True]

    def run(x: Tensor) -> Tensor:
        if is_first or generator is None:
            is_first.clear()
            return layer(x, *arguments)
        with dropout_from(torch.Generator(generator.device).set_state(state)):
            return layer(x, *arguments)

    return checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)
