"""Multi-head latent attention (DeepSeek-V2, section 2.1; V3, eq. 1-11).

Letters: t tokens of the stream, b rows being decoded, s cached positions, h heads, c latent (kv_lora_rank),
r rotary (qk_rope_head_dim), n un-rotated (qk_nope_head_dim), v value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spoutnik.model.attention import rotary_attention
from spoutnik.model.cache import Cache
from spoutnik.model.config import ModelConfig
from spoutnik.model.layers import Linear, RMSNorm
from spoutnik.model.packing import PackedSequences
from spoutnik.model.rope import rotate_interleaved, softmax_scale
from spoutnik.model.row_adapters import RowAdapters


class MLA(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.scale = softmax_scale(config)
        hidden, heads = config.hidden_size, config.num_attention_heads
        if config.q_lora_rank is None:
            self.q_proj = Linear(hidden, heads * config.qk_head_dim, bias=False)
        else:
            self.q_a_proj = Linear(hidden, config.q_lora_rank, bias=config.attention_bias)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, 1e-6)  # as published, whatever rms_norm_eps
            self.q_b_proj = Linear(config.q_lora_rank, heads * config.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = Linear(hidden, config.kv_lora_rank + config.qk_rope_head_dim, bias=config.attention_bias)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, 1e-6)
        self.kv_b_proj = Linear(config.kv_lora_rank, heads * (config.qk_nope_head_dim + config.v_head_dim), bias=False)
        self.o_proj = Linear(heads * config.v_head_dim, hidden, bias=config.attention_bias)

    def _queries(self, x: Tensor) -> Tensor:
        """(t, h, n + r), not rotated."""
        config = self.config
        q = self.q_proj(x) if config.q_lora_rank is None else self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        return q.unflatten(-1, (config.num_attention_heads, config.qk_head_dim))

    def _latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The normed latent c (t, c) and the key part shared by all heads (t, r), not rotated."""
        c, k_pe = self.kv_a_proj_with_mqa(x).split([self.config.kv_lora_rank, self.config.qk_rope_head_dim], dim=-1)
        return self.kv_a_layernorm(c), k_pe

    def _entry(self, c: Tensor, k_pe: Tensor, rotary: Tensor) -> Tensor:
        """What the cache keeps of a token: (t, c + r)."""
        return torch.cat([c, rotate_interleaved(k_pe, rotary)], dim=-1)

    def forward(self, x: Tensor, rotary: Tensor, sequences: PackedSequences, entries: list[Tensor] | None = None) -> Tensor:
        """The expanded form, for training and prefill: x (t, hidden) to (t, hidden). Appends the cache entries to `entries`."""
        config = self.config
        c, k_pe = self._latent(x)
        if entries is not None:
            entries.append(self._entry(c, k_pe, rotary))
        kv = self.kv_b_proj(c).unflatten(-1, (config.num_attention_heads, -1))
        k_nope, v = kv.split([config.qk_nope_head_dim, config.v_head_dim], dim=-1)
        out = rotary_attention(self._queries(x), k_nope, k_pe[:, None], v, rotary, sequences, self.scale, interleaved=True)
        return self.o_proj(out.flatten(1))

    def decode(self, x: Tensor, rotary: Tensor, cache: Cache, layer: int) -> Tensor:
        """The absorbed form, for the next token (or few) of each cache row: x (b, hidden) to (b, hidden), b = rows x new.

        kv_b_proj's key half moves into the query and its value half behind the attention, so that every head reads
        the one cached latent: multi-query attention of width c + r.
        """
        config = self.config
        q_nope, q_pe = self._queries(x).split([config.qk_nope_head_dim, config.qk_rope_head_dim], dim=-1)
        cache.append(layer, self._entry(*self._latent(x), rotary))
        by_row = self.kv_b_proj.adapter if isinstance(self.kv_b_proj.adapter, RowAdapters) else None
        w = self.kv_b_proj.effective_weight() if by_row is None else self.kv_b_proj.weight
        w = w.to(x.dtype).view(config.num_attention_heads, -1, config.kv_lora_rank)
        w_k, w_v = w.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        q_latent = torch.einsum("bhn,hnc->bhc", q_nope, w_k)
        if by_row is not None:
            by_row.add_keys(q_nope, q_latent)
        q = torch.cat([q_latent, rotate_interleaved(q_pe, rotary)], dim=-1)
        new = len(x) // cache.rows
        entries, seen = cache.prefix(layer, new)
        # Heads stand where queries usually do: one "head", new * h queries, all over the same keys. The values are the
        # latent; reading the rotary part too keeps q, k and v one width (the fused kernel's wish) and is cut after.
        kv, seen = entries[:, None], seen if new == 1 else seen.repeat_interleave(config.num_attention_heads, dim=2)
        q = q.view(cache.rows, 1, -1, q.shape[-1])
        latent = F.scaled_dot_product_attention(q, kv, kv, attn_mask=seen, scale=self.scale)
        latent = latent.view(len(x), config.num_attention_heads, -1)[..., :config.kv_lora_rank]
        out = torch.einsum("bhc,hvc->bhv", latent, w_v)
        if by_row is not None:
            by_row.add_values(latent, out)
        return self.o_proj(out.flatten(1))
