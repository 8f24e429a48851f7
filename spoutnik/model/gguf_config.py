"""A published configuration from the metadata of a GGUF file. Does not import torch.

Sources: llama.cpp's loaders and its set-up of rotary embeddings; what it multiplies under YaRN is written down in
export/gguf_metadata.py (`yarn_keys`), whose equations are solved here the other way round.
"""

import math
import sys

import numpy as np

from spoutnik.errors import RunError, UserError
from spoutnik.model.gguf_header import GGUFHeader
from spoutnik.model.gguf_names import ARCHITECTURES

_SAID_ELSEWHERE = ("vocab_size", "attention.value_length", "interleave_moe_layer_step")  # by shapes, or of no effect here
_AT_LEAST_ONE = {"attention.head_count", "attention.head_count_kv", "block_count", "embedding_length"}
_told: set[tuple[str, ...]] = set()


def gguf_config(header: GGUFHeader) -> dict:
    """The keys of config.json, special tokens apart.

    Raises:
        UserError: an architecture that is not computed here. RunError: a key that it needs is missing.
    """
    if header.architecture not in ARCHITECTURES.values():
        kind = header.metadata.get("general.type", "model")
        thing = f"general.architecture = {header.architecture!r}" if kind == "model" else f"general.type = {kind!r}"
        raise UserError(f"{header.path}: {thing}: is not computed here. Models of the architectures "
                        f"{', '.join(sorted(set(ARCHITECTURES.values())))} are.")
    keys = _Keys(header)
    config = _common(keys)
    config |= _mla(keys) if header.architecture == "deepseek2" else _gqa(keys)
    config["rope_scaling"] = _rope_scaling(keys, config)
    keys.check_all_read()
    return config


class _Keys:
    """The keys of the file's architecture, and which of them were asked for."""

    def __init__(self, header: GGUFHeader):
        self.header, self._prefix, self._asked = header, f"{header.architecture}.", set(_SAID_ELSEWHERE)

    def __call__(self, name: str, *default: object) -> object:
        """The value; `default` where there is none."""
        self._asked.add(name)
        value = self.header.metadata.get(self._prefix + name, *default[:1])
        if value is None and not default:
            raise RunError(f"{self.header.path}: the key {self._prefix}{name} is missing. Fetch the file again, or convert the "
                           "model again with a present llama.cpp.")
        if isinstance(value, list):  # one for each layer
            if not value or any(each != value[0] for each in value):
                raise self.refusal(name, value)
            value = value[0]
        if value is not None and (wrong := _wrong(name, value)):
            raise RunError(f"{self.header.path}: {self._prefix}{name} = {value!r}: must be {wrong}. Fetch the file again, or "
                           "convert the model again with a present llama.cpp.")
        return value

    def refusal(self, name: str, value: object) -> UserError:
        return UserError(f"{self.header.path}: {self._prefix}{name} = {value!r}: changes what the model computes in a way that "
                         "is not implemented here. This model cannot be read.")

    def only(self, name: str, *neutral: object) -> None:
        """Refuses what is not one of these values."""
        if (value := self(name, neutral[0])) not in neutral:
            raise self.refusal(name, value)

    def check_all_read(self) -> None:
        """Names what nobody asked for on stderr, once."""
        unknown = sorted(key.removeprefix(self._prefix) for key in self.header.metadata if key.startswith(self._prefix))
        unknown = [name for name in unknown if name not in self._asked]
        if unknown and (str(self.header.path), *unknown) not in _told:
            _told.add((str(self.header.path), *unknown))
            print(f"{self.header.path}: {', '.join(self._prefix + name for name in unknown)}: not known here and not read. If "
                  "the model's replies make no sense, this may be why.", file=sys.stderr)


def _wrong(name: str, value: object) -> str | None:
    """What the value of a key must be, where it is none of the kind; None where it is."""
    if name == "rope.scaling.type":
        return None if isinstance(value, str) else "a text"
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "a number"
    if name in _AT_LEAST_ONE and value < 1:
        return "1 or more"
    return "above 0" if name == "rope.freq_base" and value <= 0 else None


