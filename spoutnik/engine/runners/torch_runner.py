"""TorchRunner: the model's own modules over dense copies of the cache's blocks, on any device. The plain twin of NativeRunner.

Whole prompts go through the network packed, as in training; all else through `Transformer.extend`, sequences with the same
number of new tokens together.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.engine.runners.base import BLOCK_SIZE, ForwardBatch, decode_multi_step, draft_multi_step
from spoutnik.model.cache import Cache
from spoutnik.model.lora import LowRank, adaptable, without_adapters
from spoutnik.model.packing import PackedSequences
from spoutnik.model.row_adapters import RowAdapters, rows_with_adapters
from spoutnik.model.transformer import Transformer


class TorchRunner:
    """model: frozen, in its compute type (`inference_copy`).

    padded: decode in few shapes, with rows and blocks rounded up to powers of two, as CUDA graphs need it. On a GPU a graph is
    recorded for each shape, unless the model has experts, whose sizes depend on the data.
    """

    max_multi_steps = 1
    draft_multi_step, decode_multi_step = draft_multi_step, decode_multi_step  # the functions of base.py as methods

    def __init__(self, model: Transformer, padded: bool | None = None):
        self.model, self.config = model, model.config
        self.device = model.embed_tokens.weight.device
        self.padded = self.device.type == "cuda" if padded is None else padded
        self.mtp = False
        self.layers: list[Tensor] = []  # (blocks + 1, BLOCK_SIZE, cache_width) each; the last block is for padding
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._row_adapters: dict[str, RowAdapters] = {}  # by the names of linear maps

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and cache."""
        return self.model.compute_dtype

    @property
    def weights_nbytes(self) -> int:
        return sum(t.nbytes for t in self.model.parameters())

    def check_files(self) -> None:
        """All weights are in memory."""

    def bytes_per_block(self) -> int:
        return BLOCK_SIZE * self.config.cache_width * self.model.compute_dtype.itemsize * self.config.num_hidden_layers

    def allocate(self, blocks: int, mtp: bool = False) -> None:
        shape = (blocks + 1, BLOCK_SIZE, self.config.cache_width)
        self.mtp = mtp
        self.layers = [_zeros(shape, self.model.compute_dtype, self.device)
                       for _ in range(self.config.num_hidden_layers + mtp)]
        self._graphs.clear()

    def copy_blocks(self, sources: Tensor, targets: Tensor) -> None:
        sources, targets = sources.to(self.device), targets.to(self.device)
        for store in self.layers:
            store[targets] = store[sources]

    @torch.no_grad()
    def pack_adapter(self, parts: Mapping[str, LowRank]) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: tuple(half.detach().to(self.device, self.dtype, copy=True)
                            for half in (part.lora_A, part.scale * part.lora_B)) for name, part in parts.items()}

    def set_adapter(self, number: int, packed: dict[str, tuple[Tensor, Tensor]] | None) -> None:
        if not self._row_adapters and packed is not None:
            self.model = without_adapters(self.model)  # the caller's own model stays without
        for name, module in adaptable(self.model).items():
            if packed is not None and name in packed:
                self._row_adapters.setdefault(name, RowAdapters()).parts[number] = packed[name]
                module.adapter = self._row_adapters[name]
            elif name in self._row_adapters:
                self._row_adapters[name].parts.pop(number, None)

    @torch.no_grad()
    def forward(self, batch: ForwardBatch, states: bool = False) -> tuple[Tensor, Tensor]:
        hidden = torch.empty(len(batch.tokens), self.config.hidden_size, dtype=self.model.compute_dtype, device=self.device)
        main = range(self.config.num_hidden_layers)
        for part in _parts(batch):
            tokens = batch.tokens[part.tokens].to(self.device)
            if part.is_prompt:
                sequences, entries = self._sequences(part), []
                padded = F.pad(tokens, (0, sequences.padding))
                with part.with_adapters(self.device):
                    new = self.model.hidden(padded, sequences, entries=entries)[:len(tokens)]
                self._store_packed(part, main, entries)
            elif part.num_new == 1:
                new = self._decode(tokens, part)
            else:
                cache = self._dense(part, main)
                with part.with_adapters(self.device):
                    new = self.model.extend(tokens.view(-1, part.num_new), cache).flatten(0, 1)
                self._store(part, main, cache)
            hidden[part.tokens.to(self.device)] = new
        logits = self.model.logits(hidden[batch.logits_indices.to(self.device)]).cpu()
        return logits, hidden if self.mtp or states else hidden[:0]

    @torch.no_grad()
    def draft(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.empty_like(hidden)
        module = range(self.config.num_hidden_layers, self.config.num_hidden_layers + 1)
        for part in _parts(batch):
            indices = part.tokens.to(self.device)
            successors = next_tokens[part.tokens].to(self.device)
            if part.is_prompt:
                sequences, entries = self._sequences(part), []
                pad = (0, sequences.padding)
                new = self.model.mtp.predict(F.pad(hidden[indices], (0, 0, *pad)),
                                             self.model.embed(F.pad(successors, pad)),
                                             self.model.rotary[sequences.position_ids], sequences, None, entries)[:len(indices)]
                self._store_packed(part, module, entries)
            else:
                cache = self._dense(part, module)
                new = self.model.mtp_extend(hidden[indices].view(-1, part.num_new, self.config.hidden_size),
                                            successors.view(-1, part.num_new), cache).flatten(0, 1)
                self._store(part, module, cache)
            states[indices] = new
        return self.model.logits(states[batch.logits_indices.to(self.device)]).cpu(), states

    def _sequences(self, part: "_Part") -> PackedSequences:
        return PackedSequences.of(part.counts.tolist(), self.device, pad=True)

    def _store_packed(self, part: "_Part", layers: range, entries: list[Tensor]) -> None:
        slots = part.slots.to(self.device)
        for layer, entry in zip(layers, entries):
            self._flat(layer)[slots] = entry[:len(slots)].to(self.model.compute_dtype)

    def _flat(self, layer: int) -> Tensor:
        return self.layers[layer].view(-1, self.config.cache_width)

    def _dense(self, part: "_Part", layers: range) -> Cache:
        """A cache with the blocks of each sequence side by side, for `layers` only."""
        tables = part.tables.to(self.device)
        dense = [self.layers[layer][tables].flatten(1, 2) if layer in layers else None for layer in range(layers.stop)]
        return Cache(dense, part.contexts.to(self.device))

    def _store(self, part: "_Part", layers: range, cache: Cache) -> None:
        """Copies the new entries of a dense cache to their blocks."""
        row = torch.arange(cache.rows, device=self.device)[:, None]
        positions, slots = cache.positions(part.num_new), part.slots.to(self.device)
        for layer in layers:
            self._flat(layer)[slots] = cache.layers[layer][row, positions].flatten(0, 1)

    def _decode(self, tokens: Tensor, part: "_Part") -> Tensor:
        """States (B, D) of one token of each sequence."""
        if not self.padded or part.adapters is not None:  # a graph has no rows that come and go
            cache = self._dense(part, range(self.config.num_hidden_layers))
            with part.with_adapters(self.device):
                states = self.model.extend(tokens[:, None], cache)[:, 0]
            self._store(part, range(self.config.num_hidden_layers), cache)
            return states
        rows, blocks = _next_power_of_2(len(tokens)), _next_power_of_2(part.tables.shape[1])
        tables = torch.full((rows, blocks), len(self.layers[0]) - 1)
        tables[:len(tokens), :part.tables.shape[1]] = part.tables
        inputs = (F.pad(tokens, (0, rows - len(tokens))),
                  F.pad(part.contexts, (0, rows - len(tokens))).to(self.device), tables.to(self.device))
        if self.device.type != "cuda" or self.config.has_experts:
            return self._static_step(*inputs)[:len(tokens)]
        if (rows, blocks) not in self._graphs:
            self._graphs[rows, blocks] = _Graph(self._static_step, inputs)
        return self._graphs[rows, blocks](inputs)[:len(tokens)].clone()

    def _static_step(self, tokens: Tensor, contexts: Tensor, tables: Tensor) -> Tensor:
        """tokens (B,), contexts (B,), tables (B, N) to states (B, D). No shape and no branch depends on values."""
        cache = _StaticCache([store[tables].flatten(1, 2) for store in self.layers[:self.config.num_hidden_layers]], contexts)
        states = self.model.extend(tokens[:, None], cache)[:, 0]
        row = torch.arange(len(tokens), device=self.device)
        slots = tables.gather(1, contexts[:, None] // BLOCK_SIZE)[:, 0] * BLOCK_SIZE + contexts % BLOCK_SIZE
        for layer, dense in enumerate(cache.layers):
            self._flat(layer)[slots] = dense[row, contexts]
        return states


class _StaticCache(Cache):
    """Attends to all of its capacity under a mask, so that no shape depends on the lengths."""

    def prefix(self, layer: int, new: int = 1) -> tuple[Tensor, Tensor]:
        store = self.layers[layer]
        seen = torch.arange(store.shape[1], device=store.device) <= self.positions(new)[..., None]
        return store, seen[:, None]


class _Graph:
    """A step recorded as a CUDA graph, replayed without Python's overhead."""

    def __init__(self, step, inputs: tuple[Tensor, ...]):
        self.inputs = tuple(t.clone() for t in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # warm-up: first-use choices and allocations must not be recorded
            for _ in range(2):
                step(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = step(*self.inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for static, new in zip(self.inputs, inputs):
            static.copy_(new)
        self.graph.replay()
        return self.output


class _Part:
    """Some sequences of a batch: whole prompts (is_prompt), or all with `num_new` new tokens. tokens: their indices among the
    batch's tokens. slots: the cache slot of each (block * BLOCK_SIZE + offset). adapters: the adapter's number of each; None
    where no sequence has one."""

    def __init__(self, batch: ForwardBatch, sequences: Tensor, is_prompt: bool):
        self.is_prompt = is_prompt
        self.counts, self.contexts = batch.counts[sequences], batch.contexts[sequences]
        self.num_new = int(self.counts[0])
        longest = int((self.contexts + self.counts).max())
        self.tables = batch.block_tables[sequences, :-(-longest // BLOCK_SIZE)]
        starts = (batch.counts.cumsum(0) - batch.counts)[sequences]
        row = torch.arange(len(sequences)).repeat_interleave(self.counts)
        offset = torch.arange(len(row)) - (self.counts.cumsum(0) - self.counts)[row]
        self.tokens = starts[row] + offset
        position = self.contexts[row] + offset
        self.slots = self.tables[row, position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
        some = batch.adapters is not None and bool((batch.adapters[sequences] >= 0).any())
        self.adapters = batch.adapters[sequences][row] if some else None

    def with_adapters(self, device: torch.device) -> AbstractContextManager[None]:
        return rows_with_adapters(None if self.adapters is None else self.adapters.to(device))


def _parts(batch: ForwardBatch) -> list[_Part]:
    whole = batch.prompt & (batch.contexts == 0)
    parts = [_Part(batch, whole.nonzero()[:, 0], True)] if bool(whole.any()) else []
    for count in batch.counts[~whole].unique().tolist():
        parts.append(_Part(batch, (~whole & (batch.counts == count)).nonzero()[:, 0], False))
    return parts


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On a CPU without touching them: pages of a large cache are allocated when they are first written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def _next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def inference_copy(model: Transformer) -> Transformer:
    """The same network without gradients, its weights in the compute type (the routers' biases stay float32). A frozen model
    in that type is returned as it is."""
    if not any(p.requires_grad for p in model.parameters()) and model.embed_tokens.weight.dtype == model.compute_dtype:
        return model
    with torch.device("meta"):
        copy = Transformer(model.config, model.compute_dtype, model.rotary)
    state = {name: t.detach().clone() if name.endswith("e_score_correction_bias")
             else t.detach().to(model.compute_dtype, copy=True) for name, t in model.state_dict().items()}
    copy.load_state_dict(state, assign=True)
    return copy.requires_grad_(False)
