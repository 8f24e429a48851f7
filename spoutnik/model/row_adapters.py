"""Low-rank products of several adapters beside one linear map: each row of a batch has its own, or none. The plain twin of
native/low_rank.h.

An adapter is known by a number, which the runner gives it. Letters: T rows, r rank, h heads, n, v and c as in mla.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from spoutnik.model.layers import linear

_rows: ContextVar[tuple[tuple[int, Tensor], ...]] = ContextVar("rows", default=())


@contextmanager
def rows_with_adapters(numbers: Tensor | None) -> Iterator[None]:
    """In this thread, the rows that go through the network have these adapters: numbers (T,), -1 for none; None: no row has
    one."""
    present = [] if numbers is None else [number for number in numbers.unique().tolist() if number >= 0]
    token = _rows.set(tuple((number, (numbers == number).nonzero()[:, 0]) for number in present))
    try:
        yield
    finally:
        _rows.reset(token)


class RowAdapters(nn.Module):
    """parts: by the adapters' numbers, A (r, in) and scale * B (out, r) in the type of the activations."""

    def __init__(self):
        super().__init__()
        self.parts: dict[int, tuple[Tensor, Tensor]] = {}

    def _present(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(rows, A, B) of the adapters that rows of this batch have here."""
        return ((rows, *self.parts[number]) for number, rows in _rows.get() if number in self.parts)

    def mapped(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (T, in) through the map and each row's adapter."""
        return self(x, linear(x, weight), weight)

    def forward(self, x: Tensor, product: Tensor, weight: Tensor) -> Tensor:
        """x (T, in) and its product with the frozen weight (T, out), which is added to."""
        for rows, a, b in self._present():
            product.index_add_(0, rows, x[rows] @ a.T @ b.T)
        return product

    def add_keys(self, q_nope: Tensor, product: Tensor) -> None:
        """Of kv_b_proj where its key half is absorbed into the query: q_nope (T, h, n), product (T, h, c)."""
        for rows, a, b in self._present():
            b_k = b.unflatten(0, (q_nope.shape[1], -1))[:, :q_nope.shape[2]]
            product.index_add_(0, rows, torch.einsum("bhn,hnr->bhr", q_nope[rows], b_k) @ a)

    def add_values(self, latent: Tensor, product: Tensor) -> None:
        """Of its value half, applied behind the attention: latent (T, h, c), product (T, h, v)."""
        for rows, a, b in self._present():
            b_v = b.unflatten(0, (latent.shape[1], -1))[:, -product.shape[2]:]
            product.index_add_(0, rows, torch.einsum("bhr,hvr->bhv", latent[rows] @ a.T, b_v))
