"""An adapter as one GGUF file, which llama.cpp puts beside a base of the same architecture (--lora).

llama.cpp multiplies by adapter.lora.alpha over the rank of the tensor itself and knows nothing of rsLoRA's root or of patterns,
so the adapter is folded to one rank and one scale first (`adapter_file.folded`). Names, keys and the order of dimensions:
llama.cpp's src/llama-adapter.cpp, as of November 2026.
"""

from collections.abc import Mapping
from pathlib import Path

import gguf
import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.export.gguf_layout import interleaved
from spoutnik.export.tensors import converted
from spoutnik.model.adapter_file import folded
from spoutnik.model.config import ModelConfig
from spoutnik.model.gguf_names import ARCHITECTURES, gguf_name
from spoutnik.model.lora import LowRank

DTYPES = {"f32": torch.float32, "f16": torch.float16}
_MERGE = "Export --format merged, then that folder with --format gguf."


def refuse_unreadable_adapter(parts: Mapping[str, LowRank], config: ModelConfig, source: Path) -> None:
    """Raises UserError for what llama.cpp has no place for, or would ignore in silence."""
    if any(part.magnitude is not None for part in parts.values()):
        raise UserError(f"{source}: use_dora = true: llama.cpp has no place for DoRA's magnitudes. {_MERGE}")
    ignored = sorted({name.rpartition(".")[2] for name in parts if ".self_attn." in name and not name.endswith("o_proj")})
    if config.is_mla and ignored:
        raise UserError(f"{source}: adapts {', '.join(ignored)}, and llama.cpp computes no adapter beside them in latent "
                        f"attention (architecture {ARCHITECTURES[config.model_type]}): it would ignore them. {_MERGE}")
    if any(".experts." in name for name in parts):
        raise UserError(f"{source}: adapts routed experts, which are not written to GGUF adapters. {_MERGE}")


def write_adapter_file(path: Path, parts: Mapping[str, LowRank], config: ModelConfig, name: str, dtype: str = "f32") -> None:
    """Writes the file. name: what it is called; dtype: one of DTYPES.

    Raises:
        RunError: numbers do not fit `dtype`.
    """
    uniform = folded(parts)
    first = next(iter(uniform.values()))
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.model_type])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, first.scale * first.rank)
    for module, part in sorted(uniform.items()):
        for kind, tensor in (("lora_a", part.lora_A), ("lora_b", _rows_of_llama_cpp(module, part.lora_B, config))):
            rounded = converted(tensor.detach(), DTYPES[dtype], f"{module}.{kind}")
            writer.add_tensor(f"{gguf_name(f'model.{module}.weight')}.{kind}", rounded.contiguous().numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _rows_of_llama_cpp(module: str, lora_b: Tensor, config: ModelConfig) -> Tensor:
    """lora_B with its rows where the base's GGUF has those of the weight: Llama's rotated heads in adjacent pairs."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(module.rpartition(".")[2])
    return interleaved(lora_b, heads) if config.model_type == "llama" and heads is not None else lora_b
