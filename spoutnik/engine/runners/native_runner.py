"""The native forward pass (native/forward.cpp) as a runner; its plain twin is TorchRunner."""

import ctypes
import time
from ctypes import POINTER, c_double, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from spoutnik.engine.quantization.expert_offload import Offload
from spoutnik.engine.quantization.packed_file import CheckpointSource, PackedFile, Progress, place_of, write
from spoutnik.engine.quantization.packed_matrix import (
    EMBEDDING,
    Matrix,
    ModelSource,
    Packed,
    floats,
    groups,
    multiply,
    pack,
    predicted_nbytes,
)
from spoutnik.engine.runners.base import BLOCK_SIZE, DecodeBatch, ForwardBatch, MultiStepOutput
from spoutnik.hardware import available_memory
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.config import ModelConfig
from spoutnik.model.rope import softmax_scale
from spoutnik.model.transformer import Transformer
from spoutnik.native import library
from spoutnik.parallel import cores, physical_cores

# Weights up to this size stay in a core's share of the caches: then each thread computes whole sequences.
_SMALL = 24 << 20
_MOST_AHEAD = BLOCK_SIZE  # steps between two looks at what else there is to do; a row needs one more block for them at most


class _Layer(ctypes.Structure):
    _fields_ = ([(name, c_void_p) for name in ("input_norm", "post_norm", "q_norm", "k_norm", "kv_norm", "correction")]
                + [(name, Matrix) for name in ("first", "q_b", "o")]
                + [(name, POINTER(Matrix)) for name in ("absorb_k", "absorb_v")]
                + [(name, Matrix) for name in ("gate_up", "down", "router")]
                + [(name, POINTER(Matrix)) for name in ("experts_gate_up", "experts_down")]
                + [("cache", c_void_p), ("uses", c_void_p)])


class _Model(ctypes.Structure):
    _fields_ = ([(name, c_int64) for name in (
                    "hidden", "heads", "groups", "layers", "vocabulary", "q_rank", "latent", "nope", "rope", "value", "experts",
                    "chosen", "n_group", "topk_group", "two_best", "normalise", "softmax", "half_cache", "half_embedding",
                    "small")]
                + [(name, c_double) for name in ("routed_scale", "softmax_scale", "eps")]
                + [("rotary", c_void_p), ("final_norm", c_void_p), ("head", Matrix), ("embedding", c_void_p),
                   ("enorm", c_void_p), ("hnorm", c_void_p), ("eh_proj", Matrix), ("layer", POINTER(_Layer))])


class _Batch(ctypes.Structure):
    _fields_ = ([(name, c_void_p) for name in ("tokens", "counts", "contexts", "tables", "wanted", "prompt")]
                + [(name, c_int64) for name in ("sequences", "table_width", "n_wanted", "threads")]
                + [(name, c_void_p) for name in ("states", "hidden", "logits")])


class _Ahead(ctypes.Structure):
    _fields_ = ([(name, c_void_p) for name in ("tokens", "contexts", "tables", "ends", "seeds", "generated", "limits",
                                               "settings")]
                + [(name, c_int64) for name in ("sequences", "table_width", "ends_width", "steps", "threads")]
                + [(name, c_void_p) for name in ("chosen", "log_probs", "made", "broken")])


