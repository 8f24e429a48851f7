"""The whole network: DeepSeek-V2 or V3 (MLA + DeepSeekMoE + MTP), or a dense one in the shape of Qwen or Llama.

Module names are the published tensor names. T tokens of a packed stream, B rows being decoded, D hidden size.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spoutnik.model.cache import Cache
from spoutnik.model.config import ModelConfig
from spoutnik.model.gqa import GQA
from spoutnik.model.layers import Linear, RMSNorm, SwiGLU
from spoutnik.model.mla import MLA
from spoutnik.model.moe import DeepSeekMoE, Router, RouterTrace
from spoutnik.model.packing import STREAM_MULTIPLE, PackedSequences
from spoutnik.model.recomputing import recomputed
from spoutnik.model.rope import rotary_table
from spoutnik.native import operations

if TYPE_CHECKING:
    from spoutnik.model.parts import Division


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = MLA(config) if config.is_mla else GQA(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = (DeepSeekMoE(config, f"layers.{layer}") if config.is_moe_layer(layer)
                    else SwiGLU(config.hidden_size, config.intermediate_size, config.mlp_bias))

    def forward(self, x: Tensor, rotary: Tensor, sequences: PackedSequences, trace: RouterTrace | None,
                entries: list[Tensor] | None = None) -> Tensor:
        """x (T, D) to (T, D); the layer's cache entries are appended to `entries` where one is given."""
        attended = self.self_attn(self.input_layernorm(x), rotary, sequences, entries)
        return self._feed_forward(x + attended, sequences, trace)

    def decode(self, x: Tensor, rotary: Tensor, cache: Cache) -> Tensor:
        """x (B, D) to (B, D): the next token (or few) of each cache row."""
        attended = self.self_attn.decode(self.input_layernorm(x), rotary, cache, self.layer)
        return self._feed_forward(x + attended, None, None)

    def _feed_forward(self, x: Tensor, sequences: PackedSequences | None, trace: RouterTrace | None) -> Tensor:
        h = self.post_attention_layernorm(x)
        return x + (self.mlp(h, sequences, trace) if isinstance(self.mlp, DeepSeekMoE) else self.mlp(h))


