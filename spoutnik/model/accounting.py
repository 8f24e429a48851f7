"""What a configuration costs, from its published tensors: parameters, arithmetic, cache. Does not import torch."""

from dataclasses import dataclass
from math import prod

from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import is_mtp, published_shapes


@dataclass(frozen=True)
class Accounting:
    """Counts of one model.

    total_parameters: main model, without the MTP module (671,026,419,200 for V3). mtp_parameters: what the MTP module adds,
    its copies of embedding and head not counted (11,610,068,224). active_parameters: read for one token, embedding table and
    head included (37.55e9 for V3). flops_per_token: forward, at context 0: two per active matrix element (the embedding
    look-up costs none). attention_flops_per_position: added to it for every token of context. cache_bytes_per_token: in
    bfloat16; expanded_cache_bytes_per_token: what caching every head's keys and values would take.
    """

    total_parameters: int
    mtp_parameters: int
    active_parameters: int
    flops_per_token: int
    attention_flops_per_position: int
    cache_bytes_per_token: int
    expanded_cache_bytes_per_token: int


def account(config: ModelConfig) -> Accounting:
    config = config.model_copy(update={"quantization_config": None})  # multipliers of blocks are no parameters
    sizes = {name: prod(shape) for name, shape in published_shapes(config).items()}
    copies = ("embed_tokens.weight", "shared_head.head.weight")
    mtp = sum(n for name, n in sizes.items() if is_mtp(name, config) and not name.endswith(copies))
    main = {name: n for name, n in sizes.items() if not is_mtp(name, config)}
    total, idle = sum(main.values()), 0
    if config.has_experts:
        routed = sum(n for name, n in main.items() if ".experts." in name)
        idle = routed * (config.n_routed_experts - config.num_experts_per_tok) // config.n_routed_experts
    embedding = config.vocab_size * config.hidden_size
    multiplied = total - idle - (0 if config.tie_word_embeddings else embedding)
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    expanded = heads if config.is_mla else config.num_key_value_heads
    return Accounting(
        total_parameters=total, mtp_parameters=mtp, active_parameters=total - idle, flops_per_token=2 * multiplied,
        attention_flops_per_position=2 * layers * heads * (config.qk_head_dim + config.value_width),
        cache_bytes_per_token=2 * layers * config.cache_width,
        expanded_cache_bytes_per_token=2 * layers * expanded * (config.qk_head_dim + config.value_width))
