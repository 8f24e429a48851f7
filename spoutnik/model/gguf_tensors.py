"""The published tensors of a model in a GGUF file: which of its bytes they are, and in which order. Does not import torch."""

import re

from spoutnik.errors import RunError
from spoutnik.model.config import ModelConfig
from spoutnik.model.gguf_header import GGUFHeader, Placed
from spoutnik.model.gguf_names import gguf_name
from spoutnik.model.layout import Shape, published_shapes
from spoutnik.model.stored import ITEM_SIZES, Encoding, Stored

_BESIDE = ("rope_freqs.weight",)  # read with the configuration
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_MISFIT = "Fetch the file again, or convert the model again with a present llama.cpp."


def gguf_stored(header: GGUFHeader, config: ModelConfig) -> dict[str, Stored]:
    """Every tensor that `config` asks for.

    Raises:
        RunError: one is missing, or of another shape, or there is one that the configuration has no place for.
    """
    tensors, used = {}, set(_BESIDE)
    for name, shape in published_shapes(config).items():
        pieces, encoding = _pieces(header, config, name, shape)
        used |= {source for source, _ in pieces}
        tensors[name] = _stored(header, shape, tuple(placed for _, placed in pieces), encoding)
    for name in sorted(header.tensors.keys() - used):
        if config.tie_word_embeddings or name != "output.weight":
            raise RunError(f"{header.path}: holds the tensor {name}, which its metadata has no place for. {_MISFIT}")
    return tensors


def _stored(header: GGUFHeader, shape: Shape, pieces: tuple[Placed, ...], order: tuple[str, int]) -> Stored:
    kind, dtype = pieces[0].kind, pieces[0].kind if pieces[0].kind in ITEM_SIZES else "F32"
    if len({piece.kind for piece in pieces}) > 1:
        dtype = "F32"
    plain = order[0] == "rows" and kind == dtype
    return Stored(header.path, dtype, shape, pieces[0].start, sum(piece.size for piece in pieces),
                  None if plain else Encoding(pieces, *order))


def _pieces(header: GGUFHeader, config: ModelConfig, name: str,
            shape: Shape) -> tuple[list[tuple[str, Placed]], tuple[str, int]]:
    """What a published tensor is made of, under llama.cpp's names, and its order (as `Encoding`)."""
    expert = _EXPERT.search(name)
    if expert is not None:
        source = gguf_name(_EXPERT.sub(".experts.", name))
        return [(source, _expert(header, source, int(expert[1]), (config.n_routed_experts, *shape)))], ("rows", 0)
    if name.endswith("kv_b_proj.weight"):
        prefix, heads = f"blk.{name.split('.')[2]}.", config.num_attention_heads
        if prefix + "attn_kv_b.weight" in header.tensors:  # older files
            return [(prefix + "attn_kv_b.weight", _piece(header, prefix + "attn_kv_b.weight", shape))], ("rows", 0)
        halves = {"attn_k_b.weight": (heads, config.kv_lora_rank, config.qk_nope_head_dim),
                  "attn_v_b.weight": (heads, config.v_head_dim, config.kv_lora_rank)}
        return [(prefix + half, _piece(header, prefix + half, size)) for half, size in halves.items()], ("latent", heads)
    source = gguf_name(name)
    piece = [(source, _piece(header, source, shape))]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    return piece, (("pairs", heads) if config.model_type == "llama" and heads is not None else ("rows", 0))


def _piece(header: GGUFHeader, name: str, shape: Shape) -> Placed:
    placed = header.tensors.get(name)
    if placed is None:
        raise RunError(f"{header.path}: the tensor {name} that its metadata asks for is missing. {_MISFIT}")
    if placed.shape != shape:
        raise RunError(f"{header.path}: {name} has shape {list(placed.shape)}, but the metadata asks for {list(shape)}. "
                       f"{_MISFIT}")
    return placed


def _expert(header: GGUFHeader, name: str, expert: int, shape: Shape) -> Placed:
    """One of a layer's experts, which are stacked."""
    stack = _piece(header, name, shape)
    size = stack.size // shape[0]
    return Placed(stack.kind, shape[1:], stack.start + expert * size, size)
