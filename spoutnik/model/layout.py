"""The tensors of a published checkpoint, name by name, from its configuration alone: what reading checks a file against,
what `inspect` counts, and in which order exports write. Does not import torch."""

from collections.abc import Iterator

from spoutnik.model.config import ModelConfig

Shape = tuple[int, ...]
BLOCK = 128  # side of an FP8 block
SCALE = "_scale_inv"  # what the name of a quantized weight's multipliers ends in


def published_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor of the checkpoint under its published name, MTP layer and FP8 multipliers included. R1: 91,991."""
    shapes = dict(_tensors(config))
    if config.quantization_config is None:
        return shapes
    return shapes | {name + SCALE: tuple(-(-side // BLOCK) for side in shape) for name, shape in shapes.items()
                     if is_quantized(name)}


def is_quantized(name: str) -> bool:
    """Whether an FP8 checkpoint stores this tensor in 8 bits: the projections of attention and feed-forward, and nothing
    else (not the router, the embedding, the head, the norms, eh_proj)."""
    return name.endswith(("_proj.weight", "_proj_with_mqa.weight")) and not name.endswith("eh_proj.weight")


def published_type(name: str, config: ModelConfig) -> str:
    """What published checkpoints store a tensor in, as safetensors names it: float32 for the routers' correction biases
    and the multipliers, e4m3 for what an FP8 checkpoint quantizes, bfloat16 for the rest."""
    if name.endswith((SCALE, "e_score_correction_bias")):
        return "F32"
    return "F8_E4M3" if config.quantization_config is not None and is_quantized(name) else "BF16"


def is_mtp(name: str, config: ModelConfig) -> bool:
    """Whether a published name belongs to the MTP module, which is stored as one more layer."""
    return name.startswith(f"model.layers.{config.num_hidden_layers}.")


def _tensors(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    embedding = (config.vocab_size, config.hidden_size)
    attention = list((_mla if config.is_mla else _gqa)(config))
    dense, experts = list(_swiglu(config, config.intermediate_size, config.mlp_bias)), list(_moe(config))
    yield "model.embed_tokens.weight", embedding
    for layer in range(config.num_hidden_layers + config.num_nextn_predict_layers):
        prefix = f"model.layers.{layer}"
        if layer == config.num_hidden_layers:
            # The module's own copies of embedding and head; both are the main model's by definition.
            yield f"{prefix}.embed_tokens.weight", embedding
            yield f"{prefix}.enorm.weight", (config.hidden_size,)
            yield f"{prefix}.hnorm.weight", (config.hidden_size,)
            yield f"{prefix}.eh_proj.weight", (config.hidden_size, 2 * config.hidden_size)
        yield f"{prefix}.input_layernorm.weight", (config.hidden_size,)
        for name, shape in attention:
            yield f"{prefix}.self_attn.{name}", shape
        yield f"{prefix}.post_attention_layernorm.weight", (config.hidden_size,)
        for name, shape in experts if config.is_moe_layer(layer) else dense:
            yield f"{prefix}.mlp.{name}", shape
        if layer == config.num_hidden_layers:
            yield f"{prefix}.shared_head.norm.weight", (config.hidden_size,)
            yield f"{prefix}.shared_head.head.weight", embedding
    yield "model.norm.weight", (config.hidden_size,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", embedding


def _linear(name: str, outputs: int, inputs: int, bias: bool = False) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _mla(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    hidden, heads, bias = config.hidden_size, config.num_attention_heads, config.attention_bias
    queries = heads * config.qk_head_dim
    if config.q_lora_rank is None:
        yield from _linear("q_proj", queries, hidden)
    else:
        yield from _linear("q_a_proj", config.q_lora_rank, hidden, bias)
        yield "q_a_layernorm.weight", (config.q_lora_rank,)
        yield from _linear("q_b_proj", queries, config.q_lora_rank)
    yield from _linear("kv_a_proj_with_mqa", config.kv_lora_rank + config.qk_rope_head_dim, hidden, bias)
    yield "kv_a_layernorm.weight", (config.kv_lora_rank,)
    yield from _linear("kv_b_proj", heads * (config.qk_nope_head_dim + config.v_head_dim), config.kv_lora_rank)
    yield from _linear("o_proj", hidden, heads * config.v_head_dim, bias)


def _gqa(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    hidden, width = config.hidden_size, config.qk_head_dim
    yield from _linear("q_proj", config.num_attention_heads * width, hidden, config.qkv_bias)
    yield from _linear("k_proj", config.num_key_value_heads * width, hidden, config.qkv_bias)
    yield from _linear("v_proj", config.num_key_value_heads * width, hidden, config.qkv_bias)
    yield from _linear("o_proj", hidden, config.num_attention_heads * width, config.attention_bias)
    if config.model_type == "qwen3":
        yield "q_norm.weight", (width,)
        yield "k_norm.weight", (width,)


def _swiglu(config: ModelConfig, width: int, bias: bool = False) -> Iterator[tuple[str, Shape]]:
    yield from _linear("gate_proj", width, config.hidden_size, bias)
    yield from _linear("up_proj", width, config.hidden_size, bias)
    yield from _linear("down_proj", config.hidden_size, width, bias)


def _moe(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    yield "gate.weight", (config.n_routed_experts, config.hidden_size)
    if config.topk_method == "noaux_tc":
        yield "gate.e_score_correction_bias", (config.n_routed_experts,)
    for expert in range(config.n_routed_experts):
        for name, shape in _swiglu(config, config.moe_intermediate_size):
            yield f"experts.{expert}.{name}", shape
    if config.n_shared_experts:
        for name, shape in _swiglu(config, config.n_shared_experts * config.moe_intermediate_size):
            yield f"shared_experts.{name}", shape
