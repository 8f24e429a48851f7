"""Reads a published config.json as its makers meant it: other names for the same arithmetic, keys that change no number, keys
that would change the numbers and are refused. Recipes are read strictly instead (`ModelConfig.parse`). Does not import torch.
"""

import sys
from collections.abc import Iterable

from spoutnik.errors import UserError

# Types whose arithmetic is another's. Mistral's window is looked at apart.
SAME_ARITHMETIC = {"kimi_k2": "deepseek_v3", "mistral": "llama"}

# What older versions of transformers write into every file: settings of generation, of training, of other architectures.
_DUMPED = """
    add_cross_attention bad_words_ids begin_suppress_tokens classifier_dropout cross_attention_hidden_size cls_token_id
    decoder_start_token_id diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id is_decoder length_penalty
    mask_token_id max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix
    remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torchscript typical_p unk_token_id use_bfloat16
    """.split()
# Notes of makers and tools that no reader computes with.
_NOTES = """
    attn_implementation flash_attn initializer_scale internal_version is_llama_config max_sequence_length model_max_length
    transformers.js_config use_flash_attention_2 use_flash_attn
    """.split()
_HARMLESS = frozenset((*_DUMPED, *_NOTES, "use_sliding_window"))  # the window is looked at apart

# Keys that change the numbers, with the values that leave them as they are.
_OFF = (None, False, 0, [], {})
_CHANGES = dict.fromkeys("""
    alibi attention_chunk_size attention_multiplier attn_logit_softcapping clip_qkv dim_model_base dual_chunk_attention_config
    final_logit_softcapping index_topk no_rope_layer_interval no_rope_layers parallel_attn pruned_heads qk_layernorm
    query_pre_attn_scalar rope_interleaved rope_local_base_freq scale_depth use_mrope use_parallel_residual use_qk_norm
    """.split(), _OFF) | dict.fromkeys("""
    embedding_multiplier logit_scale logits_scaling num_experts num_local_experts partial_rotary_factor residual_multiplier
    rotary_pct scale_emb
    """.split(), (None, 1))


def translate(values: dict, source: str) -> dict:
    """The keys of ModelConfig from those of a published file. Keys that are not known here are named on stderr, once.

    Raises:
        UserError: keys change the numbers in ways that are not computed here; all of them are named.
    """
    values = dict(values)
    _refuse_other_formats(values, source)
    kind = values.get("model_type")
    wrong = [f"{key} = {values[key]!r}" for key, neutral in _CHANGES.items() if key in values and values[key] not in neutral]
    if (window := _window_in_force(values, kind)) is not None:
        wrong.append(window)
    if wrong:
        raise UserError(f"{source}: {', '.join(wrong)}: changes what the model computes in a way that is not implemented here. "
                        "This model cannot be read.")
    values["model_type"] = SAME_ARITHMETIC.get(kind, kind)
    if values.get("hidden_act") == "swish":  # SiLU's other name, in transformers too
        values["hidden_act"] = "silu"
    quantization = values.get("quantization_config")
    if isinstance(quantization, dict):  # which modules are left out is seen by the types of the tensors themselves
        values["quantization_config"] = {key: value for key, value in quantization.items()
                                         if key not in ("modules_to_not_convert", "ignored_layers")}
    return {key: value for key, value in values.items() if not _is_harmless(key)}


def drop_unknown(values: dict, known: Iterable[str], source: str) -> dict:
    """`values` without the keys that are not `known`, which are named on stderr."""
    unknown = sorted(values.keys() - set(known))
    if unknown and (source, *unknown) not in _told:
        _told.add((source, *unknown))
        print(f"{source}: {', '.join(unknown)}: not known here and not read. If the model's replies make no sense, this may be "
              "why.", file=sys.stderr)
    return {key: value for key, value in values.items() if key not in unknown}


_told: set[tuple[str, ...]] = set()  # a file is read several times on the way to a model


def _is_harmless(key: str) -> bool:
    """Keys that begin with an underscore are notes of transformers to itself."""
    return key in _HARMLESS or key in _CHANGES or key.startswith("_")


def _window_in_force(values: dict, kind: object) -> str | None:
    """The window, where some layer sees less than all positions; words for a refusal."""
    def number(key: str, default: int = 0) -> int:
        """What is no number is refused where all keys are checked."""
        return values[key] if isinstance(values.get(key), int) else default

    window = values.get("sliding_window")
    if not isinstance(window, int) or window >= number("max_position_embeddings"):
        return None
    if isinstance(kinds := values.get("layer_types"), list):
        in_force = "sliding_attention" in kinds
    elif kind in ("qwen2", "qwen3"):
        in_force = bool(values.get("use_sliding_window")) and number("max_window_layers", 28) < number("num_hidden_layers")
    else:
        in_force = kind == "mistral"
    return f"sliding_window = {window}" if in_force else None


def _refuse_other_formats(values: dict, source: str) -> None:
    if isinstance(values.get("quantization"), dict) and "bits" in values["quantization"]:
        raise UserError(f"{source}: quantization = {values['quantization']!r}: these are weights for MLX (Apple). Give the "
                        "checkpoint they were made from: its weights can be brought to 4 bits when it is loaded.")
    if "base_model_name_or_path" in values and "peft_type" in values:
        raise UserError(f"{source}: is the configuration of an adapter ({values['peft_type']}), not of a model. Give the model "
                        f"that it belongs to: {values['base_model_name_or_path']}.")
