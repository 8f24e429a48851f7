"""A runner on the native forward pass (native/forward.cpp). Plain twin: TorchRunner."""

import ctypes
import time
from collections.abc import Mapping
from ctypes import POINTER
from pathlib import Path

import torch
from torch import Tensor

from spoutnik.engine.quantization.expert_offload import ExpertOffload
from spoutnik.engine.quantization.packed_cache import folder_in_cache, packed_weights
from spoutnik.engine.quantization.packed_file import CheckpointSource, PackedFile, Progress
from spoutnik.engine.quantization.packed_matrix import PackedMatrices, multiply, pack
from spoutnik.engine.quantization.weight_groups import (
    EMBEDDING,
    ModelSource,
    WeightSource,
    predicted_nbytes,
    vectors,
    weight_groups,
)
from spoutnik.engine.runners.base import BLOCK_SIZE, DecodeBatch, ForwardBatch, MultiStepOutput
from spoutnik.engine.runners.packed_adapter import PackedAdapter
from spoutnik.errors import RunError
from spoutnik.hardware import available_memory
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LowRank
from spoutnik.model.rope import softmax_scale
from spoutnik.model.transformer import Transformer
from spoutnik.native import library
from spoutnik.native.kernels import address
from spoutnik.native.structs import BLOCK_POSITIONS, KINDS, Layer, LayerAdapter, Matrix, Model, MultiStep
from spoutnik.native.structs import Batch as NativeBatch
from spoutnik.parallel import cores, physical_cores
from spoutnik.units import size

# Weights up to this size stay in a core's share of the caches: then each thread computes whole sequences.
_MAX_CACHED_NBYTES = 24 << 20
_MAX_MULTI_STEPS = BLOCK_SIZE  # between two schedules: a sequence needs one more block for them at most