class NativeRunner:
    """Holds a model's weights packed: a later change of the model does not reach it.

    Args:
        packed, norms: the matrices and the small vectors, by the keys of engine/quantization/packed_matrix.py.
        embedding: (V, D) float32 or bfloat16, read in place.
        rotary: the table of Transformer.rotary_of.
        dtype: of the cache, float32 or bfloat16.
    """

    def __init__(self, config: ModelConfig, packed: dict[str, Packed], norms: dict[str, Tensor], embedding: Tensor,
                 rotary: Tensor, dtype: torch.dtype, threads: int | None = None):
        assert library().block_positions() == BLOCK_SIZE
        self.config, self.dtype, self.packed, self.floats = config, dtype, packed, norms
        self.threads = threads or _fastest_threads(packed["head"])
        if embedding.dtype not in (torch.float32, torch.bfloat16):
            embedding = embedding.float()
        self.embedding, self.rotary = embedding.detach().contiguous(), rotary.contiguous()
        self.device = torch.device("cpu")
        self.caches: list[Tensor] = []
        self.mtp = False
        self.offload: Offload | None = None
        self.arrays: dict[str, ctypes.Array] = {}  # of matrices, by their groups' keys
        self.uses = torch.zeros(config.num_hidden_layers + config.num_nextn_predict_layers, max(config.n_routed_experts, 1),
                                dtype=torch.long)
        layers = config.num_hidden_layers
        self._layers = (_Layer * len(self.uses))(*map(self._layer, range(len(self.uses))))
        self._main = self._model(self._layers, layers, "final_norm")
        if config.num_nextn_predict_layers:
            last = ctypes.cast(ctypes.byref(self._layers, layers * ctypes.sizeof(_Layer)), POINTER(_Layer))
            self._draft = self._model(last, 1, "mtp_norm")
            self._draft.enorm, self._draft.hnorm = (self.floats[key].data_ptr() for key in ("enorm", "hnorm"))
            self._draft.eh_proj = self.packed["eh_proj"].matrix()

    @classmethod
    def of_model(cls, model: Transformer, quantize: str | None = None) -> "NativeRunner":
        """Of a model in memory, in its compute type."""
        source = ModelSource(model)
        kind = quantize or _kind_of(model.compute_dtype, model.config)
        packed = {key: pack(weights, kind) for key, weights, kind in groups(source, kind)}
        embedding = model.embed_tokens.weight
        if embedding.requires_grad:  # it will change under us
            embedding = embedding.detach().to(model.compute_dtype, copy=True)
        return cls(model.config, packed, floats(source), embedding, model.rotary, model.compute_dtype)

    @classmethod
    def of_folder(cls, folder: Path, dtype: torch.dtype, quantize: str | None = None, memory: int | None = None,
                  progress: Progress | None = None) -> "NativeRunner":
        """Of a checkpoint, tensor by tensor. Quantised weights are made once and kept on disk beside the model; routed experts
        that `memory` (bytes, a tenth of it left to the cache) does not hold stay there, packed, and are mapped."""
        checkpoint = Checkpoint.open(folder)
        source, config, room = CheckpointSource(checkpoint), checkpoint.config, _room(memory)
        kind = quantize or _kind_of(dtype, config)
        if quantize is None and not (config.has_experts and predicted_nbytes(config, kind) > room):
            packed = {key: pack(weights, kind) for key, weights, kind in groups(source, kind)}
            return cls(config, packed, floats(source), source(EMBEDDING), Transformer.rotary_of(config), dtype)
        path = place_of(checkpoint, kind)
        if not path.exists():
            bytes_read = sum(stored.size for stored in checkpoint.tensors.values())
            write(path, groups(source, kind), floats(source), progress, bytes_read)
        return cls.of_packed(PackedFile.open(path), config, source(EMBEDDING), dtype, memory)

    @classmethod
    def of_packed(cls, file: PackedFile, config: ModelConfig, embedding: Tensor, dtype: torch.dtype,
                  memory: int | None = None) -> "NativeRunner":
        """Of packed weights on disk; embedding as above."""
        room = _room(memory)
        larger = config.has_experts and sum(file.tensors[key].size for key in file.groups) > room
        mapped = {key: file.mapped(key) for key in file.groups if larger and ".experts_" in key}
        packed = {key: file.read(key) for key in file.groups if key not in mapped}
        runner = cls(config, packed | mapped, file.floats(), embedding, Transformer.rotary_of(config), dtype)
        if mapped:
            runner.offload = Offload(mapped, runner.arrays, runner.uses, room - sum(group.nbytes for group in packed.values()))
        return runner

    @staticmethod
    def serves(config: ModelConfig, device: torch.device | str, dtype: torch.dtype) -> bool:
        """Whether the pass can be native here: a compiler was found, and the model is on the CPU in a type it knows."""
        keys = config.cache_width if config.kv_lora_rank else config.value_width
        odd = dtype == torch.bfloat16 and keys % 2  # they are multiplied in pairs
        return (library() is not None and torch.device(device).type == "cpu" and not odd
                and dtype in (torch.float32, torch.bfloat16))

    @property
    def weights_nbytes(self) -> int:
        """In memory: experts that stay on disk count for the part of them that is held."""
        held = sum(packed.nbytes for key, packed in self.packed.items() if self.offload is None or ".experts_" not in key)
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

    def copy_blocks(self, sources: Tensor, targets: Tensor) -> None:
        for cache in self.caches:
            cache[targets] = cache[sources]

    def forward(self, batch: ForwardBatch, states: bool = False) -> tuple[Tensor, Tensor]:
        hidden = torch.empty(len(batch.tokens) if self.mtp or states else 0, self.config.hidden_size)
        call, logits, kept = self._call(batch, batch.tokens, None, hidden)
        library().forward_batch(ctypes.byref(self._main), ctypes.byref(call))
        if self.offload is not None:
            self.offload.after_pass()
        return logits, hidden

    def draft(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.empty_like(hidden)
        call, logits, kept = self._call(batch, next_tokens, hidden.contiguous(), states)
        library().forward_batch(ctypes.byref(self._draft), ctypes.byref(call))
        return logits, states

    def draft_multi_step(self, batch: ForwardBatch, hidden: Tensor, next_tokens: Tensor, settings: Tensor) -> Tensor:
        """Twin: base.draft_multi_step."""
        ahead, _, wanted = settings.shape
        tokens, settings = torch.empty(ahead, wanted, dtype=torch.long), settings.contiguous()
        call, logits, kept = self._call(batch, next_tokens, hidden.contiguous(), torch.empty_like(hidden))
        library().draft_ahead(ctypes.byref(self._draft), ctypes.byref(call), c_int64(ahead), c_void_p(settings.data_ptr()),
                              c_void_p(tokens.data_ptr()))
        return tokens

    @property
    def max_multi_steps(self) -> int:
        """A small model's step is shorter than Python's part of it; a large one's is long enough to be alone."""
        return _MOST_AHEAD if self._main.small else 1

    def decode_multi_step(self, decoding: DecodeBatch, steps: int) -> MultiStepOutput:
        """Twin: base.decode_multi_step."""
        d, count = decoding, len(decoding.tokens)
        made = MultiStepOutput(torch.empty(count, steps, dtype=torch.long), torch.empty(count, steps),
                               torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool))
        kept = [t.contiguous() for t in (d.tokens, d.contexts, d.tables, d.ends, d.seeds, d.generated, d.limits, d.settings)]
        call = _Ahead(*(t.data_ptr() for t in kept), count, d.tables.shape[1], d.ends.shape[1], steps, self.threads,
                      *(t.data_ptr() for t in (made.tokens, made.logprobs, made.counts, made.broken)))
        library().run_ahead(ctypes.byref(self._main), ctypes.byref(call))
        return made

    def _call(self, batch: ForwardBatch, tokens: Tensor, states: Tensor | None, hidden: Tensor) -> tuple[_Batch, Tensor,
                                                                                                         list[Tensor]]:
        """The structure of a call, where its logits will be, and what must live until then."""
        logits = torch.empty(len(batch.logits_indices), self.config.vocab_size)
        kept = [t.contiguous() for t in (tokens, batch.counts, batch.contexts, batch.block_tables, batch.logits_indices,
                                         batch.prompt)]
        call = _Batch(*(t.data_ptr() for t in kept), len(batch.counts), batch.block_tables.shape[1], len(batch.logits_indices),
                      self.threads, None if states is None else states.data_ptr(), hidden.data_ptr() or None, logits.data_ptr())
        return call, logits, [*kept, states, hidden]

    # ------------------------------------------------------------------------------------------------------ structures

    def _layer(self, layer: int) -> _Layer:
        fields = {key: t.data_ptr() for key in ("input_norm", "post_norm", "q_norm", "k_norm", "kv_norm", "correction")
                  if (t := self.floats.get(f"{layer}.{key}")) is not None}
        for key in ("first", "q_b", "o", "gate_up", "down", "router"):
            if (packed := self.packed.get(f"{layer}.{key}")) is not None:
                fields[key] = packed.matrix(0, self.floats.get(f"{layer}.{key}"))
        for key in ("absorb_k", "absorb_v", "experts_gate_up", "experts_down"):
            if (packed := self.packed.get(f"{layer}.{key}")) is not None:
                self.arrays[f"{layer}.{key}"] = fields[key] = (Matrix * len(packed))(*map(packed.matrix, range(len(packed))))
        return _Layer(**fields, uses=self.uses[layer].data_ptr())

    def _model(self, layers, count: int, norm: str) -> _Model:
        config = self.config
        grouped = config.topk_method != "greedy"
        return _Model(
            hidden=config.hidden_size, heads=config.num_attention_heads, groups=config.num_key_value_heads, layers=count,
            vocabulary=config.vocab_size, q_rank=config.q_lora_rank or 0, latent=config.kv_lora_rank,
            nope=config.qk_nope_head_dim, rope=config.rope_width, value=config.value_width, experts=config.n_routed_experts,
            chosen=config.num_experts_per_tok, n_group=config.n_group if grouped else 1,
            topk_group=config.topk_group if grouped else 1, two_best=config.topk_method == "noaux_tc",
            normalise=config.norm_topk_prob, softmax=config.scoring_func == "softmax",
            half_cache=self.dtype == torch.bfloat16, half_embedding=self.embedding.dtype == torch.bfloat16,
            small=sum(packed.nbytes for packed in self.packed.values()) <= _SMALL, routed_scale=config.routed_scaling_factor,
            softmax_scale=softmax_scale(config), eps=config.rms_norm_eps, rotary=self.rotary.data_ptr(),
            final_norm=self.floats[norm].data_ptr(), head=self.packed["head"].matrix(), embedding=self.embedding.data_ptr(),
            layer=layers)


def _fastest_threads(head: Packed) -> int:
    """How many threads read a large matrix fastest. The second threads of cores add nothing to what memory gives, and take
    from the first; on some machines all of them are needed all the same. So it is tried, where both differ."""
    if physical_cores() == cores() or head.nbytes < _SMALL:
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


def _room(memory: int | None) -> int:
    """Bytes for weights: a tenth is left to the cache and to what a step needs."""
    return int(0.8 * available_memory()) if memory is None else int(0.9 * memory)


def _kind_of(dtype: torch.dtype, config: ModelConfig) -> str:
    """bfloat16 is compact where decoding waits for the memory: from the caches, plain weights come as fast."""
    if dtype != torch.bfloat16:
        return "float32"
    waits = predicted_nbytes(config, "compact") > _SMALL
    return "compact" if waits and library().reads_compact() else "bfloat16"
