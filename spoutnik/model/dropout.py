"""Dropout of the adapters' inputs: on inside `dropout_from`, in the thread that entered it, and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_dropout: ContextVar[torch.Generator | None] = ContextVar("dropout", default=None)


@contextmanager
def dropout_from(generator: torch.Generator) -> Iterator[None]:
    """Switches the adapters' dropout on in this thread; its masks come from `generator`. Elsewhere there is none."""
    token = _dropout.set(generator)
    try:
        yield
    finally:
        _dropout.reset(token)


def dropout_generator() -> torch.Generator | None:
    """The one of the `dropout_from` around the caller."""
    return _dropout.get()


def drop(x: Tensor, share: float) -> Tensor:
    """Inverted dropout (Srivastava et al. 2014), inside `dropout_from`."""
    generator = _dropout.get()
    if not share or generator is None:
        return x
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= share
    return x * kept / (1 - share)
