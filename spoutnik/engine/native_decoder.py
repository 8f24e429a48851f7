"""The native decoding step (native/decode.cpp) over a model's own tensors; its plain twin is Transformer.decode."""

import ctypes
from ctypes import c_float, c_int64, c_void_p

import torch
from torch import Tensor

from spoutnik.model.cache import Cache
from spoutnik.model.rope import softmax_scale
from spoutnik.model.transformer import Transformer
from spoutnik.native import library

_LAYER = ("q", "q_a", "q_b", "k", "v", "kv_a", "o", "absorb_k", "absorb_v", "q_bias", "k_bias", "v_bias", "input_norm",
          "q_norm", "kv_norm", "post_norm", "gate", "up", "down", "router", "correction", "experts_gate_up", "experts_down",
          "cache")
_SIZES = ("hidden", "heads", "groups", "layers", "vocabulary", "q_rank", "latent", "nope", "rope", "value", "feed_forward",
          "shared", "expert", "experts", "chosen", "n_group", "topk_group", "normalise")

# Names in the published layout -> fields above; float32 ones are converted, the others must be of the compute type.
_MATRICES = {"self_attn.q_proj.weight": "q", "self_attn.q_a_proj.weight": "q_a", "self_attn.q_b_proj.weight": "q_b",
             "self_attn.k_proj.weight": "k", "self_attn.v_proj.weight": "v", "self_attn.kv_a_proj_with_mqa.weight": "kv_a",
             "self_attn.o_proj.weight": "o", "mlp.gate_proj.weight": "gate",
             "mlp.up_proj.weight": "up", "mlp.down_proj.weight": "down", "mlp.shared_experts.gate_proj.weight": "gate",
             "mlp.shared_experts.up_proj.weight": "up", "mlp.shared_experts.down_proj.weight": "down",
             "mlp.experts.gate_up_proj": "experts_gate_up", "mlp.experts.down_proj": "experts_down"}
_FLOATS = {"self_attn.q_proj.bias": "q_bias", "self_attn.k_proj.bias": "k_bias", "self_attn.v_proj.bias": "v_bias",
           "input_layernorm.weight": "input_norm", "self_attn.q_a_layernorm.weight": "q_norm",
           "self_attn.kv_a_layernorm.weight": "kv_norm", "post_attention_layernorm.weight": "post_norm",
           "mlp.gate.weight": "router", "mlp.gate.e_score_correction_bias": "correction"}


class _Layer(ctypes.Structure):
    _fields_ = [(name, c_void_p) for name in _LAYER]


class _Model(ctypes.Structure):
    _fields_ = ([(name, c_int64) for name in _SIZES]
                + [(name, c_float) for name in ("routed_scale", "softmax_scale", "eps")]
                + [(name, c_void_p) for name in ("rotary", "final_norm", "head", "embedding", "layer")])


class NativeDecoder:
    """Holds the model's weights packed for the native step: a later change of the model does not reach it."""

    def __init__(self, model: Transformer):
        config = model.config
        self.vocabulary = config.vocab_size
        self.step = getattr(library(), "decode_bfloat16" if model.compute_dtype == torch.bfloat16 else "decode_float32")
        self._kept: list[Tensor] = []  # packed or float32 copies: the step only has their addresses
        self.layers = [self._layer(block) for block in model.layers]
        sizes = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.num_hidden_layers,
                 config.vocab_size, config.q_lora_rank or 0, config.kv_lora_rank, config.qk_nope_head_dim,
                 config.qk_rope_head_dim, config.value_width, config.intermediate_size,
                 config.n_shared_experts * config.moe_intermediate_size, config.moe_intermediate_size,
                 config.n_routed_experts, config.num_experts_per_tok, config.n_group, config.topk_group,
                 config.norm_topk_prob)
        self.model = dict(zip(_SIZES, sizes)) | {
            "routed_scale": config.routed_scaling_factor, "softmax_scale": softmax_scale(config),
            "eps": config.rms_norm_eps, "rotary": model.rotary.data_ptr(), "final_norm": self._float(model.norm.weight),
            "head": self._packed(model.lm_head.weight), "embedding": model.embed_tokens.weight.data_ptr()}
        self._kept += [model.rotary, model.embed_tokens.weight]

    @staticmethod
    def serves(model: Transformer) -> bool:
        """Whether the step can be native here: a compiler was found, the model is on the CPU in a type and shape it knows
        (the nano's and the students'; other published ones decode in torch)."""
        config, weight = model.config, model.embed_tokens.weight
        if config.model_type in ("deepseek_v2", "qwen3") or config.attention_bias or config.mlp_bias:
            return False
        even = all(p.shape[-1] % 2 == 0 for p in model.parameters() if p.dim() > 1)  # inputs are packed in pairs
        return (even and weight.device.type == "cpu" and weight.dtype == model.compute_dtype
                and weight.dtype in (torch.float32, torch.bfloat16) and library() is not None)

    def _float(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().float().contiguous())
        return self._kept[-1].data_ptr()

    def _packed(self, weight: Tensor) -> int:
        """(..., out, in) to blocks of outputs, pairs of inputs together in bfloat16 (native/basics.h)."""
        pair = 2 if weight.dtype == torch.bfloat16 else 1
        lanes = library().lanes()
        weight = torch.nn.functional.pad(weight.detach(), (0, 0, 0, -weight.shape[-2] % lanes))
        blocks = weight.unflatten(-1, (-1, pair)).unflatten(-3, (-1, lanes)).transpose(-3, -2)
        self._kept.append(blocks.contiguous())
        return self._kept[-1].data_ptr()

    def _layer(self, block: torch.nn.Module) -> dict[str, int]:
        fields = {}
        for name, tensor in block.state_dict().items():
            if name == "self_attn.kv_b_proj.weight":  # the absorbed form reads its halves apart: per head keys, then values
                config = block.self_attn.config
                keys, values = tensor.unflatten(0, (config.num_attention_heads, -1)).split(
                    [config.qk_nope_head_dim, config.v_head_dim], dim=1)
                fields["absorb_k"] = self._packed(keys.transpose(1, 2).float())
                fields["absorb_v"] = self._packed(values.float())
            elif name in _FLOATS:
                fields[_FLOATS[name]] = self._float(tensor)
            else:
                fields[_MATRICES[name]] = self._packed(tensor)
        return fields

    def logits(self, input_ids: Tensor, cache: Cache) -> Tensor:
        """One new token per cache row: input_ids (B,) to logits (B, vocabulary) float32; the cache grows by one."""
        rows, capacity = cache.rows, cache.layers[0].shape[1]
        layers = (_Layer * len(self.layers))(*(_Layer(**fields, cache=store.data_ptr())
                                               for fields, store in zip(self.layers, cache.layers)))
        model = _Model(**self.model, layer=ctypes.addressof(layers))
        logits = torch.empty(rows, self.vocabulary)
        self.step(ctypes.byref(model), c_void_p(input_ids.data_ptr()), c_void_p(cache.lengths.data_ptr()), c_int64(rows),
                  c_int64(capacity), c_void_p(logits.data_ptr()))
        cache.advance()
        return logits