def _common(keys: _Keys) -> dict:
    header = keys.header
    if (embedding := header.tensors.get("token_embd.weight")) is None:
        raise RunError(f"{header.path}: holds no token_embd.weight. Fetch the file again.")
    if (layers := keys("block_count")) > len(header.tensors):  # said before that many are listed
        raise RunError(f"{header.path}: {header.architecture}.block_count = {layers}: is more than its {len(header.tensors):,} "
                       "tensors. Fetch the file again.")
    return {"vocab_size": embedding.shape[0], "hidden_size": keys("embedding_length"),
            "intermediate_size": keys("feed_forward_length"), "num_hidden_layers": layers,
            "num_attention_heads": keys("attention.head_count"), "max_position_embeddings": keys("context_length"),
            "rms_norm_eps": _short(keys("attention.layer_norm_rms_epsilon")),
            "rope_theta": _short(keys("rope.freq_base", 10000.0)),
            "tie_word_embeddings": "output.weight" not in header.tensors}


def _gqa(keys: _Keys) -> dict:
    header, heads = keys.header, keys("attention.head_count")
    keys.only("expert_count", 0)
    keys.only("expert_used_count", 0)
    width = keys("attention.key_length", keys("embedding_length") // heads)
    keys.only("rope.dimension_count", width)
    window = keys("attention.sliding_window", 0)
    if window and window < keys("context_length"):
        raise keys.refusal("attention.sliding_window", window)
    config = {"model_type": header.architecture, "num_key_value_heads": keys("attention.head_count_kv", heads)}
    if header.architecture != "qwen2":
        config["head_dim"] = width
    if header.architecture == "llama":
        config |= {"attention_bias": "blk.0.attn_q.bias" in header.tensors, "mlp_bias": "blk.0.ffn_gate.bias" in header.tensors}
    return config


def _mla(keys: _Keys) -> dict:
    """Newer files keep attention as it is computed on the latent, with the heads' own widths apart (`_mla`)."""
    rope = keys("rope.dimension_count")
    keys("attention.head_count_kv", None)  # 1 where it is computed on the latent
    key, value = keys("attention.key_length"), keys("attention.value_length", None)
    width, value = keys("attention.key_length_mla", key), keys("attention.value_length_mla", value)
    config = {"num_key_value_heads": keys("attention.head_count"), "q_lora_rank": keys("attention.q_lora_rank", 0) or None,
              "kv_lora_rank": keys("attention.kv_lora_rank"), "qk_rope_head_dim": rope, "qk_nope_head_dim": width - rope,
              "v_head_dim": value}
    keys.only("nextn_predict_layers", 0)
    return config | _experts(keys)


def _experts(keys: _Keys) -> dict:
    layers, dense = keys("block_count"), keys("leading_dense_block_count", 0)
    experts, gating = keys("expert_count", 0), keys("expert_gating_func", 0)
    shared, width = keys("expert_shared_count", 0), keys("expert_feed_forward_length", 0)
    groups = {"n_group": keys("expert_group_count", 0) or 1, "topk_group": keys("expert_group_used_count", 0) or 1}
    used, scale = keys("expert_used_count", 0), _short(keys("expert_weights_scale", 0.0)) or 1.0
    norm = keys("expert_weights_norm", False)
    if gating not in (0, 1, 2):  # missing, softmax, sigmoid
        raise keys.refusal("expert_gating_func", gating)
    is_v3 = gating == 2 or any(name.endswith("exp_probs_b.bias") for name in keys.header.tensors)
    if not experts or dense >= layers:
        return {"model_type": "deepseek_v3"}
    config = {"n_routed_experts": experts, "n_shared_experts": shared, "num_experts_per_tok": used,
              "moe_intermediate_size": width, "first_k_dense_replace": dense, "norm_topk_prob": bool(norm),
              "routed_scaling_factor": scale, **groups}
    if is_v3:
        return config | {"model_type": "deepseek_v3", "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
    method = "group_limited_greedy" if groups["n_group"] > 1 else "greedy"
    return config | {"model_type": "deepseek_v2", "scoring_func": "softmax", "topk_method": method}


def _rope_scaling(keys: _Keys, config: dict) -> dict | None:
    kind, factor = keys("rope.scaling.type", "none"), keys("rope.scaling.factor", 1.0) or 1.0
    original, ratio = keys("rope.scaling.original_context_length", 0), keys("rope.scaling.attn_factor", 1.0) or 1.0
    log_multiplier = keys("rope.scaling.yarn_log_multiplier", 0.0) / 0.1
    betas = {"beta_fast": keys("rope.scaling.yarn_beta_fast", 32.0), "beta_slow": keys("rope.scaling.yarn_beta_slow", 1.0)}
    keys("rope.scaling.finetuned", None)
    if "rope_freqs.weight" in keys.header.tensors:
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return _llama3(keys.header, config["rope_theta"], width)
    if kind == "none" or factor == 1.0:
        return None
    if factor < 0:
        raise keys.refusal("rope.scaling.factor", factor)
    if kind == "linear" and math.isclose(ratio, 1.0, abs_tol=1e-6):
        return {"type": "linear", "factor": factor}
    if kind != "yarn" or not original:
        raise keys.refusal("rope.scaling.type", kind)
    yarn = {"type": "yarn", "factor": factor, "original_max_position_embeddings": original} | betas
    log = 0.1 * math.log(factor)
    if "kv_lora_rank" not in config:
        return yarn if ratio == 1.0 else yarn | {"attention_factor": ratio * (1 + log)}
    magnitude = ratio if log_multiplier else ratio * (1 + log)
    all_dim = _short(((1 + log_multiplier * log) * magnitude - 1) / log)  # of the logits; see `yarn_keys`
    mscale = _short((magnitude * (1 + all_dim * log) - 1) / log)
    return yarn | {"mscale": mscale, "mscale_all_dim": all_dim}


def _llama3(header: GGUFHeader, theta: float, width: int) -> dict:
    """Llama 3's scaling from what it divides frequencies by. The share that stays is a line in the number of turns, between
    the low and the high factor: two numbers, whatever the low factor is taken to be."""
    divisors = _float32(header, "rope_freqs.weight")
    wrong = UserError(f"{header.path}: rope_freqs.weight: stretches positions in another way than Llama 3 does, which is not "
                      "implemented here. This model cannot be read.")
    if divisors.shape != (width // 2,) or divisors.min() < 1:
        raise wrong
    factor = float(round(divisors.max(), 4))
    if factor == 1.0:
        raise wrong
    speeds = theta ** (-np.arange(0, width, 2) / width) / (2 * math.pi)  # turns per position
    keep = (1 / divisors - 1 / factor) / (1 - 1 / factor)
    blended = (keep > 1e-4) & (keep < 1 - 1e-4)
    # Few frequencies lie in the blend of small heads: then the factors are those of all published models.
    lengths = [8192, *(int(round(length)) for length in ((3 * keep + 1) / speeds)[blended])]
    candidates = [(1.0, 4.0, length) for length in lengths]
    if blended.sum() >= 2:
        slope, offset = np.polyfit(speeds[blended], keep[blended], 1)
        high = 1 - 1 / offset if offset < 0 else 4.0
        candidates.append((1.0, round(float(high), 3), round(float(slope * (high - 1)))))
    for low, high, length in candidates:
        expected = np.clip((speeds * length - low) / (high - low), 0, 1)
        if np.allclose(expected, keep, atol=1e-3):
            return {"type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                    "original_max_position_embeddings": length}
    raise wrong


def _float32(header: GGUFHeader, name: str) -> np.ndarray:
    """A small tensor; empty where it is stored otherwise."""
    placed = header.tensors[name]
    with open(header.path, "rb") as file:
        file.seek(placed.start)
        return np.frombuffer(file.read(placed.size), np.float32).astype(float) if placed.kind == "F32" else np.empty(0)


def _short(value: float) -> float:
    """A number that was stored in 32 bits, as it was written: 1e-5 and not 9.999999747378752e-06."""
    return float(f"{value:.6g}")
