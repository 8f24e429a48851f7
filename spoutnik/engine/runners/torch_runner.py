"""The runner that any device has: the model's own modules over dense copies of the cache's blocks. The plain twin of the
native one, and the way to a GPU.

Whole prompts go through the network packed, as in training; everything else through `Transformer.extend`, sequences of as many
new tokens together.
"""

import math

import numpy as np
import torch
from torch import Tensor

from spoutnik.engine.runners.base import (
    BLOCK_SIZE,
    DecodeBatch,
    ForwardBatch,
    MultiStepOutput,
    decode_multi_step,
    draft_multi_step,
)
from spoutnik.model.cache import Cache
from spoutnik.model.packing import PackedSequences
from spoutnik.model.transformer import Transformer


class TorchRunner:
    """model: frozen, in its compute type (`inference_copy`).

    padded: decode in few shapes, rows and blocks rounded up to powers of two: what CUDA graphs need, which are recorded for
    each shape where the model's step can be (on a GPU, without experts: their sizes depend on the data).
    """

    max_multi_steps = 1

    def __init__(self, model: Transformer, padded: bool | None = None):
        self.model, self.config = model, model.config
        self.device = model.embed_tokens.weight.device
        self.padded = self.device.type == "cuda" if padded is None else padded
        self.mtp = False
        self.layers: list[Tensor] = []  # (blocks + 1, BLOCK_SIZE, cache_width) each; the last block is the filler's
        self._graphs: dict[tuple[int, int], _Graph] = {}

    @property
    def weights_nbytes(self) -> int:
        return sum(t.nbytes for t in self.model.parameters())

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
    def forward(self, batch: ForwardBatch, states: bool = False) -> tuple[Tensor, Tensor]:
        hidden = torch.empty(len(batch.tokens), self.config.hidden_size, dtype=self.model.compute_dtype, device=self.device)
        main = range(self.config.num_hidden_layers)
        for part in _parts(batch):
            tokens = batch.tokens[part.tokens].to(self.device)
            if part.whole:
                packing, entries = self._packing(part), []
                filled = torch.nn.functional.pad(tokens, (0, packing.padding))
                found = self.model.hidden(filled, packing, entries=entries)[:len(tokens)]
                self._store_packed(part, main, entries)
            elif part.new == 1:
                found = self._decode(tokens, part)
            else:
                cache = self._dense(part, main)
                found = self.model.extend(tokens.view(-1, part.new), cache).flatten(0, 1)
                self._store(part, main, cache)
            hidden[part.tokens.to(self.device)] = found
        logits = self.model.logits(hidden[batch.wanted.to(self.device)]).cpu()
        return logits, hidden if self.mtp or states else hidden[:0]

    @torch.no_grad()
    def draft(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.empty_like(hidden)
        module = range(self.config.num_hidden_layers, self.config.num_hidden_layers + 1)
        for part in _parts(batch):
            at = part.tokens.to(self.device)
            following = next_tokens[part.tokens].to(self.device)
            if part.whole:
                packing, entries = self._packing(part), []
                pad = (0, packing.padding)
                ahead = self.model.mtp.predict(torch.nn.functional.pad(hidden[at], (0, 0, *pad)),
                                               self.model.embed(torch.nn.functional.pad(following, pad)),
                                               self.model.rotary[packing.position_ids], packing, None, entries)[:len(at)]
                self._store_packed(part, module, entries)
            else:
                cache = self._dense(part, module)
                ahead = self.model.mtp_extend(hidden[at].view(-1, part.new, self.config.hidden_size),
                                              following.view(-1, part.new), cache).flatten(0, 1)
                self._store(part, module, cache)
            states[at] = ahead
        return self.model.logits(states[batch.wanted.to(self.device)]).cpu(), states

    def draft_multi_step(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor, settings: Tensor) -> Tensor:
        return draft_multi_step(self, batch, hidden, next_tokens, settings)

    def decode_multi_step(self, decoding: DecodeBatch, steps: int) -> MultiStepOutput:
        return decode_multi_step(self, decoding, steps)

    def _packing(self, part: "_Part") -> PackedSequences:
        return PackedSequences.of(part.counts.tolist(), self.device, pad=True)

    def _store_packed(self, part: "_Part", layers: range, entries: list[Tensor]) -> None:
        places = part.places.to(self.device)
        for layer, entry in zip(layers, entries):
            self._flat(layer)[places] = entry[:len(places)].to(self.model.compute_dtype)

    def _flat(self, layer: int) -> Tensor:
        return self.layers[layer].view(-1, self.config.cache_width)

    def _dense(self, part: "_Part", layers: range) -> Cache:
        """The blocks of each sequence side by side, as a cache whose layers are `layers`."""
        tables = part.tables.to(self.device)
        dense = [self.layers[layer][tables].flatten(1, 2) if layer in layers else None for layer in range(layers.stop)]
        return Cache(dense, part.contexts.to(self.device))

    def _store(self, part: "_Part", layers: range, cache: Cache) -> None:
        """The new entries of a dense cache back to their blocks."""
        row = torch.arange(cache.rows, device=self.device)[:, None]
        positions, places = cache.positions(part.new), part.places.to(self.device)
        for layer in layers:
            self._flat(layer)[places] = cache.layers[layer][row, positions].flatten(0, 1)

    def _decode(self, tokens: Tensor, part: "_Part") -> Tensor:
        """One token of each sequence: states (B, D)."""
        if not self.padded:
            cache = self._dense(part, range(self.config.num_hidden_layers))
            states = self.model.extend(tokens[:, None], cache)[:, 0]
            self._store(part, range(self.config.num_hidden_layers), cache)
            return states
        rows, blocks = _power(len(tokens)), _power(part.tables.shape[1])
        filler = len(self.layers[0]) - 1
        tables = torch.full((rows, blocks), filler)
        tables[:len(tokens), :part.tables.shape[1]] = part.tables
        inputs = (torch.nn.functional.pad(tokens, (0, rows - len(tokens))),
                  torch.nn.functional.pad(part.contexts, (0, rows - len(tokens))).to(self.device), tables.to(self.device))
        if self.device.type != "cuda" or self.config.has_experts:
            return self._static_step(*inputs)[:len(tokens)]
        if (rows, blocks) not in self._graphs:
            self._graphs[rows, blocks] = _Graph(self._static_step, inputs)
        return self._graphs[rows, blocks](inputs)[:len(tokens)].clone()

    def _static_step(self, tokens: Tensor, contexts: Tensor, tables: Tensor) -> Tensor:
        """tokens (B,), contexts (B,), tables (B, N) to states (B, D), nothing of it depending on the values: no shape, no
        branch."""
        cache = _StaticCache([store[tables].flatten(1, 2) for store in self.layers[:self.config.num_hidden_layers]], contexts)
        states = self.model.extend(tokens[:, None], cache)[:, 0]
        row = torch.arange(len(tokens), device=self.device)
        places = tables.gather(1, contexts[:, None] // BLOCK_SIZE)[:, 0] * BLOCK_SIZE + contexts % BLOCK_SIZE
        for layer, dense in enumerate(cache.layers):
            self._flat(layer)[places] = dense[row, contexts]
        return states


class _StaticCache(Cache):
    """All of the capacity is looked at, behind a mask: its length does not depend on what is in it."""

    def prefix(self, layer: int, new: int = 1) -> tuple[Tensor, Tensor]:
        store = self.layers[layer]
        seen = torch.arange(store.shape[1], device=store.device) <= self.positions(new)[..., None]
        return store, seen[:, None]


class _Graph:
    """A step recorded once and played back: the GPU's work without Python's."""

    def __init__(self, step, inputs: tuple[Tensor, ...]):
        self.inputs = tuple(t.clone() for t in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # warm: what is chosen or allocated at first use must not be recorded
            for _ in range(2):
                step(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = step(*self.inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for held, given in zip(self.inputs, inputs):
            held.copy_(given)
        self.graph.replay()
        return self.output


class _Part:
    """Some sequences of a batch, all whole prompts or all of `new` tokens each. tokens: their places among the batch's; places:
    where in the cache each of those is stored, blocks end to end."""

    def __init__(self, batch: ForwardBatch, sequences: Tensor, whole: bool):
        self.whole = whole
        self.counts, self.contexts = batch.counts[sequences], batch.contexts[sequences]
        self.new = int(self.counts[0])
        longest = int((self.contexts + self.counts).max())
        self.tables = batch.block_tables[sequences, :-(-longest // BLOCK_SIZE)]
        starts = (batch.counts.cumsum(0) - batch.counts)[sequences]
        row = torch.arange(len(sequences)).repeat_interleave(self.counts)
        place = torch.arange(len(row)) - (self.counts.cumsum(0) - self.counts)[row]
        self.tokens = starts[row] + place
        position = self.contexts[row] + place
        self.places = self.tables[row, position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE


def _parts(batch: ForwardBatch) -> list[_Part]:
    whole = batch.prompt & (batch.contexts == 0)
    parts = [_Part(batch, whole.nonzero()[:, 0], True)] if bool(whole.any()) else []
    for count in batch.counts[~whole].unique().tolist():
        parts.append(_Part(batch, (~whole & (batch.counts == count)).nonzero()[:, 0], False))
    return parts


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On a CPU without touching them: pages of a large cache come into being when they are first written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def inference_copy(model: Transformer) -> Transformer:
    """The same network with its weights in the compute type (the routers' biases stay float32), no gradients. A model that
    is frozen and in that type already is its own copy."""
    if not any(p.requires_grad for p in model.parameters()) and model.embed_tokens.weight.dtype == model.compute_dtype:
        return model
    with torch.device("meta"):
        copy = Transformer(model.config, model.compute_dtype, model.rotary)
    state = {name: t.detach().clone() if name.endswith("e_score_correction_bias")
             else t.detach().to(model.compute_dtype, copy=True) for name, t in model.state_dict().items()}
    copy.load_state_dict(state, assign=True)
    return copy.requires_grad_(False)
