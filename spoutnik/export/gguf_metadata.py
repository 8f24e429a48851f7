"""The metadata of a GGUF file: llama.cpp's keys, and what llama.cpp computes differently or not at all.

Sources: llama.cpp's loaders (llama-model.cpp, models/deepseek2.cpp), its set-up of YaRN (llama-context.cpp) and of expert
groups (llama-graph.cpp, build_moe_ffn), as of November 2026.
"""

import math

import gguf

from spoutnik.errors import UserError
from spoutnik.model.config import LinearScaling, Llama3Scaling, ModelConfig, YarnScaling
from spoutnik.model.gguf_names import ARCHITECTURES
from spoutnik.model.rope import rotary_magnitude, softmax_scale, yarn_mscale

_MLA_EPS = 1e-6  # of the latents' norms, whatever rms_norm_eps


def refuse_unreadable(config: ModelConfig) -> None:
    """Raises UserError for what llama.cpp's architecture has no place for."""
    architecture = ARCHITECTURES[config.model_type]
    no_place = f"llama.cpp's architecture {architecture} has no place for it. Use --format hf."
    if config.attention_bias and config.model_type != "llama":
        raise UserError(f"attention_bias = true of model_type {config.model_type}: {no_place}")
    if isinstance(config.rope_scaling, Llama3Scaling) and config.model_type != "llama":
        raise UserError(f"rope_scaling.type = 'llama3' of model_type {config.model_type}: {no_place}")
    if not config.is_mla:
        return
    if _moe_layers(config) and not config.n_shared_experts:
        raise UserError(f"n_shared_experts = 0: llama.cpp's architecture {architecture} needs some. Use --format hf.")
    taken_for_lite = config.num_hidden_layers in (26, 27) or (config.num_hidden_layers, config.vocab_size) == (48, 128256)
    if taken_for_lite and config.q_lora_rank is not None:
        raise UserError(f"num_hidden_layers = {config.num_hidden_layers} with q_lora_rank = {config.q_lora_rank}: llama.cpp "
                        "takes such models for V2-Lite, which has no q_lora_rank, and does not load them. Use --format hf.")


def differences(config: ModelConfig) -> list[str]:
    """What llama.cpp computes in another way than the published code, in sentences; empty for nearly all models."""
    notes = []
    if config.num_nextn_predict_layers:
        notes.append("The MTP layer is left out: llama.cpp does not use it for this architecture; answers do not need it.")
    scaling = config.rope_scaling
    if isinstance(scaling, YarnScaling) and (scaling.beta_fast, scaling.beta_slow) != (32, 1):
        notes.append(f"llama.cpp ignores the file's YaRN betas: start it with --yarn-beta-fast {scaling.beta_fast:g} "
                    f"--yarn-beta-slow {scaling.beta_slow:g}.")
    if config.is_mla and config.rms_norm_eps != _MLA_EPS:
        notes.append(f"llama.cpp norms the latents with rms_norm_eps = {config.rms_norm_eps:g}, the published code with "
                    "1e-6: tokens may differ.")
    if _grouped(config) and config.topk_method == "group_limited_greedy":
        notes.append("llama.cpp scores a group of experts by its two best, as V3 does; this model (V2) by its best alone: "
                    "some tokens go to other experts, and answers differ.")
    return notes


def write_metadata(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """The architecture's keys."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.rope_width)
    if config.is_mla:
        _write_mla(writer, config)
        _write_experts(writer, config)
    else:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.qk_head_dim)
        writer.add_value_length(config.qk_head_dim)
    _write_rope_scaling(writer, config)


def _write_mla(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """Absorbed attention is multi-query attention over the latent: one head of keys and values."""
    writer.add_head_count_kv(1)
    writer.add_key_length(config.kv_lora_rank + config.qk_rope_head_dim)
    writer.add_value_length(config.kv_lora_rank)
    writer.add_key_length_mla(config.qk_head_dim)
    writer.add_value_length_mla(config.v_head_dim)
    writer.add_q_lora_rank(config.q_lora_rank or 0)  # 0: one q_proj; the key must be there
    writer.add_kv_lora_rank(config.kv_lora_rank)


def _moe_layers(config: ModelConfig) -> int:
    return sum(config.is_moe_layer(layer) for layer in range(config.num_hidden_layers))


def _grouped(config: ModelConfig) -> bool:
    """Whether groups change which experts are chosen. One expert per group, or all groups, do not."""
    return (_moe_layers(config) > 0 and config.topk_method != "greedy" and config.topk_group < config.n_group
            and config.n_group < config.n_routed_experts)


def _write_experts(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_leading_dense_block_count(config.num_hidden_layers - _moe_layers(config))
    writer.add_expert_feed_forward_length(config.moe_intermediate_size or config.intermediate_size)
    writer.add_expert_shared_count(config.n_shared_experts)
    if not _moe_layers(config):
        return
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_expert_weights_norm(config.norm_topk_prob)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID if config.scoring_func == "sigmoid"
                                  else gguf.ExpertGatingFuncType.SOFTMAX)
    if _grouped(config):  # without the keys llama.cpp chooses among all experts
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)


def _write_rope_scaling(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """Llama 3's scaling is a tensor (rope_freqs), not a key."""
    scaling = config.rope_scaling
    if not isinstance(scaling, YarnScaling | LinearScaling):
        return
    writer.add_rope_scaling_factor(scaling.factor)
    if isinstance(scaling, LinearScaling):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    else:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
    attention_factor, log_multiplier = yarn_keys(config)
    writer.add_rope_scaling_attn_factors(attention_factor)
    if log_multiplier:
        writer.add_rope_scaling_yarn_log_mul(0.1 * log_multiplier)  # the loader divides by 0.1


def yarn_keys(config: ModelConfig) -> tuple[float, float]:
    """llama.cpp's attn_factor R and log multiplier L, such that its numbers are the published ones.

    With f the stretching factor, l = 0.1 ln f and g = 1 + l, llama.cpp multiplies cosines and sines by R under YaRN with
    L != 0, by R g with L = 0, and by R under linear scaling. deepseek2 then multiplies the attention's logits by the square
    of (1 + L l) times that factor (under linear scaling: times R g). Published: cosines and sines by `rotary_magnitude`,
    logits by `softmax_scale`. Two equations, solved for R and L.
    """
    scaling = config.rope_scaling
    log, magnitude = 0.1 * math.log(scaling.factor), rotary_magnitude(config)
    default = yarn_mscale(scaling.factor, 1.0) if isinstance(scaling, YarnScaling) else 1.0
    if not config.is_mla or not log:
        return magnitude / default, 0.0
    published = math.sqrt(softmax_scale(config) * math.sqrt(config.qk_head_dim))
    theirs = magnitude if isinstance(scaling, YarnScaling) else 1 + log
    log_multiplier = (published / theirs - 1) / log
    if abs(log_multiplier) < 1e-9:
        return magnitude / default, 0.0
    return magnitude, log_multiplier
