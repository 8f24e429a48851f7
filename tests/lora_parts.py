"""Trained parts of adapters, with random numbers large enough to change what a small model says. Shared by the tests."""

from pathlib import Path

import torch

from spoutnik.model.adapter_file import Adapter, base_hash, write_adapter
from spoutnik.model.lora import ALL_LINEAR, LoraConfig, LowRank, attach, lora_targets, merged_copy
from spoutnik.model.transformer import Transformer


def random_parts(model: Transformer, seed: int, rank: int = 3, targets=ALL_LINEAR, scale: float = 0.5) -> dict[str, LowRank]:
    generator = torch.Generator().manual_seed(seed)
    maps = lora_targets(model, LoraConfig(rank, scale * rank, target_modules=targets))
    return {name: LowRank(0.3 * torch.randn(rank, module.weight.shape[1], generator=generator),
                          0.3 * torch.randn(module.weight.shape[0], rank, generator=generator), scale)
            for name, module in maps.items()}


def summed(model: Transformer, parts: dict[str, LowRank]) -> Transformer:
    """A model of its own with the parts in its weights; `model` stays as it is."""
    with torch.device("meta"):
        copy = Transformer(model.config, model.compute_dtype, model.rotary)
    copy.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)
    return merged_copy(attach(copy, parts))


def adapter_folder(folder: Path, model: Transformer, seed: int, **options) -> Path:
    """As a stage writes it, with the hash of its base."""
    parts = random_parts(model, seed, **options)
    write_adapter(folder, Adapter(parts, "test/base", base_hash(model, parts)))
    return folder
