"""An adapter packed for the native forward pass (native/low_rank.h), beside the groups of matrices that it reads
(engine/quantization/weight_groups.py).

Maps that share their input share one product with A: their A lie side by side. Each block of outputs is made of its own map's
numbers alone, where maps begin with a block; in networks so small that they do not, B has zeros for the others.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LowRank as TrainedPart
from spoutnik.native import library
from spoutnik.native.kernels import address
from spoutnik.native.structs import LayerAdapter, LowRank

Half = tuple[Tensor, Tensor]  # A (r, in) and scale * B (out, r)


class PackedAdapter:
    """layers: the structures for the kernels. low: the most numbers that A x has of a row, in any layer and over all heads.

    dtype: of the numbers, float32 or bfloat16."""

    def __init__(self, config: ModelConfig, parts: Mapping[str, TrainedPart], dtype: torch.dtype):
        self._config, self._lanes, self._dtype = config, library().spoutnik_lanes(), dtype
        self._halves = {name: (part.lora_A.detach().float(), (part.scale * part.lora_B.detach()).float())
                        for name, part in parts.items()}
        self._tensors: list[Tensor] = []  # behind the structures' addresses
        self.low = 0
        self.layers = (LayerAdapter * config.num_hidden_layers)(*map(self._layer, range(config.num_hidden_layers)))
        del self._halves

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors)

    def _layer(self, layer: int) -> LayerAdapter:
        config, attention = self._config, f"layers.{layer}.self_attn."
        heads, dense = config.num_attention_heads, f"layers.{layer}.mlp."
        queries = heads * config.qk_head_dim
        if config.is_moe_layer(layer):
            dense += "shared_experts."
        fields = {"o": self._joined([f"{attention}o_proj"], [config.hidden_size]),
                  "down": self._joined([f"{dense}down_proj"], [config.hidden_size]),
                  "gate_up": self._interleaved([f"{dense}gate_proj", f"{dense}up_proj"])}
        if not config.is_mla:
            keys = config.num_key_value_heads * config.qk_head_dim
            fields["first"] = self._joined([f"{attention}{part}_proj" for part in "qkv"], [queries, keys, keys])
            return LayerAdapter(**fields)
        down = ("q_a_proj", config.q_lora_rank) if config.q_lora_rank else ("q_proj", queries)
        fields["first"] = self._joined([attention + down[0], f"{attention}kv_a_proj_with_mqa"], [down[1], config.cache_width])
        fields["q_b"] = self._joined([f"{attention}q_b_proj"], [queries])
        if (half := self._halves.get(f"{attention}kv_b_proj")) is not None:
            fields["keys"], fields["values"] = self._absorbed(*half)
        return LayerAdapter(**fields)

    def _joined(self, names: list[str], outputs: list[int]) -> LowRank:
        """Of maps whose outputs follow each other."""
        halves = [self._halves.get(name) for name in names]
        if not any(halves):
            return LowRank()
        if any(count % self._lanes for count in outputs[:-1]):
            inputs = next(half[0].shape[1] for half in halves if half)
            whole = [half or (torch.zeros(0, inputs), torch.zeros(count, 0)) for half, count in zip(halves, outputs)]
            joined = torch.cat([a for a, _ in whole]), torch.block_diag(*[b for _, b in whole])
            return self._pack(*self._shared_input([joined]))
        a, blocks, starts = self._shared_input(halves, outputs)
        return self._pack(a, blocks, starts)

    def _interleaved(self, names: list[str]) -> LowRank:
        """Of the two whose blocks of outputs alternate."""
        halves = [self._halves.get(name) for name in names]
        if not any(halves):
            return LowRank()
        width = next(half[1].shape[0] for half in halves if half)
        a, blocks, starts = self._shared_input(halves, [width, width])
        return self._pack(a, blocks.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1), starts.view(2, -1).T.flatten())

    def _shared_input(self, halves: list[Half | None], outputs: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """A (in, low), B (blocks, rank, lanes) and where in A x each block's numbers begin (blocks,)."""
        outputs = outputs or [half[1].shape[0] for half in halves if half]
        rank = max(half[0].shape[0] for half in halves if half)
        rows, blocks, starts, at = [], [], [], 0
        for half, count in zip(halves, outputs):
            number = -(-count // self._lanes)
            if half is None:
                blocks.append(torch.zeros(number, rank, self._lanes))
                starts += [-1] * number
                continue
            rows.append(half[0])
            blocks.append(self._blocks(half[1], rank))
            starts += [at] * number
            at += len(half[0])
        a = torch.cat(rows).T
        low = max(starts) + rank
        return F.pad(a, (0, low - a.shape[1])), torch.cat(blocks), torch.tensor(starts)

    def _blocks(self, b: Tensor, rank: int) -> Tensor:
        """B (out, r) as (blocks, rank, lanes), filled with zeros."""
        b = F.pad(b, (0, rank - b.shape[1], 0, -len(b) % self._lanes))
        return b.unflatten(0, (-1, self._lanes)).transpose(1, 2)

    def _absorbed(self, a: Tensor, b: Tensor) -> tuple[LowRank, LowRank]:
        """kv_b_proj's, by head. Keys: the query's numbers times B, then A: the latent. Values: the latent times A, then B."""
        config, heads, rank = self._config, self._config.num_attention_heads, len(a)
        keys, values = b.unflatten(0, (heads, -1)).split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        latent, value_blocks = self._blocks(a.T, rank), torch.stack([self._blocks(value, rank) for value in values])
        return (self._pack(keys, latent, torch.zeros(len(latent), dtype=torch.long), heads),
                self._pack(a.T, value_blocks, torch.zeros(value_blocks.shape[1], dtype=torch.long), heads))

    def _pack(self, a: Tensor, b: Tensor, starts: Tensor, heads: int = 1) -> LowRank:
        """a (heads?, in, low), b (heads?, blocks, rank, lanes)."""
        a = F.pad(a, (0, -a.shape[-1] % self._lanes)).to(self._dtype).contiguous()
        b, starts = b.to(self._dtype).contiguous(), starts.contiguous()
        self._tensors += [a, b, starts]
        inputs, low = a.shape[-2:]
        self.low = max(self.low, heads * low)
        return LowRank(address("adapter", "a", a, self._dtype, *a.shape), address("adapter", "b", b, self._dtype, *b.shape),
                       address("adapter", "starts", starts, torch.int64, b.shape[-3]), inputs, low, b.shape[-2],
                       a[0].numel() if a.dim() == 3 else 0, b[0].numel() if b.dim() == 4 else 0,
                       self._dtype == torch.bfloat16)
