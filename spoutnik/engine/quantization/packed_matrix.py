"""A model's weights as the native forward pass reads them (native/matrix.h): packed in panels, float (bfloat16 also in 12 bits,
without loss: native/compact.h) or in 8 or 4 bits.

Built from a model in memory, or tensor by tensor from a checkpoint. Each group of like matrices (the experts of a layer, the
heads of kv_b's halves) is one tensor of bytes.
"""

import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import published_shapes
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import published_parts
from spoutnik.native import library
from spoutnik.native.kernels import address
from spoutnik.native.structs import GROUP, KINDS, Matrix
from spoutnik.parallel import cores

_WORTH = 0.9  # compact weights that take more of bfloat16's bytes than this stay plain
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class Packed:
    """Like matrices: data (count, bytes) uint8, units (count,) float64, what each one's scales are multiples of."""

    data: Tensor
    units: Tensor
    kind: int
    in_features: int
    out_features: int

    def __post_init__(self):
        """Raises ValueError: fewer bytes than the kernels read."""
        needed, count = _size(self.kind, self.in_features, self.out_features), len(self.data)
        address("packed", "units", self.units, torch.float64, count)
        address("packed", "data", self.data, torch.uint8, count, max(self.data.shape[1], needed))

    def check_exceptions(self) -> None:
        """Raises ValueError: a compact matrix has some outside of it. Reads what lies behind the panels."""
        if self.kind == KINDS["compact"]:
            for row in self.data:
                _exceptions(row.numpy(), self.in_features, self.out_features)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def matrix(self, number: int = 0, bias: Tensor | None = None) -> Matrix:
        """The structure the kernels read. It holds addresses: whoever keeps it keeps `self` and `bias`."""
        where = None if bias is None else address("packed", "bias", bias, torch.float32, self.out_features)
        return Matrix(self.data[number].data_ptr(), where, self.kind, self.in_features, self.out_features,
                      float(self.units[number]))


def pack(weights: list[Tensor], kind: str) -> Packed:
    """Matrices (out, in) of one shape, float32 or bfloat16 (others are converted), into one of KINDS; "compact" becomes
    "bfloat16" where the weights' sizes are too many to be compact."""
    out_features, in_features = weights[0].shape
    weights = [(weight if weight.dtype in (torch.float32, torch.bfloat16) else weight.float()).detach().contiguous()
               for weight in weights]
    if kind == "compact":
        return _pack_compact(weights) or pack(weights, "bfloat16")
    data = memory(len(weights), _size(KINDS[kind], in_features, out_features))
    packed = Packed(data, torch.zeros(len(weights), dtype=torch.float64), KINDS[kind], in_features, out_features)
    for row, weight in enumerate(weights):
        packed.units[row] = _unit(weight, kind)
        matrix = packed.matrix(row)
        library().pack_matrix(_read(weight, out_features, in_features), weight.dtype == torch.bfloat16, ctypes.byref(matrix),
                              packed.data[row].data_ptr(), cores())
    return packed


def _pack_compact(weights: list[Tensor]) -> Packed | None:
    """None where it is not worth it."""
    out_features, in_features = weights[0].shape
    room = torch.empty(int(_WORTH * _size(KINDS["bfloat16"], in_features, out_features)), dtype=torch.uint8)
    matrix, made = Matrix(None, None, KINDS["compact"], in_features, out_features, 1.0), []
    for weight in weights:
        size = library().pack_compact(_read(weight, out_features, in_features), weight.dtype == torch.bfloat16,
                                      ctypes.byref(matrix), room.data_ptr(), len(room), cores())
        if not size:
            return None
        made.append(room[:size].clone() if len(weights) > 1 else room[:size])
    data = memory(len(weights), max(map(len, made)))
    for row, one in zip(data, made):
        row[:len(one)] = one
    return Packed(data, torch.ones(len(weights), dtype=torch.float64), KINDS["compact"], in_features, out_features)


def _read(weight: Tensor, *shape: int) -> int:
    """The address of a weight, float32 or bfloat16."""
    return address("pack", "weight", weight, torch.bfloat16 if weight.dtype == torch.bfloat16 else torch.float32, *shape)


def _size(kind: int, in_features: int, out_features: int) -> int:
    """Bytes; of a compact matrix without its exceptions."""
    return library().packed_size(kind, in_features, out_features)


def multiply(packed: Packed, x: Tensor, number: int = 0, threads: int = 1) -> Tensor:
    """x (rows, in) float32 times a packed matrix transposed: (rows, out) float32. Twin: x @ unpack(packed)[number].T, for
    quantised weights with x quantised too (`quantised_rows`)."""
    x, y = x.contiguous(), torch.empty(len(x), packed.out_features)  # a copy must outlive the call
    matrix = packed.matrix(number)
    library().multiply_packed(ctypes.byref(matrix), address("multiply", "x", x, torch.float32, len(x), packed.in_features),
                              y.data_ptr(), len(x), threads)
    return y


