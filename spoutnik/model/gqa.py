"""Grouped-query attention (Ainslie et al. 2023) in the shapes of Llama (no biases), Qwen2 (biases on q, k, v) and Qwen3
(queries and keys normalised per head). Letters as in mla.py."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spoutnik.model.attention import rotary_attention
from spoutnik.model.cache import Cache
from spoutnik.model.config import ModelConfig
from spoutnik.model.layers import Linear, RMSNorm
from spoutnik.model.packing import PackedSequences
from spoutnik.model.rope import rotate_halves, softmax_scale


class GQA(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.groups, width = config.num_attention_heads, config.num_key_value_heads, config.qk_head_dim
        self.scale = softmax_scale(config)
        self.q_proj = Linear(config.hidden_size, self.heads * width, bias=config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, self.groups * width, bias=config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, self.groups * width, bias=config.qkv_bias)
        self.o_proj = Linear(self.heads * width, config.hidden_size, bias=config.attention_bias)
        self.normed = config.model_type == "qwen3"
        if self.normed:
            self.q_norm = RMSNorm(width, config.rms_norm_eps)
            self.k_norm = RMSNorm(width, config.rms_norm_eps)

    def _qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(t, h, d), (t, groups, d) twice; nothing rotated."""
        q = self.q_proj(x).unflatten(-1, (self.heads, -1))
        k, v = (proj(x).unflatten(-1, (self.groups, -1)) for proj in (self.k_proj, self.v_proj))
        return (self.q_norm(q), self.k_norm(k), v) if self.normed else (q, k, v)

    def forward(self, x: Tensor, rotary: Tensor, sequences: PackedSequences, entries: list[Tensor] | None = None) -> Tensor:
        """x (t, hidden) to (t, hidden). Appends the cache entries (t, cache_width) to `entries`."""
        q, k, v = self._qkv(x)
        if entries is not None:
            entries.append(torch.cat([rotate_halves(k, rotary).flatten(1), v.flatten(1)], dim=-1))
        out = rotary_attention(q, None, k, v, rotary, sequences, self.scale, interleaved=False)
        return self.o_proj(out.flatten(1))

    def decode(self, x: Tensor, rotary: Tensor, cache: Cache, layer: int) -> Tensor:
        """The next token (or few) of each cache row: x (b, hidden) to (b, hidden), b = rows x new."""
        q, k, v = self._qkv(x)
        q = rotate_halves(q, rotary)
        cache.append(layer, torch.cat([rotate_halves(k, rotary).flatten(1), v.flatten(1)], dim=-1))
        new = len(x) // cache.rows
        entries, seen = cache.prefix(layer, new)
        k, v = (part.unflatten(-1, (self.groups, -1)).transpose(1, 2) for part in entries.chunk(2, dim=-1))
        # The heads of a group stand where queries usually do, so that a group's keys are read once.
        each = self.heads // self.groups
        q = q.view(cache.rows, new, self.groups, each, -1).transpose(1, 2).flatten(2, 3)
        seen = seen if new == 1 else seen.repeat_interleave(each, dim=2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale)
        out = out.unflatten(2, (new, each)).transpose(1, 2)  # rows, new, groups, heads of a group, d
        return self.o_proj(out.reshape(len(x), -1))
