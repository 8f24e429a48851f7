"""What a configuration costs, answered by the model itself: parameters, arithmetic, cache."""

from dataclasses import dataclass

import torch

from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer


@dataclass(frozen=True)
class Accounting:
    """Counts of one model.

    total_parameters: main model, without the MTP module (671,026,419,200 for V3). mtp_parameters: what the MTP module
    adds. active_parameters: read for one token, embedding table and head included (37.55e9 for V3).
    flops_per_token: forward, at context 0: two per active matrix element (the embedding look-up costs none).
    attention_flops_per_position: added to it for every token of context. cache_bytes_per_token: in bfloat16.
    """

    total_parameters: int
    mtp_parameters: int
    active_parameters: int
    flops_per_token: int
    attention_flops_per_position: int
    cache_bytes_per_token: int


def account(config: ModelConfig) -> Accounting:
    with torch.device("meta"):
        model = Transformer(config.model_copy(update={"max_position_embeddings": 1}))
    # state_dict, not parameters: the published totals count the routers' correction biases, which are buffers here.
    sizes = {name: t.numel() for name, t in model.state_dict().items()}
    if config.tie_word_embeddings:
        del sizes["lm_head.weight"]
    mtp = sum(n for name, n in sizes.items() if name.startswith("mtp."))
    total = sum(sizes.values()) - mtp
    routed = sum(n for name, n in sizes.items() if ".experts." in name and not name.startswith("mtp."))
    idle = 0
    if config.has_experts:
        idle = routed * (config.n_routed_experts - config.num_experts_per_tok) // config.n_routed_experts
    head = 0 if not config.tie_word_embeddings else config.vocab_size * config.hidden_size
    active = total - idle
    value = config.v_head_dim or config.qk_head_dim
    return Accounting(
        total_parameters=total, mtp_parameters=mtp, active_parameters=active,
        flops_per_token=2 * (active + head - config.vocab_size * config.hidden_size),
        attention_flops_per_position=2 * config.num_hidden_layers * config.num_attention_heads
        * (config.qk_head_dim + value),
        cache_bytes_per_token=2 * config.num_hidden_layers * config.cache_width,
    )
