"""The cache of plain decoding: one vector per token and layer, for MLA (latent, rotary key) and GQA (keys, values) alike."""

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
    def empty(config: ModelConfig, rows: int, capacity: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> "Cache":
        shape = (rows, capacity, config.cache_width)
        return Cache([torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)],
                     torch.zeros(rows, dtype=torch.long, device=device))

    @property
    def rows(self) -> int:
        return self.lengths.shape[0]

    def append(self, layer: int, entries: Tensor) -> None:
        """Stores the entries (rows * new, cache_width) of each row's next tokens; `advance` counts them, after all layers."""
        store = self.layers[layer]
        new = self.positions(entries.shape[0] // self.rows)
        store[torch.arange(self.rows, device=store.device)[:, None], new] = entries.view(*new.shape, -1)

    def positions(self, new: int) -> Tensor:
        """(rows, new) positions of each row's next tokens."""
        return self.lengths[:, None] + torch.arange(new, device=self.lengths.device)

    def prefix(self, layer: int, new: int = 1) -> tuple[Tensor, Tensor]:
        """What the `new` tokens being decoded see: entries (rows, longest, cache_width), mask (rows, 1, new, longest)."""
        longest = int(self.lengths.max()) + new
        seen = torch.arange(longest, device=self.lengths.device) <= self.positions(new)[..., None]
        return self.layers[layer][:, :longest], seen[:, None]

    def advance(self, new: int | Tensor = 1) -> None:
        """Counts the stored tokens; those beyond `new` (one number, or one per row) will be written over."""
        self.lengths += new
