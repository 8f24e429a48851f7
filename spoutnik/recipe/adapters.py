"""Stages that train an adapter: what is checked before, how its base is loaded, and what its artifact holds: the model as every
other stage's (the sum of both), and in `adapter/` the adapter itself, as PEFT writes it."""

from collections.abc import Callable
from pathlib import Path

import torch

from spoutnik.engine.quantization.packed_base import pack_base, predicted_bytes, rounding
from spoutnik.errors import UserError
from spoutnik.model.adapter_file import Adapter, base_hash, write_adapter
from spoutnik.model.adapter_merge import LEAST_SURVIVAL, Survival, survival
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import adaptable, adapters_of, add_lora, lora_targets, merged_copy
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.native import library
from spoutnik.parallel import CPU
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.stage_kinds import GRPOStage
from spoutnik.train.settings import AdapterSettings

ADAPTER = "adapter"  # its folder, in an artifact


def check_adapter(recipe: Recipe, name: str, source: str) -> None:
    """Raises UserError where a stage's adapter does not fit its model, or its rollouts would be of other weights."""
    stage = recipe.stages[name]
    adapter = getattr(stage, "adapter", None)
    if adapter is None:
        return
    where = f"{source}: stages.{name}.adapter"
    merged = "use_dora" if adapter.use_dora else "experts" if adapter.experts else None  # what the engine cannot leave unmerged
    if isinstance(stage, GRPOStage) and merged and recipe.computes_in() != torch.float32:
        raise UserError(f"{where}.{merged}: its rollouts come from the sum of base and adapter, and bfloat16 would round away "
                        "most of what reinforcement learning changes: they would be of another policy than the one that learns."
                        f" Write dtype: float32 in the recipe (it is {recipe.dtype}), or leave {merged} out.")
    if adapter.base != "stored" and library() is None:
        raise UserError(f"{where}.base = {adapter.base}: needs the native kernels, and there is no compiler here. Install g++ "
                        "or clang++, or leave base out.")
    if adapter.base != "stored" and recipe.scale is not None and recipe.scale.shard:
        raise UserError(f"{where}.base = {adapter.base} with scale.shard: packed weights are not divided, so that each process "
                        "would hold all of them. Leave one of the two out.")
    lora_targets(_without_weights(recipe.config_of_stage(name, source)), adapter.config(), where)


def _without_weights(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config, rotary=torch.empty(0))


def adapter_parameters(config: ModelConfig, adapter: AdapterSettings) -> int:
    """How many an adapter of these settings has."""
    model = add_lora(_without_weights(config), adapter.config(), torch.Generator())
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def packed_savings(config: ModelConfig, adapter: AdapterSettings) -> int:
    """Bytes that the frozen base takes less than in 16 bits."""
    if adapter.base == "stored":
        return 0
    weights = sum(module.weight.numel() for module in adaptable(_without_weights(config)).values())
    return round(weights * (2 - predicted_bytes(adapter.base)))


def load_for_adapter(folder: Path, adapter: AdapterSettings, dtype: torch.dtype, seed: int, where: str,
                     device: torch.device = CPU) -> Transformer:
    """A folder's model, frozen as its files hold it or packed, with a new adapter. dtype: of activations.

    Raises:
        UserError: the base is to be packed, and the device is a GPU.
    """
    if adapter.base != "stored" and device.type != "cpu":
        raise UserError(f"{where}.base {adapter.base}: packed weights are multiplied on the processor alone. Write base: "
                        "stored, or device: cpu in the recipe.")
    model = load_model(folder, None, dtype, mapped=True)
    if adapter.base != "stored":
        pack_base(model, adapter.base)
    return add_lora(model, adapter.config(), torch.Generator().manual_seed(seed), where).to(device)


def saved_dtype(model: Transformer, dtype: torch.dtype) -> tuple[torch.dtype, Survival | None]:
    """The type in which a stage's model is written: bfloat16, but for the sum of an adapter and its base float32 where that is
    computed in (`dtype`), or where bfloat16 would lose the adapter. And what that type leaves of the adapter, where there is
    one: it is measured over all weights, which takes as long as some stages."""
    if not adapters_of(model):
        return torch.bfloat16, None
    if dtype == torch.bfloat16 and (left := survival(model, dtype)).share >= LEAST_SURVIVAL:
        return dtype, left
    return torch.float32, survival(model, torch.float32)


def save_adapter(working: Path, model: Transformer, settings: AdapterSettings, dtype: torch.dtype, left: Survival,
                 base: str, say: Callable[[str], None]) -> tuple[dict[str, float], Transformer]:
    """Writes `adapter/` into a stage's folder; returns metrics for the manifest, and the sum of base and adapter.
    dtype, left: of that sum, and what it leaves of the adapter (`saved_dtype`). base: what the adapter's configuration
    calls its base."""
    parts = adapters_of(model)
    packed = None if settings.base == "stored" else settings.base
    write_adapter(working / ADAPTER, Adapter(parts, base, base_hash(model, parts), packed))
    if packed is not None:
        say(f"{working.name}: the adapter belongs to the base in {packed}, whose rounding is {rounding(model):.1f} times as "
            "long as what the adapter adds; the merged model is the sum with those rounded weights.")
    name = str(dtype).removeprefix("torch.")
    say(f"{working.name}: the merged model is {name}: {left.sentence(name)}")
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {"adapter_parameters": parameters, "delta_survival": left.share}, merged_copy(model, dtype)
