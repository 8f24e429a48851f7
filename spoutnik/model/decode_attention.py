"""Attention of one new token per row over its cache: the native kernel, and its plain twin."""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.native import library


def decode_attention(q: Tensor, cache: Tensor, lengths: Tensor, groups: int, value_width: int, value_offset: int,
                     scale: float) -> Tensor:
    """q (B, H, d), cache (B, capacity, width), lengths (B,) visible positions of each row; returns (B, H, value_width).

    Heads share keys and values in `groups`. In one position's entry, the keys of group g start at g * d and its values at
    value_offset + g * value_width. MLA: one group, the values inside the keys.
    """
    name = {torch.float32: "attend_float32", torch.bfloat16: "attend_bfloat16"}.get(q.dtype)
    native = library() if name and q.device.type == "cpu" else None
    if native is None:
        return decode_attention_plain(q, cache, lengths, groups, value_width, value_offset, scale)
    rows, heads, key_width = q.shape
    q, out = q.contiguous(), q.new_empty(rows, heads, value_width)
    assert cache.stride(2) == 1 and cache.stride(1) == cache.shape[2] and cache.dtype == q.dtype
    sizes = (rows, heads, groups, key_width, value_width, value_offset, cache.shape[2], cache.stride(0))
    getattr(native, name)(*(ctypes.c_void_p(t.data_ptr()) for t in (q, cache, lengths, out)),
                          *map(ctypes.c_int64, sizes), ctypes.c_float(scale))
    return out


def decode_attention_plain(q: Tensor, cache: Tensor, lengths: Tensor, groups: int, value_width: int, value_offset: int,
                           scale: float) -> Tensor:
    rows, heads, key_width = q.shape
    longest = int(lengths.max())
    seen = torch.arange(longest, device=q.device) < lengths[:, None]
    entries = cache[:, :longest]
    k = entries[..., :groups * key_width].unflatten(-1, (groups, key_width)).transpose(1, 2)
    v = entries[..., value_offset:value_offset + groups * value_width].unflatten(-1, (groups, value_width)).transpose(1, 2)
    # The heads of a group stand where queries usually do, so that a group's keys are read once.
    out = F.scaled_dot_product_attention(q.unflatten(1, (groups, -1)), k, v, attn_mask=seen[:, None, None], scale=scale)
    return out.flatten(1, 2)