def unpack(packed: Packed) -> Tensor:
    """The matrices that the packed form means: (count, out, in) float32."""
    out, inputs = packed.out_features, packed.in_features
    if packed.kind == KINDS["compact"]:
        return torch.stack([_unpack_compact(data.numpy(), inputs, out) for data in packed.data])
    per_output = _size(packed.kind, inputs, out) // sum(_panels(out))
    panels, start = [], 0
    for outputs in _panels(out):
        part = packed.data[:, start:start + outputs * per_output].contiguous()
        panels.append(_unpack_panel(part, packed, outputs))
        start += outputs * per_output
    return torch.cat(panels, dim=1)[:, :out, :inputs]


def _panels(out: int) -> list[int]:
    """Outputs of each panel: whole registers, four of them but in the last one."""
    lanes = library().lanes()
    filled = -(-out // lanes) * lanes
    return [4 * lanes] * (filled // (4 * lanes)) + [filled % (4 * lanes)] * (filled % (4 * lanes) > 0)


def _unpack_compact(data: np.ndarray, inputs: int, out: int) -> Tensor:
    """One matrix (out, in), from native/compact.h's description."""
    i, stored, start, panels = np.arange(128), inputs + inputs % 2, 0, []
    places = i // 64 * 64 + i % 32 // 8 * 16 + i // 32 % 2 * 8 + i % 8
    for outputs in _panels(out):
        end = start + 64 + -(-stored * outputs // 128) * 192
        table, records = data[start:start + 16].astype(np.uint16), data[start + 64:end].reshape(-1, 192)
        codes = np.concatenate([records[:, :64] & 15, records[:, :64] >> 4], axis=1)
        panels.append((table[codes] << 8 | records[:, 64:])[:, places].reshape(-1)[:stored * outputs])
        start = end
    for panel, mine in zip(panels, _exceptions(data, inputs, out)):
        panel[mine["place"]] = mine["value"]
    halves = [torch.from_numpy(panel.view(np.int16)).view(torch.bfloat16).view(stored // 2, -1, 2) for panel in panels]
    return torch.cat([half.transpose(0, 1).flatten(1) for half in halves]).float()[:out, :inputs]


def _exceptions(data: np.ndarray, inputs: int, out: int) -> list[np.ndarray]:
    """Each panel's, behind all panels. Raises ValueError: they are not where they should be."""
    panels, stored = _panels(out), inputs + inputs % 2
    parts, behind = -(-stored // 128), data[_size(KINDS["compact"], inputs, out):]
    count = len(panels) * parts + 1
    starts = np.frombuffer(behind[:8 * count].tobytes(), dtype=np.int64)
    if len(starts) != count or starts[0] or (np.diff(starts) < 0).any() or starts[-1] > len(behind) // 8 - count:
        raise ValueError("packed: a compact matrix ends before its exceptions do")
    pairs = np.frombuffer(behind[8 * count:8 * (count + starts[-1])].tobytes(),
                          dtype=[("place", np.uint32), ("value", np.uint16), ("unused", np.uint16)])
    found = []
    for outputs, first in zip(panels, range(0, count - 1, parts)):
        begins = starts[first:first + parts + 1]
        some = pairs[begins[0]:begins[-1]]
        bounds = np.append(np.arange(parts) * 128, stored) * outputs
        places = some["place"].astype(np.int64)
        if (np.diff(places) <= 0).any() or (places.searchsorted(bounds) != begins - begins[0]).any():
            raise ValueError("packed: a compact matrix has exceptions outside of their part")
        found.append(some)
    return found


def _unpack_panel(part: Tensor, packed: Packed, outputs: int) -> Tensor:
    count = len(part)
    if packed.kind == KINDS["float32"]:
        return part.view(torch.float32).view(count, -1, outputs).transpose(1, 2)
    if packed.kind == KINDS["bfloat16"]:
        return part.view(torch.bfloat16).view(count, -1, outputs, 2).transpose(1, 2).flatten(2).float()
    four = packed.kind == KINDS["int4"]
    width = GROUP // 2 if four else GROUP
    records = part.view(count, -1, outputs * (width + 2))  # one per group of inputs
    numbers = records[..., :outputs * width].reshape(*records.shape[:2], width // 4, outputs, 4)
    if four:
        numbers = torch.stack([numbers & 15, numbers >> 4], dim=3)  # count, group, step, half, output, 4
        numbers = numbers.permute(0, 4, 1, 2, 3, 5).int() - 8
    else:
        numbers = numbers.permute(0, 3, 1, 2, 4).int() - 128
    scales = records[..., outputs * width:].contiguous().view(torch.float16).float().transpose(1, 2)  # count, output, group
    return (numbers.flatten(3) * (scales * packed.units.float()[:, None, None])[..., None]).flatten(2)


def quantised_rows(x: Tensor) -> Tensor:
    """x (rows, in) as products with quantised weights read it: groups of 32 rounded to 8 bits, the largest filling
    the range."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    scales = padded.abs().amax(-1, keepdim=True) / 127
    whole = padded / scales.clamp(min=1e-30)
    whole = (whole + torch.where(whole < 0, -0.5, 0.5)).trunc()
    return (whole * scales).flatten(1)[:, :x.shape[1]]


def _unit(weight: Tensor, kind: str) -> float:
    """Brings the largest scale to 1024, in the middle of half precision's range."""
    if kind not in ("int8", "int4"):
        return 1.0
    return float(weight.abs().amax()) / (127 if kind == "int8" else 8) / 1024 or 1.0


_LARGE_PAGE, _CHUNK = 2 << 20, 256 << 20
_room = np.empty(0, dtype=np.uint8)  # what is left of the last chunk of large pages


def memory(count: int, size: int) -> Tensor:
    """(count, size) bytes. Those of large matrices lie in large pages, which spares the processor the search for a page every
    4 KiB; they are cut from chunks, since a matrix of its own would waste the pages at its ends."""
    global _room
    size = -(-size // 64) * 64
    total = count * size
    if total < 1 << 20 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(total + 64, dtype=torch.uint8)[:total].view(count, size)
    if total > len(_room):
        # Private: shared memory, Python's default, gets no large pages.
        pages = mmap.mmap(-1, max(total, _CHUNK) + _LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.madvise(mmap.MADV_HUGEPAGE)
        _room = np.frombuffer(pages, dtype=np.uint8)
        _room = _room[-_room.ctypes.data % _LARGE_PAGE:]
    taken, _room = _room[:total], _room[total:]
    return torch.from_numpy(taken).view(count, size)


# --------------------------------------------------------------------------------------------------- where weights come from


class Source(Protocol):
    """A model's tensors under their published names."""

    config: ModelConfig

    def __call__(self, name: str) -> Tensor:
        """The tensor, dequantised, wherever it lies."""


class ModelSource:
    """Tensors of a model in memory."""

    def __init__(self, model: Transformer):
        self.config = model.config
        self._places = {published: (tensor, index) for name, tensor in model.state_dict().items()
                        for published, index in published_parts(name, model.config)}

    def __call__(self, name: str) -> Tensor:
        tensor, index = self._places[name]
        return tensor[index]


# A group of like matrices: its key, what to pack, and its kind.
Group = tuple[str, list[Tensor], str]


def groups(source: Source, kind: str) -> Iterator[Group]:
    """All matrices of the network, layer by layer, the MTP module's last, then the head. Norms and biases are `floats`."""
    config = source.config
    for layer in range(config.num_hidden_layers + config.num_nextn_predict_layers):
        yield from layer_groups(source, layer, kind)
    if config.num_nextn_predict_layers:
        yield "eh_proj", [source(f"model.layers.{config.num_hidden_layers}.eh_proj.weight")], kind
    head = EMBEDDING if config.tie_word_embeddings else "lm_head.weight"
    yield "head", [source(head)], kind


def layer_groups(source: Source, layer: int, kind: str) -> Iterator[Group]:
    config, prefix = source.config, f"model.layers.{layer}."

    def joined(*names: str) -> list[Tensor]:
        return [torch.cat([source(f"{prefix}{name}.weight") for name in names])]

    def gated(name: str) -> list[Tensor]:
        return [in_turn(*(source(f"{prefix}{name}{half}_proj.weight") for half in ("gate", "up")))]

    if config.is_mla:
        down = "self_attn.q_a_proj" if config.q_lora_rank else "self_attn.q_proj"
        yield f"{layer}.first", joined(down, "self_attn.kv_a_proj_with_mqa"), kind
        if config.q_lora_rank:
            yield f"{layer}.q_b", [source(f"{prefix}self_attn.q_b_proj.weight")], kind
        heads = source(f"{prefix}self_attn.kv_b_proj.weight").unflatten(0, (config.num_attention_heads, -1))
        keys, values = heads.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        careful = "int8" if kind == "int4" else kind  # a hundredth of the weights, and every score passes through them
        yield f"{layer}.absorb_k", [key.T for key in keys], careful
        yield f"{layer}.absorb_v", list(values), careful
    else:
        yield f"{layer}.first", joined(*(f"self_attn.{part}_proj" for part in "qkv")), kind
    yield f"{layer}.o", [source(f"{prefix}self_attn.o_proj.weight")], kind
    if not config.is_moe_layer(layer):
        yield f"{layer}.gate_up", gated("mlp."), kind
        yield f"{layer}.down", [source(f"{prefix}mlp.down_proj.weight")], kind
        return
    yield f"{layer}.router", [source(f"{prefix}mlp.gate.weight")], "float32"  # so that near-ties route alike
    if config.n_shared_experts:
        yield f"{layer}.gate_up", gated("mlp.shared_experts."), kind
        yield f"{layer}.down", [source(f"{prefix}mlp.shared_experts.down_proj.weight")], kind
    experts = range(config.n_routed_experts)
    yield f"{layer}.experts_gate_up", [gated(f"mlp.experts.{e}.")[0] for e in experts], kind
    yield f"{layer}.experts_down", [source(f"{prefix}mlp.experts.{e}.down_proj.weight") for e in experts], kind


def in_turn(gate: Tensor, up: Tensor) -> Tensor:
    """Rows of both (I, ...) in blocks of LANES, one's after the other's: a panel then holds both halves of SwiGLU's numbers."""
    lanes = library().lanes()
    gate, up = (torch.nn.functional.pad(half, (*[0] * (2 * half.dim() - 2), 0, -len(half) % lanes)).unflatten(0, (-1, lanes))
                for half in (gate, up))
    return torch.stack([gate, up], dim=1).flatten(0, 2)


def predicted_nbytes(config: ModelConfig, kind: str) -> int:
    """About what the packed weights take, from the shapes alone."""
    per_weight = {"float32": 4, "bfloat16": 2, "compact": 1.51, "int8": 1 + 2 / GROUP, "int4": 0.5 + 2 / GROUP}[kind]
    weights = sum(prod(shape) for shape in published_shapes(config).values())
    return int(weights * per_weight)


# Field of the native layer -> published name; present or not as the configuration says.
_NORMS = {"input_norm": "input_layernorm.weight", "post_norm": "post_attention_layernorm.weight",
          "kv_norm": "self_attn.kv_a_layernorm.weight", "correction": "mlp.gate.e_score_correction_bias"}


def floats(source: Source) -> dict[str, Tensor]:
    """Norms, biases and the routers' corrections, float32."""
    config, found = source.config, {}

    def put(key: str, name: str) -> None:
        found[key] = source(name).detach().to(torch.float32, copy=True).contiguous()

    put("final_norm", "model.norm.weight")
    for layer in range(config.num_hidden_layers + config.num_nextn_predict_layers):
        prefix = f"model.layers.{layer}."
        for key, name in _NORMS.items():
            wanted = {"kv_norm": config.is_mla, "correction": config.is_moe_layer(layer) and config.topk_method == "noaux_tc"}
            if wanted.get(key, True):
                put(f"{layer}.{key}", prefix + name)
        if config.q_lora_rank:
            put(f"{layer}.q_norm", f"{prefix}self_attn.q_a_layernorm.weight")
        if config.model_type == "qwen3":
            put(f"{layer}.q_norm", f"{prefix}self_attn.q_norm.weight")
            put(f"{layer}.k_norm", f"{prefix}self_attn.k_norm.weight")
        found |= {f"{layer}.{key}": bias for key, bias in _biases(source, layer).items()}
    if config.num_nextn_predict_layers:
        prefix = f"model.layers.{config.num_hidden_layers}."
        for key, name in {"enorm": "enorm", "hnorm": "hnorm", "mtp_norm": "shared_head.norm"}.items():
            put(key, f"{prefix}{name}.weight")
    return found


def _biases(source: Source, layer: int) -> dict[str, Tensor]:
    """The biases of a layer's matrices, joined as they are."""
    config, prefix = source.config, f"model.layers.{layer}."
    biases = {}
    if config.is_mla and config.attention_bias:
        down = "self_attn.q_a_proj" if config.q_lora_rank else None
        query = source(f"{prefix}{down}.bias") if down else torch.zeros(config.num_attention_heads * config.qk_head_dim)
        biases["first"] = [query, source(f"{prefix}self_attn.kv_a_proj_with_mqa.bias")]
    elif config.qkv_bias:
        biases["first"] = [source(f"{prefix}self_attn.{part}_proj.bias") for part in "qkv"]
    if config.attention_bias:
        biases["o"] = [source(f"{prefix}self_attn.o_proj.bias")]
    if config.mlp_bias:
        biases["gate_up"] = [in_turn(*(source(f"{prefix}mlp.{half}_proj.bias") for half in ("gate", "up")))]
        biases["down"] = [source(f"{prefix}mlp.down_proj.bias")]
    return {key: torch.cat([part.detach().float() for part in parts]).contiguous() for key, parts in biases.items()}
