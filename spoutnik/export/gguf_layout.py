"""Which tensors a GGUF file holds, under llama.cpp's names and in its order of numbers, from a configuration alone."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from spoutnik.export.tensors import weight
from spoutnik.model.config import Llama3Scaling, ModelConfig
from spoutnik.model.gguf_names import gguf_name
from spoutnik.model.layout import Shape, is_mtp, published_shapes
from spoutnik.model.rope import inverse_frequencies
from spoutnik.model.weights import Reader


@dataclass(frozen=True)
class Planned:
    """One tensor of the file. shape: outermost axis first, as in torch. read: its pieces along the first axis, as stored."""

    name: str
    shape: Shape
    read: Callable[[Reader], Iterable[Tensor]]


def gguf_tensors(config: ModelConfig) -> list[Planned]:
    """Everything but the MTP layer, which llama.cpp does not use for this architecture (its own converter leaves it out)."""
    plain = config.model_copy(update={"quantization_config": None})
    shapes = [(name, shape) for name, shape in published_shapes(plain).items() if not is_mtp(name, config)]
    planned: list[Planned] = []
    for _, group in groupby(shapes, key=lambda item: re.sub(r"\.experts\.\d+\..*", ".experts", item[0])):
        same = list(group)
        planned += _experts(same) if ".experts." in same[0][0] else _one(*same[0], config)
    if isinstance(config.rope_scaling, Llama3Scaling):
        stretched = inverse_frequencies(config)
        divisors = inverse_frequencies(config.model_copy(update={"rope_scaling": None})) / stretched
        planned.append(Planned("rope_freqs.weight", tuple(divisors.shape), lambda reader: [divisors]))
    return planned


def _one(name: str, shape: Shape, config: ModelConfig) -> list[Planned]:
    if name.endswith("kv_b_proj.weight"):
        return _latent_halves(name, config)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if config.model_type == "llama" and heads is not None:
        return [Planned(gguf_name(name), shape, lambda reader: [interleaved(weight(reader, name), heads)])]
    return [Planned(gguf_name(name), shape, lambda reader: [weight(reader, name)])]


def interleaved(projection: Tensor, heads: int) -> Tensor:
    """Rows (or biases) of rotated heads, from the published halves (i, i + width/2) to llama.cpp's adjacent pairs."""
    halves = projection.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).reshape(projection.shape)


def _latent_halves(name: str, config: ModelConfig) -> list[Planned]:
    """kv_b_proj as absorbed attention reads it: per head, keys (latent, nope) and values (value width, latent)."""
    heads, latent = config.num_attention_heads, config.kv_lora_rank
    nope, width = config.qk_nope_head_dim, config.v_head_dim
    layer = name.split(".")[2]

    def per_head(reader: Reader) -> Tensor:
        return weight(reader, name).view(heads, -1, latent)

    return [Planned(f"blk.{layer}.attn_k_b.weight", (heads, latent, nope),
                    lambda reader: [per_head(reader)[:, :nope].transpose(1, 2)]),
            Planned(f"blk.{layer}.attn_v_b.weight", (heads, width, latent), lambda reader: [per_head(reader)[:, nope:]])]


def _experts(tensors: list[tuple[str, Shape]]) -> Iterator[Planned]:
    """A layer's experts, stacked: one tensor for each of the three projections."""
    for projection in ("gate_proj", "up_proj", "down_proj"):
        names = [name for name, _ in tensors if f".{projection}." in name]
        shape = next(shape for name, shape in tensors if name == names[0])
        yield Planned(gguf_name(re.sub(r"\.experts\.\d+\.", ".experts.", names[0])), (len(names), *shape),
                      lambda reader, names=names: (weight(reader, name) for name in names))
