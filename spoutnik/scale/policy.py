"""A policy on its way to its samplers: what of a model decides its tokens, in the types in which an engine computes with it.

The engine's packing rounds matrices to the compute type; rounding them before they are sent gives the same bits and half of the
bytes. Norms, biases and routers are computed in float32 and are sent as they are. A model with adapters is sent as its files
hold it, once, and then its adapters alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LowRank, adapters_of, attach
from spoutnik.model.transformer import Transformer

_EXACT = (".gate.weight", ".e_score_correction_bias")  # of routers
_ADAPTER = "adapter/"  # before the names of adapters' tensors: no tensor of a network has a slash in its name


@dataclass(frozen=True)
class Policy:
    """What of a policy stays while it is trained.

    end_ids: tokens that end a completion. vocabulary: a hash of its tokenizer. scales: of the adapters, by their maps' names.
    """

    config: ModelConfig
    dtype: torch.dtype
    end_ids: tuple[int, ...]
    vocabulary: str
    scales: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(model: Transformer, end_ids: Sequence[int], vocabulary: str) -> "Policy":
        scales = {name: part.scale for name, part in adapters_of(model).items()}
        return Policy(model.config, model.compute_dtype, tuple(end_ids), vocabulary, scales)


@dataclass(frozen=True)
class Source:
    """A tensor of a policy where it is trained, and the type in which it is sent. fixed: it never changes."""

    tensor: Tensor
    dtype: torch.dtype
    fixed: bool = False

    @property
    def nbytes(self) -> int:
        return self.tensor.numel() * self.dtype.itemsize

    def __call__(self) -> Tensor:
        """On the CPU: a copy, but of what is fixed."""
        if self.fixed:
            return self.tensor.detach().cpu().contiguous()
        return self.tensor.detach().to("cpu", self.dtype, copy=True).contiguous()


def policy_sources(model: Transformer, all_of_it: bool = True) -> dict[str, Source]:
    """What samplers need, by name. Where the model has adapters, its base is fixed; without all_of_it, it is left out."""
    parts = adapters_of(model)
    sources = {f"{_ADAPTER}{name}/{half}": Source(tensor, tensor.dtype) for name, part in parts.items()
               for half, tensor in (("A", part.lora_A), ("B", part.lora_B), ("magnitude", part.magnitude))
               if tensor is not None}
    if parts and not all_of_it:
        return sources
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if ".adapter." in name or tied and name == "lm_head.weight":
            continue
        is_rounded = not parts and tensor.dim() > 1 and not name.endswith(_EXACT)
        sources[name] = Source(tensor, model.compute_dtype if is_rounded else tensor.dtype, fixed=bool(parts))
    return sources


def policy_tensors(model: Transformer, all_of_it: bool = True) -> dict[str, Tensor]:
    """Copies of `policy_sources`, one after another."""
    return {name: source() for name, source in policy_sources(model, all_of_it).items()}


def build_policy(policy: Policy, tensors: Mapping[str, Tensor], device: str = "cpu") -> Transformer:
    """The network of a policy; on the CPU its weights are `tensors` themselves, without copies."""
    rotary = Transformer.rotary_of(policy.config).to(device)
    with torch.device("meta"):
        model = Transformer(policy.config, policy.dtype, rotary)
    model.load_state_dict({name: tensor.to(device) for name, tensor in _network(tensors).items()}, assign=True, strict=False)
    if policy.config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    model.requires_grad_(not policy.scales)  # as in training, which decides what an engine copies
    _put_adapters(model, policy, tensors)
    return model


@torch.no_grad()
def refresh_policy(model: Transformer, policy: Policy, tensors: Mapping[str, Tensor]) -> None:
    """Brings what `build_policy` made of these tensors to what they have become since."""
    if policy.scales:
        _put_adapters(model, policy, tensors)
        return
    state = model.state_dict()
    for name, tensor in _network(tensors).items():
        if state[name].data_ptr() != tensor.data_ptr():  # on another device
            state[name].copy_(tensor)


def _network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_ADAPTER)}


def _put_adapters(model: Transformer, policy: Policy, tensors: Mapping[str, Tensor]) -> None:
    """Puts the adapters of `tensors` beside their linear maps, in place of those that are there."""
    device, parts = model.embed_tokens.weight.device, {}
    for name, scale in policy.scales.items():
        a, b = (tensors[f"{_ADAPTER}{name}/{half}"].to(device) for half in ("A", "B"))
        magnitude = tensors.get(f"{_ADAPTER}{name}/magnitude")
        parts[name] = LowRank(a, b, scale, None if magnitude is None else magnitude.to(device))
    if parts:
        attach(model, parts)