class NativeRunner:
    """Holds a model's weights packed: a later change of the model does not reach it.

    Args:
        packed, vectors: the matrices, and the norms and biases, by the keys of engine/quantization/weight_groups.py.
        embedding: (V, D) float32 or bfloat16, read in place.
        rotary: the table of Transformer.rotary_of.
        dtype: of the cache, float32 or bfloat16.
    """

    def __init__(self, config: ModelConfig, packed: dict[str, PackedMatrices], vectors: dict[str, Tensor], embedding: Tensor,
                 rotary: Tensor, dtype: torch.dtype, threads: int | None = None):
        assert BLOCK_POSITIONS == BLOCK_SIZE  # compared with the C++ side when the library was loaded
        self.config, self.dtype, self.packed, self.vectors = config, dtype, packed, vectors
        self.threads = threads or _fastest_threads(packed["head"])
        if embedding.dtype not in (torch.float32, torch.bfloat16):
            embedding = embedding.float()
        self.embedding, self.rotary = embedding.detach().contiguous(), rotary.float().contiguous()
        self.device = torch.device("cpu")
        self.caches: list[Tensor] = []
        self.mtp = False
        self.offload: ExpertOffload | None = None
        self.mapped_file: PackedFile | None = None  # that the experts are read from
        self.arrays: dict[str, ctypes.Array] = {}  # of matrices, by their groups' keys
        self.uses = torch.zeros(config.num_hidden_layers + config.num_nextn_predict_layers, max(config.n_routed_experts, 1),
                                dtype=torch.long)
        self._adapters: dict[int, PackedAdapter] = {}  # by number
        layers = config.num_hidden_layers
        self._layers = (Layer * len(self.uses))(*map(self._layer, range(len(self.uses))))
        self._main = self._model(self._layers, layers, "final_norm")
        if config.num_nextn_predict_layers:
            last = ctypes.cast(ctypes.byref(self._layers, layers * ctypes.sizeof(Layer)), POINTER(Layer))
            self._draft = self._model(last, 1, "mtp_norm")
            self._draft.enorm, self._draft.hnorm = (self._vector(key, config.hidden_size) for key in ("enorm", "hnorm"))
            self._draft.eh_proj = self._group("eh_proj", 1, 2 * config.hidden_size, config.hidden_size).matrix()

    @classmethod
    def of_model(cls, model: Transformer, quantize: str | None = None) -> "NativeRunner":
        """Of a model in memory, in its compute type."""
        source = ModelSource(model)
        embedding = model.embed_tokens.weight
        if embedding.requires_grad:  # training will change it
            embedding = embedding.detach().to(model.compute_dtype, copy=True)
        packed = _pack_all(source, quantize or _kind_of(model.compute_dtype, model.config))
        return cls(model.config, packed, vectors(source), embedding, model.rotary, model.compute_dtype)

    @classmethod
    def of_folder(cls, folder: Path, dtype: torch.dtype, quantize: str | None = None, memory: int | None = None,
                  progress: Progress | None = None) -> "NativeRunner":
        """Of a checkpoint, tensor by tensor. Quantized weights are packed once and kept on disk (packed_cache.py); routed
        experts that do not fit `memory` (bytes, a tenth of it left to the cache) stay there, mapped. All else is in memory:
        what becomes of the checkpoint's files later changes nothing."""
        checkpoint = Checkpoint.open(folder)
        source, config = CheckpointSource(checkpoint), checkpoint.config
        kind = quantize or _kind_of(dtype, config)
        needed, budget = predicted_nbytes(config, kind), _weights_budget(memory)
        exceeds = config.has_experts and needed > budget
        file = packed_weights(checkpoint, kind, progress) if quantize or exceeds else None
        if file is None and exceeds:
            raise RunError(f"{folder}: the weights take {size(needed)} and {size(budget)} of memory are for them; the experts "
                           f"would stay on disk, packed, and no file can be written beside the model or in "
                           f"{folder_in_cache(folder)}. Set XDG_CACHE_HOME to a folder on a disk with so much space, allow "
                           "more memory, or take a smaller model.")
        embedding = source(EMBEDDING)
        if checkpoint.tensors[EMBEDDING].is_blocks:  # decoded in float32, of which the model uses what `dtype` holds
            embedding = embedding.to(dtype)
        if file is not None:
            source.check()
            return cls.of_packed(file, config, embedding, dtype, memory)
        packed = _pack_all(source, kind)
        norms = vectors(source)
        source.check()
        return cls(config, packed, norms, embedding, Transformer.rotary_of(config), dtype)

    @classmethod
    def of_packed(cls, file: PackedFile, config: ModelConfig, embedding: Tensor, dtype: torch.dtype,
                  memory: int | None = None) -> "NativeRunner":
        """Of packed weights on disk; embedding and memory as above."""
        budget = _weights_budget(memory)
        exceeds = config.has_experts and embedding.nbytes + sum(file.tensors[key].size for key in file.groups) > budget
        mapped = {key: file.mapped(key) for key in file.groups if exceeds and ".experts_" in key}
        packed = {key: file.read(key) for key in file.groups if key not in mapped}
        runner = cls(config, packed | mapped, file.vectors(), embedding, Transformer.rotary_of(config), dtype)
        file.check()
        if mapped:
            budget -= embedding.nbytes + sum(group.nbytes for group in packed.values())
            runner.offload = ExpertOffload(mapped, runner.arrays, runner.uses, budget)
            runner.mapped_file = file
        return runner

    def check_files(self) -> None:
        if self.mapped_file is not None:
            self.mapped_file.check()

    @staticmethod
    def supports(config: ModelConfig, device: torch.device | str, dtype: torch.dtype) -> bool:
        """Whether there are kernels, and they can run the model on this device in this type."""
        keys = config.cache_width if config.kv_lora_rank else config.value_width
        odd = dtype == torch.bfloat16 and keys % 2  # bfloat16 is multiplied in pairs
        return (library() is not None and torch.device(device).type == "cpu" and not odd
                and dtype in (torch.float32, torch.bfloat16))

    @property
    def weights_nbytes(self) -> int:
        """In memory: of experts on disk, those that are held."""
        held = sum(packed.nbytes for key, packed in self.packed.items() if self.offload is None or ".experts_" not in key)
        held += self.embedding.nbytes
        return held if self.offload is None else held + self.offload.held_nbytes

    def bytes_per_block(self, mtp: bool = False) -> int:
        layers = self.config.num_hidden_layers + mtp
        return layers * BLOCK_SIZE * self.config.cache_width * self.dtype.itemsize

    def allocate(self, blocks: int, mtp: bool = False) -> None:
        shape = (blocks, BLOCK_SIZE, self.config.cache_width)
        self.caches = [torch.empty(shape, dtype=self.dtype) for _ in range(self.config.num_hidden_layers + mtp)]
        self.mtp = mtp
        for layer, cache in zip(self._layers, self.caches):
            layer.cache = cache.data_ptr()
        self._main.blocks = blocks
        if self.config.num_nextn_predict_layers:
            self._draft.blocks = blocks if mtp else 0  # without its cache, a draft is refused

    def copy_blocks(self, sources: Tensor, targets: Tensor) -> None:
        for cache in self.caches:
            cache[targets] = cache[sources]

    def pack_adapter(self, parts: Mapping[str, LowRank]) -> PackedAdapter:
        exact = self.packed["0.o"].kind == KINDS["float32"]
        return PackedAdapter(self.config, parts, torch.float32 if exact else torch.bfloat16)

    def set_adapter(self, number: int, packed: PackedAdapter | None) -> None:
        if packed is None:
            self._adapters.pop(number, None)
        else:
            self._adapters[number] = packed
        count = max(self._adapters, default=-1) + 1
        pointers = (ctypes.cast(self._adapters[n].layers, POINTER(LayerAdapter)) if n in self._adapters else
                    POINTER(LayerAdapter)() for n in range(count))
        self._main.adapters = (POINTER(LayerAdapter) * count)(*pointers)
        self._main.n_adapters = count
        self._main.low = max((packed.low for packed in self._adapters.values()), default=0)

    def forward(self, batch: ForwardBatch, states: bool = False) -> tuple[Tensor, Tensor]:
        hidden = torch.empty(len(batch.tokens) if self.mtp or states else 0, self.config.hidden_size)
        call, logits, tensors = self._batch(batch, batch.tokens, None, hidden, batch.adapters)
        _check("forward", library().spoutnik_forward(ctypes.byref(self._main), ctypes.byref(call)))
        self.check_files()
        if self.offload is not None:
            self.offload.after_pass()
        return logits, hidden

    def draft(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.empty_like(hidden)
        call, logits, tensors = self._batch(batch, next_tokens, hidden.contiguous(), states)
        _check("draft", library().spoutnik_forward(ctypes.byref(self._draft), ctypes.byref(call)))
        self.check_files()
        return logits, states

    def draft_multi_step(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor, settings: Tensor) -> Tensor:
        """Twin: base.draft_multi_step."""
        steps, _, count = settings.shape
        tokens, settings = torch.empty(steps, count, dtype=torch.long), settings.contiguous()
        call, logits, tensors = self._batch(batch, next_tokens, hidden.contiguous(), torch.empty_like(hidden))
        settings_address = address("draft_multi_step", "settings", settings, torch.float32, steps, 5, len(batch.logits_indices))
        _check("draft_multi_step", library().spoutnik_draft_multi_step(
            ctypes.byref(self._draft), ctypes.byref(call), steps, settings_address, tokens.data_ptr()))
        self.check_files()
        return tokens

    @property
    def max_multi_steps(self) -> int:
        """A step of a small model is shorter than Python's part of it; one of a large model is long enough to be alone."""
        return _MAX_MULTI_STEPS if self._main.small else 1

    def decode_multi_step(self, decoding: DecodeBatch, steps: int) -> MultiStepOutput:
        """Twin: base.decode_multi_step."""
        count = len(decoding.tokens)
        output = MultiStepOutput(torch.empty(count, steps, dtype=torch.long), torch.empty(count, steps),
                                 torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool))
        tensors = [getattr(decoding, name).contiguous() for name in _MULTI_STEP]
        one, width, ends = (count,), decoding.tables.shape[1], decoding.ends.shape[1]
        shapes = one, one, (count, width), (count, ends), one, one, one, (4, count)
        call = MultiStep(*_addresses("decode_multi_step", _MULTI_STEP, tensors, shapes), count, width, ends, steps,
                         self.threads, output.tokens.data_ptr(), output.logprobs.data_ptr(), output.counts.data_ptr(),
                         output.broken.data_ptr(), _address_of_adapters("decode_multi_step", decoding.adapters, count))
        _check("decode_multi_step", library().spoutnik_decode_multi_step(ctypes.byref(self._main), ctypes.byref(call)))
        self.check_files()
        return output

    def _batch(self, batch: ForwardBatch, tokens: Tensor, states: Tensor | None, hidden: Tensor,
               adapters: Tensor | None = None) -> tuple[NativeBatch, Tensor, list[Tensor]]:
        """The structure of a call, the logits that it will write, and the tensors that must live until then."""
        logits = torch.empty(len(batch.logits_indices), self.config.vocab_size)
        tensors = [t.contiguous() for t in (tokens, batch.counts, batch.contexts, batch.block_tables, batch.logits_indices,
                                            batch.prompt)]
        count, width, num_logits = len(batch.counts), batch.block_tables.shape[1], len(batch.logits_indices)
        shapes = (len(tokens),), (count,), (count,), (count, width), (num_logits,), (count,)
        states_address = None
        if states is not None:
            states_address = address("draft", "hidden", states, torch.float32, len(tokens), self.config.hidden_size)
        call = NativeBatch(*_addresses("forward", _BATCH, tensors, shapes), len(tokens), count, width, num_logits, self.threads,
                           states_address, hidden.data_ptr() or None, logits.data_ptr(),
                           _address_of_adapters("forward", adapters, count))
        return call, logits, [*tensors, states, hidden]

    def _layer(self, layer: int) -> Layer:
        config = self.config
        head = config.q_lora_rank or config.qk_head_dim
        widths = {"input_norm": config.hidden_size, "post_norm": config.hidden_size, "q_norm": head, "k_norm": head,
                  "kv_norm": config.kv_lora_rank, "correction": config.n_routed_experts}
        fields = {key: self._vector(f"{layer}.{key}", width) for key, width in widths.items()
                  if f"{layer}.{key}" in self.vectors}
        for key, shape in _group_shapes(config, layer).items():
            name = f"{layer}.{key}"
            packed = self._group(name, *shape)
            if key.startswith(("absorb", "experts")):
                self.arrays[name] = fields[key] = (Matrix * len(packed))(*map(packed.matrix, range(len(packed))))
            else:
                fields[key] = packed.matrix(0, self.vectors.get(name))
        return Layer(**fields, uses=self.uses[layer].data_ptr())

    def _vector(self, key: str, width: int) -> int:
        return address("NativeRunner", key, self.vectors[key], torch.float32, width)

    def _group(self, key: str, *shape: int) -> PackedMatrices:
        """Raises ValueError: the group is not (count, in, out)."""
        packed = self.packed[key]
        if (len(packed), packed.in_features, packed.out_features) != shape:
            raise ValueError(f"NativeRunner: {key} must be (count, in, out) = {shape}; it is {len(packed)} of "
                             f"({packed.in_features}, {packed.out_features}).")
        return packed

    def _model(self, layers, count: int, norm: str) -> Model:
        config = self.config
        has_groups = config.topk_method != "greedy"
        address("NativeRunner", "embedding", self.embedding, self.embedding.dtype, config.vocab_size, config.hidden_size)
        rotary = address("NativeRunner", "rotary", self.rotary, torch.float32, len(self.rotary), 2, config.rope_width // 2)
        return Model(
            hidden=config.hidden_size, heads=config.num_attention_heads, groups=config.num_key_value_heads, layers=count,
            vocabulary=config.vocab_size, q_rank=config.q_lora_rank or 0, latent=config.kv_lora_rank,
            nope=config.qk_nope_head_dim, rope=config.rope_width, value=config.value_width, experts=config.n_routed_experts,
            chosen=config.num_experts_per_tok, n_group=config.n_group if has_groups else 1,
            topk_group=config.topk_group if has_groups else 1, two_best=config.topk_method == "noaux_tc",
            normalize=config.norm_topk_prob, softmax=config.scoring_func == "softmax",
            half_cache=self.dtype == torch.bfloat16, half_embedding=self.embedding.dtype == torch.bfloat16,
            small=sum(packed.nbytes for packed in self.packed.values()) <= _MAX_CACHED_NBYTES, positions=len(self.rotary),
            routed_scale=config.routed_scaling_factor, softmax_scale=softmax_scale(config), eps=config.rms_norm_eps,
            rotary=rotary, final_norm=self._vector(norm, config.hidden_size),
            head=self._group("head", 1, config.hidden_size, config.vocab_size).matrix(), embedding=self.embedding.data_ptr(),
            layer=layers)


_BATCH = dict.fromkeys(("tokens", "counts", "contexts", "block_tables", "wanted"), torch.int64) | {"prompt": torch.bool}
_MULTI_STEP = (dict.fromkeys(("tokens", "contexts", "tables", "ends", "seeds", "generated", "limits"), torch.int64)
               | {"settings": torch.float32})


def _addresses(call: str, types: dict[str, torch.dtype], tensors: list[Tensor],
               shapes: tuple[tuple[int, ...], ...]) -> list[int]:
    """Addresses of contiguous tensors, each checked, in a few microseconds: a token of a small model takes few."""
    for (name, dtype), tensor, shape in zip(types.items(), tensors, shapes):
        if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_cpu:
            address(call, name, tensor, dtype, *shape)  # says what is wrong
    return [tensor.data_ptr() for tensor in tensors]


def _address_of_adapters(call: str, adapters: Tensor | None, count: int) -> int | None:
    return None if adapters is None else address(call, "adapters", adapters, torch.int64, count)


def _check(call: str, error: bytes | None) -> None:
    """Raises ValueError: the C++ side found wrong indices, before it computed anything."""
    if error is not None:
        raise ValueError(f"{call}: {error.decode()}.")


def _group_shapes(config: ModelConfig, layer: int) -> dict[str, tuple[int, int, int]]:
    """The groups of matrices of a layer that the forward pass reads: (count, in, out)."""
    d, heads, lanes = config.hidden_size, config.num_attention_heads, library().spoutnik_lanes()
    q, value, shapes = heads * config.qk_head_dim, config.value_width, {}

    def gated(prefix: str, count: int, width: int) -> None:
        shapes[f"{prefix}gate_up"] = count, d, -(-width // lanes) * lanes * 2
        shapes[f"{prefix}down"] = count, width, d

    shapes["first"] = 1, d, (config.q_lora_rank or q) + config.cache_width
    if config.is_mla:
        shapes["absorb_k"] = heads, config.qk_nope_head_dim, config.kv_lora_rank
        shapes["absorb_v"] = heads, config.kv_lora_rank, value
    if config.q_lora_rank:
        shapes["q_b"] = 1, config.q_lora_rank, q
    shapes["o"] = 1, heads * value, d
    if not config.is_moe_layer(layer):
        gated("", 1, config.intermediate_size)
        return shapes
    shapes["router"] = 1, d, config.n_routed_experts
    if config.n_shared_experts:
        gated("", 1, config.n_shared_experts * config.moe_intermediate_size)
    gated("experts_", config.n_routed_experts, config.moe_intermediate_size)
    return shapes


def _fastest_threads(head: PackedMatrices) -> int:
    """How many threads read a large matrix fastest, by trial: the second threads of cores add no memory bandwidth and slow the
    first ones down, yet on some machines all of them are needed."""
    if physical_cores() == cores() or head.nbytes < _MAX_CACHED_NBYTES:
        return cores()
    x, seconds = torch.ones(1, head.in_features), {}
    for threads in (physical_cores(), cores()):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            multiply(head, x, threads=threads)
            times.append(time.perf_counter() - began)
        seconds[threads] = sorted(times)[2]
    return min(seconds, key=seconds.get)


def _pack_all(source: WeightSource, kind: str) -> dict[str, PackedMatrices]:
    return {key: pack(weights, kind) for key, weights, kind in weight_groups(source, kind)}


def _weights_budget(memory: int | None) -> int:
    """Bytes for weights: the rest of `memory`, or of what is available, is for the cache and for what a step needs."""
    return int(0.8 * available_memory()) if memory is None else int(0.9 * memory)


def _kind_of(dtype: torch.dtype, config: ModelConfig) -> str:
    """bfloat16 is packed as bf12 where decoding waits for memory; weights in the processor's caches gain nothing."""
    if dtype != torch.bfloat16:
        return "float32"
    memory_bound = predicted_nbytes(config, "bf12") > _MAX_CACHED_NBYTES
    return "bf12" if memory_bound and library().spoutnik_has_fast_bf12() else "bfloat16"
