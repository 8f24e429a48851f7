"""Switches of adapters in this thread: inside `dropout_from` their inputs' dropout is on, inside `adapters_off` all are off."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_dropout: ContextVar[torch.Generator | None] = ContextVar("dropout", default=None)
_are_off: ContextVar[bool] = ContextVar("adapters_off", default=False)


@contextmanager
def dropout_from(generator: torch.Generator) -> Iterator[None]:
    """Switches the adapters' dropout on in this thread; its masks come from `generator`. Elsewhere there is none."""
    token = _dropout.set(generator)
    try:
        yield
    finally:
        _dropout.reset(token)


@contextmanager
def adapters_off() -> Iterator[None]:
    """In this thread, a model with adapters computes what its base does."""
    token = _are_off.set(True)
    try:
        yield
    finally:
        _are_off.reset(token)


def are_off() -> bool:
    """Whether the caller is inside `adapters_off`."""
    return _are_off.get()


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
