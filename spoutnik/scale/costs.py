"""What one token costs: products, attention, bytes through memory, messages to experts. Does not import torch.

All numbers are counts from the configuration; how fast a GPU does them is said in efficiency.py.
"""

from dataclasses import dataclass
from functools import cached_property

from spoutnik.model.config import ModelConfig
from spoutnik.scale.parameters import Parameter, parameters_of


@dataclass(frozen=True)
class Sizes:
    """Elements of a model's parameters by what divides them: "experts" by expert parallelism, "divided" and the vocabulary's
    matrices by tensor parallelism, "replicated" by neither. vocabulary: embedding and head (once, where they are one)."""

    experts: int
    divided: int
    replicated: int
    vocabulary: int

    @property
    def total(self) -> int:
        return self.experts + self.divided + self.replicated + self.vocabulary


@dataclass(frozen=True)
class TokenCosts:
    """The forward pass of one token.

    dense, experts, head: FLOPs of the products of attention and feed-forward, of the routed experts that the token passes, and
    of the head. position: FLOPs of attention for each position before it, with keys and values of every head (training and
    prefill); latent_position: in decoding, where MLA reads its latents alone. moved: bytes that what lies between the products
    reads and writes (norms, residuals, rotation, SwiGLU, the experts' permutation), each in one fused pass, in bfloat16.
    loss_moved: of the logits, forward and backward. sent: bytes in bfloat16 to one expert and back. moe_layers: how often.
    """

    dense: float
    experts: float
    head: float
    position: float
    latent_position: float
    moved: float
    loss_moved: float
    sent: float
    moe_layers: int
    layers: int


class PlannedModel:
    """A configuration with its counts, each made once."""

    def __init__(self, config: ModelConfig):
        self.config = config

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(parameters_of(self.config))

    @cached_property
    def sizes(self) -> Sizes:
        return _sizes(self.parameters)

    @cached_property
    def costs(self) -> TokenCosts:
        """Without the MTP module, as in decoding without drafts."""
        return _token_costs(self.config, self.parameters, mtp=False)

    @cached_property
    def mtp_costs(self) -> TokenCosts:
        """With it, as in training with its loss."""
        return _token_costs(self.config, self.parameters, mtp=True)


def _sizes(parameters: tuple[Parameter, ...]) -> Sizes:
    parts = {"experts": 0, "divided": 0, "replicated": 0}
    vocabulary = 0
    for parameter in parameters:
        if parameter.layer is None and len(parameter.shape) == 2:
            vocabulary += parameter.size
        else:
            parts[parameter.role] += parameter.size
    return Sizes(**parts, vocabulary=vocabulary)


def _token_costs(config: ModelConfig, parameters: tuple[Parameter, ...], mtp: bool) -> TokenCosts:
    dense = experts = 0
    for parameter in parameters:
        if parameter.layer is None or len(parameter.shape) == 1 or (parameter.layer == config.num_hidden_layers and not mtp):
            continue
        if parameter.role == "experts":
            experts += parameter.size * config.num_experts_per_tok // config.n_routed_experts
        else:
            dense += parameter.size
    module = config.num_nextn_predict_layers if mtp else 0
    layers = config.num_hidden_layers + module
    heads, hidden = config.num_attention_heads, config.hidden_size
    moe_layers = sum(config.is_moe_layer(layer) for layer in range(layers))
    rotated = (heads + (1 if config.is_mla else config.num_key_value_heads)) * config.rope_width
    moved = layers * (8 * hidden + 2 * rotated) + 3 * (layers - moe_layers) * config.intermediate_size
    if moe_layers:
        width = (config.n_shared_experts + config.num_experts_per_tok) * config.moe_intermediate_size
        moved += moe_layers * (3 * width + 4 * config.num_experts_per_tok * hidden)
    latent = 2 * config.kv_lora_rank + config.qk_rope_head_dim if config.is_mla else config.qk_head_dim + config.value_width
    return TokenCosts(
        dense=2 * dense, experts=2 * experts, head=2 * config.vocab_size * hidden * (1 + module),
        position=2 * layers * heads * (config.qk_head_dim + config.value_width),
        latent_position=2 * layers * heads * latent, moved=2 * moved, loss_moved=16 * config.vocab_size * (1 + module),
        sent=2 * hidden, moe_layers=moe_layers, layers=layers)


def distinct_nodes(config: ModelConfig, nodes: float) -> float:
    """Nodes other than its own to which a token's experts lie, on average, where the experts are spread evenly and the routing
    is even; node-limited routing (`topk_group`) bounds them (DeepSeek-V3, 2.1.2)."""
    if nodes <= 1:
        return 0.0
    chosen = nodes * (1 - (1 - 1 / nodes) ** config.num_experts_per_tok)
    if config.n_group > 1:
        chosen = min(chosen, config.topk_group)
    return chosen * (nodes - 1) / nodes
