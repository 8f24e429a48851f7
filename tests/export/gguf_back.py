"""From a GGUF file back to published tensors and to a model of ours, written apart from the exporter."""

import gguf
import torch

from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import published_parts

LAYER = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_q_a": "self_attn.q_a_proj",
         "attn_q_a_norm": "self_attn.q_a_layernorm", "attn_q_b": "self_attn.q_b_proj",
         "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa", "attn_kv_a_norm": "self_attn.kv_a_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "ffn_gate_inp": "mlp.gate",
         "ffn_gate_shexp": "mlp.shared_experts.gate_proj", "ffn_up_shexp": "mlp.shared_experts.up_proj",
         "ffn_down_shexp": "mlp.shared_experts.down_proj"}


def values(path) -> dict:
    """The metadata as plain data."""
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def stored(path) -> dict[str, tuple[str, torch.Tensor]]:
    """llama.cpp's name -> (type, float32 numbers)."""
    tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        tensors[tensor.name] = (tensor.tensor_type.name, torch.from_numpy(numbers.copy()).float())
    return tensors


def published(path, config: ModelConfig) -> dict[str, torch.Tensor]:
    """The published tensors, float32, the MTP layer's missing."""
    outside = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    tensors, halves = {}, {}
    for name, (_, numbers) in stored(path).items():
        stem, _, kind = name.rpartition(".")
        if stem == "rope_freqs":
            continue
        if stem in outside:
            tensors[f"{outside[stem]}.{kind}"] = numbers
            continue
        _, layer, inside = stem.split(".")
        prefix = f"model.layers.{layer}."
        if inside == "exp_probs_b":
            tensors[prefix + "mlp.gate.e_score_correction_bias"] = numbers
        elif inside.endswith("_exps"):
            projection = inside.removeprefix("ffn_").removesuffix("_exps") + "_proj"
            for expert in range(config.n_routed_experts):
                tensors[f"{prefix}mlp.experts.{expert}.{projection}.weight"] = numbers[expert]
        elif inside in ("attn_k_b", "attn_v_b"):
            halves.setdefault(layer, {})[inside] = numbers
        else:
            tensors[f"{prefix}{LAYER[inside]}.{kind}"] = _straight(numbers, inside, config)
    for layer, parts in halves.items():
        heads = [torch.cat([keys.T, values]) for keys, values in zip(parts["attn_k_b"], parts["attn_v_b"])]
        tensors[f"model.layers.{layer}.self_attn.kv_b_proj.weight"] = torch.cat(heads)
    return tensors


def _straight(numbers: torch.Tensor, name: str, config: ModelConfig) -> torch.Tensor:
    """Undoes `llama`'s order of rotated rows: pair i of a head is rows 2i and 2i + 1 there, i and i + width/2 published."""
    if config.model_type != "llama" or name not in ("attn_q", "attn_k"):
        return numbers
    width = config.qk_head_dim
    source = [start + (2 * (i % (width // 2)) + i // (width // 2)) for start in range(0, len(numbers), width)
              for i in range(width)]
    return numbers[source]


def model(path, config: ModelConfig) -> Transformer:
    """Our model with exactly the numbers of the file."""
    config = config.model_copy(update={"num_nextn_predict_layers": 0})
    tensors, model = published(path, config), Transformer(config)
    state = model.state_dict()
    with torch.no_grad():
        for name, target in state.items():
            if config.tie_word_embeddings and name == "lm_head.weight":
                continue
            for part, index in published_parts(name, config):
                target[index] = tensors.pop(part)
    assert not tensors, f"left over: {list(tensors)}"
    return model
