"""LoRA (Hu et al. 2021) with rsLoRA's scale (Kalajdzievski 2023) and DoRA's magnitudes (Liu et al. 2024): a frozen linear map
and a trained product of two thin matrices beside it.

Every linear map inside the network may have one, in attention, feed-forward and shared experts, and where it is asked for each
map of the routed experts (expert_lora.py). The router, the head, the embedding and the MTP module stay as they are. Letters: r
rank, T rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spoutnik.errors import UserError
from spoutnik.model.adapter_switches import are_off, drop
from spoutnik.model.expert_lora import ExpertMap, ExpertsLowRank, expert_maps
from spoutnik.model.layers import Linear, linear, linear_plus
from spoutnik.model.transformer import Transformer
from spoutnik.native import operations
from spoutnik.validation import did_you_mean

ALL_LINEAR = "all-linear"
_LEFT_OUT = {"lm_head": "is the head, which adapters leave out", "embed_tokens": "is the embedding, which adapters leave out",
             "gate": "is the router, which adapters leave out", "eh_proj": "is the MTP module's, which adapters leave out",
             "experts": "are the routed experts, which `experts: true` adds",
             "gate_up_proj": "are the routed experts, which `experts: true` adds"}


@dataclass(frozen=True)
class LoraConfig:
    """An adapter to train. target_modules: last parts of published names, as q_proj, of maps outside of routed experts.
    experts: those of the routed experts too."""

    rank: int
    alpha: float
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = ALL_LINEAR
    use_rslora: bool = False
    use_dora: bool = False
    experts: bool = False

    @property
    def scale(self) -> float:
        return lora_scale(self.alpha, self.rank, self.use_rslora)


def lora_scale(alpha: float, rank: int, use_rslora: bool) -> float:
    """What multiplies B A: alpha / r (LoRA, section 4.1), or alpha / sqrt(r) (rsLoRA, theorem 3.2)."""
    return alpha / (math.sqrt(rank) if use_rslora else rank)


class LowRank(nn.Module):
    """The trained part beside one linear map: lora_A (r, in), lora_B (out, r), DoRA's magnitude (out,) or None. float32."""

    def __init__(self, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None = None, dropout: float = 0.0):
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(a), nn.Parameter(b)
        self.magnitude = None if magnitude is None else nn.Parameter(magnitude)
        self.scale, self.dropout = scale, dropout

    @property
    def rank(self) -> int:
        return self.lora_A.shape[0]

    def with_tensors(self, state: Mapping[str, Tensor]) -> "LowRank":
        """The same adapter of other tensors, by their names in `state_dict`."""
        return LowRank(state["lora_A"], state["lora_B"], self.scale, state.get("magnitude"), self.dropout)

    def delta(self) -> Tensor:
        """scale * B A (out, in), float32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())

    def merged(self, weight: Tensor) -> Tensor:
        """W + scale * B A, with DoRA m (W + scale * B A) / ||W + scale * B A|| by rows (its eq. 5), float32."""
        total = weight.float() + self.delta()
        return total if self.magnitude is None else total * (self.magnitude.float() / row_norms(total))[:, None]

    def product(self, x: Tensor) -> Tensor:
        """scale * B A x, (T, out)."""
        return self.scale * linear(linear(drop(x, self.dropout), self.lora_A), self.lora_B)

    def mapped(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (T, in) through the adapted map, without bias.

        In bfloat16 what the adapter adds joins the map's own sum before that is rounded. Behind it, all that is less than half
        of the last digit would be swallowed, which is most of what RL teaches: the gradient would be of a policy that moves
        less than the one that samples."""
        if are_off() or self.magnitude is not None or x.dtype == torch.float32:
            return self(x, linear(x, weight), weight)
        return linear_plus(x, weight, self.product(x))

    def forward(self, x: Tensor, product: Tensor, weight: Tensor) -> Tensor:
        """x (T, in) and its product with the frozen weight (T, out) to what the adapted map gives, without bias.

        The norms are constants to the gradient (DoRA, section 4.3)."""
        if are_off():
            return product
        rows = drop(x, self.dropout)
        low = linear(rows, self.lora_A)
        if self.magnitude is None and low.dim() == 2 and not operations.has_fast_matmul(low, self.lora_B):
            return torch.addmm(product, low, self.lora_B.to(x.dtype).t(), alpha=self.scale)  # the sum below in one pass
        low = self.scale * linear(low, self.lora_B)
        if self.magnitude is None:
            return product + low
        with torch.no_grad():
            norms = row_norms(weight.float() + self.delta())
        ratio = (self.magnitude / norms).to(x.dtype)
        if rows is x:
            return ratio * (product + low)
        return product + (ratio - 1) * linear(rows, weight) + ratio * low


