"""The weights of a model in the groups that the native forward pass reads, from a model in memory or tensor by tensor from a
checkpoint. A group of matrices of one shape (the experts of a layer, the halves of kv_b by head) is packed into one tensor.
"""

from collections.abc import Iterator
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import published_shapes
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import published_parts
from spoutnik.native import library
from spoutnik.native.structs import GROUP_SIZE

EMBEDDING = "model.embed_tokens.weight"
WeightGroup = tuple[str, list[Tensor], str]  # key, matrices, kind


class WeightSource(Protocol):
    """The tensors of a model under their published names."""

    config: ModelConfig

    def __call__(self, name: str) -> Tensor:
        """The tensor, dequantized."""


class ModelSource:
    """Tensors of a model in memory."""

    def __init__(self, model: Transformer):
        self.config = model.config
        self._tensors = {published: (tensor, index) for name, tensor in model.state_dict().items()
                         for published, index in published_parts(name, model.config)}

    def __call__(self, name: str) -> Tensor:
        tensor, index = self._tensors[name]
        return tensor[index]


def weight_groups(source: WeightSource, kind: str) -> Iterator[WeightGroup]:
    """All matrices of the network, layer by layer, the MTP module's last, then the head; `vectors` has the norms and biases."""
    config = source.config
    for layer in range(config.num_hidden_layers + config.num_nextn_predict_layers):
        yield from layer_groups(source, layer, kind)
    if config.num_nextn_predict_layers:
        yield "eh_proj", [source(f"model.layers.{config.num_hidden_layers}.eh_proj.weight")], kind
    yield "head", [source(EMBEDDING if config.tie_word_embeddings else "lm_head.weight")], _at_least_8_bits(kind)


def _at_least_8_bits(kind: str) -> str:
    """For matrices whose errors cost most: each logit is one product of the head, each score one of the absorbed halves."""
    return "int8" if kind == "int4" else kind


def layer_groups(source: WeightSource, layer: int, kind: str) -> Iterator[WeightGroup]:
    config = source.config

    def weight(name: str) -> Tensor:
        return source(f"model.layers.{layer}.{name}.weight")

    def joined(*names: str) -> list[Tensor]:
        return [torch.cat([weight(name) for name in names])]

    def gate_up(name: str) -> Tensor:
        return interleave(weight(f"{name}.gate_proj"), weight(f"{name}.up_proj"))

    if config.is_mla:
        down = "self_attn.q_a_proj" if config.q_lora_rank else "self_attn.q_proj"
        yield f"{layer}.first", joined(down, "self_attn.kv_a_proj_with_mqa"), kind
        if config.q_lora_rank:
            yield f"{layer}.q_b", [weight("self_attn.q_b_proj")], kind
        heads = weight("self_attn.kv_b_proj").unflatten(0, (config.num_attention_heads, -1))
        keys, values = heads.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        yield f"{layer}.absorb_k", [key.T for key in keys], _at_least_8_bits(kind)
        yield f"{layer}.absorb_v", list(values), _at_least_8_bits(kind)
    else:
        yield f"{layer}.first", joined(*(f"self_attn.{part}_proj" for part in "qkv")), kind
    yield f"{layer}.o", [weight("self_attn.o_proj")], kind
    if not config.is_moe_layer(layer):
        yield f"{layer}.gate_up", [gate_up("mlp")], kind
        yield f"{layer}.down", [weight("mlp.down_proj")], kind
        return
    yield f"{layer}.router", [weight("mlp.gate")], "float32"  # so that near-ties are routed alike everywhere
    if config.n_shared_experts:
        yield f"{layer}.gate_up", [gate_up("mlp.shared_experts")], kind
        yield f"{layer}.down", [weight("mlp.shared_experts.down_proj")], kind
    experts = [f"mlp.experts.{expert}" for expert in range(config.n_routed_experts)]
    yield f"{layer}.experts_gate_up", [gate_up(expert) for expert in experts], kind
    yield f"{layer}.experts_down", [weight(f"{expert}.down_proj") for expert in experts], kind


def interleave(gate: Tensor, up: Tensor) -> Tensor:
    """Rows of both (I, ...) in alternating blocks of LANES, so that a panel holds both halves of SwiGLU's numbers."""
    lanes = library().spoutnik_lanes()
    gate, up = (torch.nn.functional.pad(half, (*[0] * (2 * half.dim() - 2), 0, -len(half) % lanes)).unflatten(0, (-1, lanes))
                for half in (gate, up))
    return torch.stack([gate, up], dim=1).flatten(0, 2)


def predicted_nbytes(config: ModelConfig, kind: str) -> int:
    """About what the packed weights take, from the shapes alone."""
    per_weight = {"float32": 4, "bfloat16": 2, "bf12": 1.51, "int8": 1 + 2 / GROUP_SIZE, "int4": 0.5 + 2 / GROUP_SIZE}
    head = config.vocab_size * config.hidden_size
    rest = sum(prod(shape) for shape in published_shapes(config).values()) - head
    return int(rest * per_weight[kind] + head * per_weight[_at_least_8_bits(kind)])


def vectors(source: WeightSource) -> dict[str, Tensor]:
    """Norms, biases and the routers' correction biases by the fields of the native layer, float32."""
    config = source.config
    names = {"final_norm": "model.norm.weight"}
    biases: dict[str, Tensor] = {}
    for layer in range(config.num_hidden_layers + config.num_nextn_predict_layers):
        prefix = f"model.layers.{layer}."
        fields = {"input_norm": "input_layernorm.weight", "post_norm": "post_attention_layernorm.weight"}
        if config.is_mla:
            fields["kv_norm"] = "self_attn.kv_a_layernorm.weight"
        if config.is_moe_layer(layer) and config.topk_method == "noaux_tc":
            fields["correction"] = "mlp.gate.e_score_correction_bias"
        if config.q_lora_rank:
            fields["q_norm"] = "self_attn.q_a_layernorm.weight"
        if config.model_type == "qwen3":
            fields |= {"q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight"}
        names |= {f"{layer}.{field}": prefix + name for field, name in fields.items()}
        biases |= {f"{layer}.{key}": bias for key, bias in _biases(source, prefix).items()}
    if config.num_nextn_predict_layers:
        prefix = f"model.layers.{config.num_hidden_layers}."
        names |= {"enorm": f"{prefix}enorm.weight", "hnorm": f"{prefix}hnorm.weight",
                  "mtp_norm": f"{prefix}shared_head.norm.weight"}
    norms = {key: source(name).detach().to(torch.float32, copy=True).contiguous() for key, name in names.items()}
    return norms | biases


def _biases(source: WeightSource, prefix: str) -> dict[str, Tensor]:
    """The biases of the matrices of a layer, joined like them."""
    config, biases = source.config, {}

    def bias(name: str) -> Tensor:
        return source(f"{prefix}{name}.bias")

    if config.is_mla and config.attention_bias:
        query = (bias("self_attn.q_a_proj") if config.q_lora_rank
                 else torch.zeros(config.num_attention_heads * config.qk_head_dim))
        biases["first"] = [query, bias("self_attn.kv_a_proj_with_mqa")]
    elif config.qkv_bias:
        biases["first"] = [bias(f"self_attn.{part}_proj") for part in "qkv"]
    if config.attention_bias:
        biases["o"] = [bias("self_attn.o_proj")]
    if config.mlp_bias:
        biases["gate_up"] = [interleave(bias("mlp.gate_proj"), bias("mlp.up_proj"))]
        biases["down"] = [bias("mlp.down_proj")]
    return {key: torch.cat([part.detach().float() for part in parts]).contiguous() for key, parts in biases.items()}
