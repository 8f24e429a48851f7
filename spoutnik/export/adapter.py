"""Adapters on their way out: the sum with their base as a model's folder, written tensor by tensor, or the adapter in the one
form that PEFT, vLLM and llama.cpp read alike."""

from pathlib import Path

import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.export.tensors import DTYPES, converted
from spoutnik.model.adapter_file import Adapter, attach_adapter, read_adapter
from spoutnik.model.adapter_merge import Survival
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.weights import Reader, load_model

_DORA = "vLLM and llama.cpp refuse DoRA's magnitudes; PEFT reads them. For the others: --format merged."
_MOE = ("PEFT with transformers 5 takes the names of feed-forward maps of a model with experts for the fused experts' own: of "
        "this adapter it reads attention alone. For all of it: --format merged.")


class MergingReader(Reader):
    """A checkpoint whose adapted weights are read as their sums with the adapter, in `dtype` or, where that is None, the stored
    type. survival: of those read so far."""

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter, dtype: torch.dtype | None):
        super().__init__(checkpoint)
        self._parts = {f"model.{name}.weight": part for name, part in adapter.parts.items()}
        self._dtype, self.survival = dtype, Survival()

    @torch.no_grad()
    def read(self, name: str) -> Tensor:
        """The tensor as stored, or the sum. Raises RunError where float16 is too small for it."""
        stored = super().read(name)
        if name not in self._parts:
            return stored
        merged = self._parts[name].merged(stored)
        rounded = converted(merged, self._dtype or stored.dtype, name)
        self.survival.add(stored, merged, rounded)
        return rounded


def open_adapter(folder: Path, path: Path) -> Adapter:
    """The adapter in `path`, which belongs to the model in `folder`: checked against its weights, which are mapped, not read.

    Raises:
        UserError: it belongs to another model, or the model's weights are in FP8.
    """
    checkpoint = Checkpoint.open(folder)
    if checkpoint.config.quantization_config is not None:
        raise UserError(f"{folder}: its weights are in FP8, to which nothing can be added. Export it with --format hf --dtype "
                        "bf16 first, and give that folder.")
    adapter = read_adapter(path)
    attach_adapter(load_model(folder, None, mapped=True), adapter, path)
    return adapter


def merging_reader(checkpoint: Checkpoint, adapter: Adapter, dtype: str | None) -> MergingReader:
    return MergingReader(checkpoint, adapter, DTYPES[dtype] if dtype else None)


def notes_of(adapter: Adapter, has_experts: bool) -> list[str]:
    """What some readers of the adapter do not do, in sentences."""
    dora = any(part.magnitude is not None for part in adapter.parts.values())
    feed_forward = has_experts and any(".mlp." in name for name in adapter.parts)
    return [note for note, applies in ((_DORA, dora), (_MOE, feed_forward)) if applies]