def row_norms(weight: Tensor) -> Tensor:
    """The length of each output's row: (out, in) to (out,)."""
    return torch.linalg.vector_norm(weight, dim=1)


def adaptable(model: Transformer) -> dict[str, Linear]:
    """The linear maps that may have an adapter, by their names without `model.`"""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, Linear) and name.startswith("layers.")}


def adapters_of(model: nn.Module) -> dict[str, LowRank]:
    """The adapters that a model has, by the names of their linear maps; empty without any. Those of routed experts are views of
    what is trained."""
    parts = {}
    for name, module in model.named_modules():
        owner = name.removesuffix(".adapter")
        if isinstance(module, LowRank):
            parts[owner] = module
        elif isinstance(module, ExpertsLowRank):
            parts |= {f"{owner}.{inside}": LowRank(*module.pair(inside), module.scale) for inside in module.names()}
    return parts


def has_adapters(model: nn.Module) -> bool:
    return any(isinstance(module, LowRank | ExpertsLowRank) for module in model.modules())


def adapted_maps(model: Transformer) -> dict[str, Linear | ExpertMap]:
    """All maps that an adapter may be of: `adaptable`, and those of the routed experts."""
    return adaptable(model) | expert_maps(model)


def can_share_prefixes(model: Transformer) -> bool:
    """Whether training may compute common beginnings of documents once (shared_prefixes.py): each token must count alike in
    however many documents it stands, which routers' loads, the MTP loss and dropout's masks do not. Of adapters alone: what
    trains a whole model ends with the bytes that it always had."""
    dropouts = [module.dropout for module in model.modules() if isinstance(module, LowRank)]
    return bool(dropouts) and not model.routers and model.mtp is None and not any(dropouts)


def attach(model: Transformer, parts: dict[str, LowRank]) -> Transformer:
    """Freezes the model and puts each adapter beside its linear map."""
    model.requires_grad_(False)
    maps, of_experts = adaptable(model), {}
    for name, part in parts.items():
        layer, separator, inside = name.partition(".experts.")
        if separator:
            of_experts.setdefault(f"{layer}.experts", {})[inside] = part
        else:
            maps[name].adapter = part
    for name, pairs in of_experts.items():
        experts = model.get_submodule(name)
        experts.adapter = ExpertsLowRank.of(experts, pairs)
    return model


def add_lora(model: Transformer, config: LoraConfig, generator: torch.Generator, source: str = "adapter") -> Transformer:
    """Freezes the model and adds new adapters: A uniform in +-1/sqrt(in) (Kaiming with a = sqrt(5), as PEFT has it), B zero,
    DoRA's magnitudes the rows' lengths. So the model computes what it did.

    Raises:
        UserError: a target module that the model has not or that is left out, or a rank larger than a layer; names `source`.
    """
    parts, device = {}, model.embed_tokens.weight.device
    for name, module in lora_targets(model, config, source).items():
        outputs, inputs = module.shape
        a = torch.empty(config.rank, inputs, device=device)
        a.uniform_(-inputs ** -0.5, inputs ** -0.5, generator=generator)
        magnitude = row_norms(module.weight.detach().float()) if config.use_dora else None
        b = torch.zeros(outputs, config.rank, device=device)
        parts[name] = LowRank(a, b, config.scale, magnitude, config.dropout)
    return attach(model, parts)


