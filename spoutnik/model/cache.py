"""What decoding remembers: one vector per token and layer, the same shape for MLA (latent) and GQA (keys, values)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.model.config import ModelConfig


@dataclass
class Cache:
    """layers: per layer (rows, capacity, cache_width). lengths (rows,): tokens each row holds so far."""

    layers: list[Tensor]
    lengths: Tensor
    @staticmethod
    def empty(config: ModelConfig, rows: int, capacity: int, dtype: torch.dtype,
              device: torch.device | str = "cpu") -> "Cache":
        shape = (rows, capacity, config.cache_width)
        return Cache([torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)],
                     torch.zeros(rows, dtype=torch.long, device=device))

    @property
    def rows(self) -> int:
        return self.lengths.shape[0]

    def append(self, layer: int, entries: Tensor) -> None:
        """Stores the new token's entries (rows, cache_width) of one layer; `advance` counts it after the last layer."""
        store = self.layers[layer]
        store[torch.arange(self.rows, device=store.device), self.lengths] = entries

    def prefix(self, layer: int) -> tuple[Tensor, Tensor]:
        """What the token being decoded may see: entries (rows, longest, cache_width), mask (rows, 1, 1, longest)."""
        longest = int(self.lengths.max()) + 1
        seen = torch.arange(longest, device=self.lengths.device) <= self.lengths[:, None]
        return self.layers[layer][:, :longest], seen[:, None, None]

    def advance(self) -> None:
        self.lengths += 1

    def select(self, rows: Tensor) -> "Cache":
        """A cache of the given rows (repeats allowed: that is how a group shares one prompt's prefill)."""
        return Cache([store.index_select(0, rows) for store in self.layers], self.lengths.index_select(0, rows))
