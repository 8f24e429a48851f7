"""Multi-head latent attention (DeepSeek-V2, section 2.1; V3, eq. 1-11).

Letters: t tokens of the stream, b rows being decoded, s cached positions, h heads, c latent (kv_lora_rank),
r rotary (qk_rope_head_dim), n un-rotated (qk_nope_head_dim), v value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spoutnik.model.cache import Cache
from spoutnik.model.config import ModelConfig
from spoutnik.model.layers import Linear, RMSNorm
from spoutnik.model.packing import Packing, packed_attention
from spoutnik.model.rope import rotate_interleaved, softmax_scale


class MLA(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.scale = softmax_scale(config)
        hidden, heads = config.hidden_size, config.num_attention_heads
        if config.q_lora_rank is None:
            self.q_proj = Linear(hidden, heads * config.qk_head_dim, bias=False)
        else:
            self.q_a_proj = Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, 1e-6)  # always 1e-6, whatever rms_norm_eps (trap 10)
            self.q_b_proj = Linear(config.q_lora_rank, heads * config.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = Linear(hidden, config.kv_lora_rank + config.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, 1e-6)
        self.kv_b_proj = Linear(config.kv_lora_rank, heads * (config.qk_nope_head_dim + config.v_head_dim), bias=False)
        self.o_proj = Linear(heads * config.v_head_dim, hidden, bias=False)

    def _queries(self, x: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]:
        """q_nope (t, h, n) and rotated q_pe (t, h, r)."""
        config = self.config
        q = self.q_proj(x) if config.q_lora_rank is None else self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = q.unflatten(-1, (config.num_attention_heads, config.qk_head_dim))
        q_nope, q_pe = q.split([config.qk_nope_head_dim, config.qk_rope_head_dim], dim=-1)
        return q_nope, rotate_interleaved(q_pe, rotary)

    def _latent(self, x: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]:
        """What the cache keeps: the normed latent c (t, c) and the rotated key shared by all heads (t, r)."""
        c, k_pe = self.kv_a_proj_with_mqa(x).split([self.config.kv_lora_rank, self.config.qk_rope_head_dim], dim=-1)
        return self.kv_a_layernorm(c), rotate_interleaved(k_pe, rotary)

    def forward(self, x: Tensor, rotary: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """The expanded form, for training and prefill: x (t, hidden) to (t, hidden), and the cache entries
        (t, cache_width)."""
        config = self.config
        q_nope, q_pe = self._queries(x, rotary)
        c, k_pe = self._latent(x, rotary)
        kv = self.kv_b_proj(c).unflatten(-1, (config.num_attention_heads, -1))
        k_nope, v = kv.split([config.qk_nope_head_dim, config.v_head_dim], dim=-1)
        k = torch.cat([k_nope, k_pe[:, None].expand(-1, config.num_attention_heads, -1)], dim=-1)
        out = packed_attention(torch.cat([q_nope, q_pe], dim=-1), k, v, packing, self.scale)
        return self.o_proj(out.flatten(1)), torch.cat([c, k_pe], dim=-1)

    def decode(self, x: Tensor, rotary: Tensor, cache: Cache, layer: int) -> Tensor:
        """The absorbed form, for one new token per row: x (b, hidden) to (b, hidden).

        kv_b_proj's key half moves into the query and its value half behind the attention, so that every head reads
        the one cached latent: multi-query attention of width c + r.
        """
        config = self.config
        q_nope, q_pe = self._queries(x, rotary)
        cache.append(layer, torch.cat(self._latent(x, rotary), dim=-1))
        w = self.kv_b_proj.weight.to(x.dtype).view(config.num_attention_heads, -1, config.kv_lora_rank)
        w_k, w_v = w.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        q = torch.cat([torch.einsum("bhn,hnc->bhc", q_nope, w_k), q_pe], dim=-1)
        entries, seen = cache.prefix(layer)
        # Heads stand where queries usually do: one "head", h queries, all over the same keys. The values are the
        # latent; reading the rotary part too keeps q, k and v one width (the fused kernel's wish) and is cut after.
        kv = entries[:, None]
        latent = F.scaled_dot_product_attention(q[:, None], kv, kv, attn_mask=seen, scale=self.scale)
        out = torch.einsum("bhc,hvc->bhv", latent[:, 0, :, :config.kv_lora_rank], w_v)
        return self.o_proj(out.flatten(1))