def lora_targets(model: Transformer, config: LoraConfig, source: str = "adapter") -> dict[str, Linear | ExpertMap]:
    """The linear maps that get an adapter; errors as of `add_lora`."""
    maps = adaptable(model)
    if config.target_modules != ALL_LINEAR:
        present = sorted({name.rpartition(".")[2] for name in maps})
        for name in config.target_modules:
            if name not in present:
                why = _LEFT_OUT.get(name, "no linear map has this name")
                raise UserError(f"{source}.target_modules: {name}: {why}.{did_you_mean(name, present)} Choose of "
                                f"{', '.join(present)}, or all-linear.")
        maps = {name: module for name, module in maps.items() if name.rpartition(".")[2] in config.target_modules}
    if config.experts:
        routed = expert_maps(model)
        if not routed:
            raise UserError(f"{source}.experts = true: this model has no routed experts. Leave it out.")
        maps |= routed
    if not maps:
        raise UserError(f"{source}.target_modules = []: names no linear map, so nothing would be trained. Choose of "
                        f"{', '.join(present)}, or all-linear.")
    for name, module in maps.items():
        if config.rank > min(module.shape):
            outputs, inputs = module.shape
            most = min(min(each.shape) for each in maps.values())
            raise UserError(f"{source}.rank = {config.rank}: is more than {name} has, {outputs} x {inputs}. Give at most "
                            f"{most}, or leave such maps out (target_modules).")
    return maps


@torch.no_grad()
def merged_copy(model: Transformer, dtype: torch.dtype | None = None) -> Transformer:
    """The same network without adapters: their sums with the weights, computed in float32 and rounded to `dtype` (None: the
    weights' own type). All other tensors are shared with `model`."""
    with torch.device("meta"):
        copy = Transformer(model.config, model.compute_dtype, model.rotary)
    parts = adapters_of(model)
    state = {}
    routed = {name.removesuffix(".adapter"): module for name, module in model.named_modules()
              if isinstance(module, ExpertsLowRank)}
    for name, tensor in _weights(model).items():
        owner = name.rpartition(".")[0]
        if ".adapter." in name:
            continue
        if name.endswith(".weight") and owner in parts:
            tensor = parts[owner].merged(tensor).to(dtype or tensor.dtype)
        elif owner in routed:
            tensor = routed[owner].merged(name.rpartition(".")[2], tensor).to(dtype or tensor.dtype)
        elif dtype is not None and not name.endswith("e_score_correction_bias"):
            tensor = tensor.to(dtype)
        state[name] = tensor
    copy.load_state_dict(state, assign=True)
    if model.config.tie_word_embeddings:
        copy.lm_head.weight = copy.embed_tokens.weight
    return copy.requires_grad_(False)


def _weights(model: Transformer) -> dict[str, Tensor]:
    """All tensors by name; those of maps that hold theirs packed unpacked."""
    packed = {f"{name}.weight": module.weight for name, module in adaptable(model).items() if module.is_packed}
    return model.state_dict() | packed


def without_adapters(model: Transformer) -> Transformer:
    """The same network as modules of its own, frozen and without adapters; all tensors are shared with `model`."""
    with torch.device("meta"):
        copy = Transformer(model.config, model.compute_dtype, model.rotary)
    copy.load_state_dict({name: tensor for name, tensor in _weights(model).items() if ".adapter." not in name}, assign=True)
    if model.config.tie_word_embeddings:
        copy.lm_head.weight = copy.embed_tokens.weight
    return copy.requires_grad_(False)


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' part of `state_dict`: all that training changes where there are any."""
    return {name: tensor for name, tensor in model.state_dict().items() if ".adapter." in name}