class MultiTokenPrediction(Block):
    """V3's MTP module (section 2.2): from the main model's state at position i and the token at i+1, the token at i+2.

    Embedding and head are the main model's. The concatenation is [embedding, hidden], the order of the released
    weights; the paper writes the other (V3, eq. 21).
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config, config.num_hidden_layers)
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)  # published as shared_head.norm

    def predict(self, hidden: Tensor, next_embeddings: Tensor, rotary: Tensor, sequences: PackedSequences,
                trace: RouterTrace | None, entries: list[Tensor] | None = None) -> Tensor:
        """hidden (T, D) after the final norm, next_embeddings (T, D); returns states for the shared head (T, D)."""
        return self.norm(self.forward(self._joined(hidden, next_embeddings), rotary, sequences, trace, entries))

    def predict_next(self, hidden: Tensor, next_embeddings: Tensor, rotary: Tensor, cache: Cache) -> Tensor:
        """The same over the cache, for the next token (or few) of each row."""
        return self.norm(self.decode(self._joined(hidden, next_embeddings), rotary, cache))

    def _joined(self, hidden: Tensor, next_embeddings: Tensor) -> Tensor:
        return self.eh_proj(torch.cat([self.enorm(next_embeddings), self.hnorm(hidden)], dim=-1))


class Transformer(nn.Module):
    """Weights live in the type they were loaded in; `compute_dtype` is the type of activations. A new network's weights have
    no values before `init_weights` or `load_state_dict`. gradient_checkpointing: layers are computed again for their gradient
    (recomputing.py). division: how the network is divided among processes, None where it is not (scale/sharding.py)."""

    division: "Division | None" = None

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32, rotary: Tensor | None = None):
        """rotary: the table of `rotary_of`, where the caller has it already."""
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.gradient_checkpointing = False
        self.embed_tokens = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.hidden_size), freeze=False)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.mtp = MultiTokenPrediction(config) if config.num_nextn_predict_layers else None
        self.register_buffer("rotary", self.rotary_of(config) if rotary is None else rotary, persistent=False)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal(0, initializer_range) for every matrix, with the two projections that write into the residual stream
        divided by sqrt(2 x layers) (GPT-2); norms 1; biases 0."""
        residual = (2 * self.config.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                scale = residual if "o_proj" in name or "down_proj" in name else 1.0
                parameter.normal_(0, self.config.initializer_range * scale, generator=generator)

    @staticmethod
    def rotary_of(config: ModelConfig) -> Tensor:
        """(positions, 2, width/2): derived from the configuration, so never stored."""
        # Padding may be longer than the model's positions.
        return rotary_table(config, max(config.max_position_embeddings, STREAM_MULTIPLE))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.embed_tokens.weight.device

    @property
    def routers(self) -> dict[str, Router]:
        return {module.name: module for module in self.modules() if isinstance(module, Router)}

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.embed_tokens(input_ids).to(self.compute_dtype)

    def hidden(self, input_ids: Tensor, sequences: PackedSequences, trace: RouterTrace | None = None,
               entries: list[Tensor] | None = None) -> Tensor:
        """input_ids (T,) to the states the head reads, after the final norm (T, D)."""
        rotary = self.rotary[sequences.position_ids]
        x = self.embed(input_ids)
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = recomputed(layer, x, rotary, sequences, trace)
            else:
                x = layer(x, rotary, sequences, trace, entries)
        return self.norm(x)

    def mtp_hidden(self, hidden: Tensor, input_ids: Tensor, sequences: PackedSequences, trace: RouterTrace | None) -> Tensor:
        """States (T, D) whose head predicts two tokens ahead. The last token of each document sees itself as its own
        successor, which keeps the lengths; it has no target two ahead, so the loss never looks at it."""
        following = torch.arange(1, len(input_ids) + 1, device=input_ids.device).clamp_(max=len(input_ids) - 1)
        last = sequences.last_tokens
        following[last] = last
        return self.mtp.predict(hidden, self.embed(input_ids[following]), self.rotary[sequences.position_ids], sequences, trace)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., vocabulary) in float32: rounding logits to bfloat16 is where sampler and trainer diverge."""
        weight = self.lm_head.weight.to(hidden.dtype)
        if not torch.is_grad_enabled() and operations.has_float32_products(hidden, weight):
            return operations.linear_float32(hidden.flatten(0, -2), weight).view(*hidden.shape[:-1], -1)
        return F.linear(hidden.float(), weight.float())

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids (batch, length) to logits (batch, length, vocabulary)."""
        batch, length = input_ids.shape
        sequences = PackedSequences.of([length] * batch, input_ids.device)
        return self.logits(self.hidden(input_ids.flatten(), sequences)).view(batch, length, -1)

    @torch.no_grad()
    def prefill(self, input_ids: Tensor, sequences: PackedSequences, cache: Cache) -> Tensor:
        """Runs whole prompts and fills one empty cache row per document; returns the last states (documents, D)."""
        entries: list[Tensor] = []
        hidden = self.hidden(input_ids, sequences, entries=entries)
        real = len(input_ids) - sequences.padding
        rows, positions = sequences.document_ids[:real], sequences.position_ids[:real]
        for layer, entry in zip(cache.layers, entries):
            layer[rows, positions] = entry[:real].to(layer.dtype)
        cache.lengths = torch.tensor(sequences.lengths, device=hidden.device)
        return hidden[sequences.last_tokens]

    @torch.no_grad()
    def decode(self, input_ids: Tensor, cache: Cache) -> Tensor:
        """One new token per cache row: input_ids (B,) to the states the head reads (B, D)."""
        hidden = self.extend(input_ids[:, None], cache)[:, 0]
        cache.advance()
        return hidden

    @torch.no_grad()
    def extend(self, input_ids: Tensor, cache: Cache) -> Tensor:
        """The next tokens of each cache row, input_ids (B, new), to the states the head reads (B, new, D). The cache stores
        them without counting them: the caller may want to keep only some (`cache.advance`)."""
        x = self.embed(input_ids.flatten())
        rotary = self.rotary[cache.positions(input_ids.shape[1]).flatten()]
        for layer in self.layers:
            x = layer.decode(x, rotary, cache)
        return self.norm(x).view(*input_ids.shape, -1)

    @torch.no_grad()
    def mtp_extend(self, hidden: Tensor, next_ids: Tensor, cache: Cache) -> Tensor:
        """After `extend`: its states (B, new, D) and the tokens' successors (B, new) to states that predict what follows."""
        rotary = self.rotary[cache.positions(next_ids.shape[1]).flatten()]
        ahead = self.mtp.predict_next(hidden.flatten(0, 1), self.embed(next_ids.flatten()), rotary, cache)
        return ahead.view_as(hidden)
