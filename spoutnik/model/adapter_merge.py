"""An adapter's sum with its base, W + scale * B A, and how much of it the rounding to the file's type leaves.

bfloat16 keeps 8 bits of a weight: a change of less than half a step of them is rounded away, and of an adapter that learned by
reward nearly all changes are that small. So the share that is left is measured, and a result that is hardly more than the base
is refused.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.model.lora import adapted_maps, adapters_of
from spoutnik.model.transformer import Transformer

LEAST_SURVIVAL = 0.5


@dataclass
class Survival:
    """Sums over the adapted weights: delta is what the adapter adds, kept what the rounded sum adds to the base.

    share: the part of delta that kept has, <kept, delta> / |delta|^2: 1 where nothing is lost, 0 where the result is the base.
    error: |kept - delta| / |delta|, rounding noise included, which is above 0 even where the share is 1."""

    projected: float = 0.0
    squared: float = 0.0
    missing: float = 0.0

    def add(self, base: Tensor, merged: Tensor, rounded: Tensor) -> None:
        """base: the stored weight; merged: the sum in float32; rounded: the sum as it is written."""
        delta, kept = merged - base.float(), rounded.float() - base.float()
        self.projected += float((kept * delta).sum(dtype=torch.float64))
        self.squared += float(delta.square().sum(dtype=torch.float64))
        self.missing += float((kept - delta).square().sum(dtype=torch.float64))

    @property
    def share(self) -> float:
        return self.projected / self.squared if self.squared else 1.0

    @property
    def error(self) -> float:
        return (self.missing / self.squared) ** 0.5 if self.squared else 0.0

    def sentence(self, dtype: str) -> str:
        return (f"{self.share:.1%} of what the adapter adds survives rounding to {dtype} (rounding noise: {self.error:.1%} of "
                "its norm).")

    def refuse_loss(self, source: str, dtype: str) -> None:
        """Raises UserError where less than LEAST_SURVIVAL is left."""
        if self.share < LEAST_SURVIVAL:
            raise UserError(f"{source}: only {self.share:.1%} of what the adapter adds would survive rounding to {dtype}: the "
                            "merged model would be nearly its base. Write --dtype f32 or f16, keep the adapter (--format "
                            "lora), or add --lossy to write it all the same.")


@torch.no_grad()
def survival(model: Transformer, dtype: torch.dtype) -> Survival:
    """What merging the model's adapters into weights of `dtype` leaves of them."""
    measured, maps = Survival(), adapted_maps(model)
    for name, part in adapters_of(model).items():
        weight = maps[name].weight
        merged = part.merged(weight)
        measured.add(weight, merged, merged.to(dtype))
    return measured
