"""Request fields of other servers' APIs that this one does not honor: those that cannot change an answer are let pass, the
others are refused by name. docs/serve.md has the table."""

from collections.abc import Iterator, Mapping

from spoutnik.serve.errors import ApiError

# Bookkeeping, caches, routing, and settings of samplers that are off here (the switch of each is refused).
HARMLESS = frozenset("""
    user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention prediction
    request_id priority cache_salt guided_decoding_backend mm_processor_kwargs media_io_kwargs rid tool_stream
    cache_prompt id_slot n_keep n_discard keep_alive backend_sampling mirostat_tau mirostat_eta dynatemp_exponent
    xtc_threshold dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers adaptive_decay smoothing_curve
    provider route models usage session_id trace use_cache perf_metrics_in_response vl_high_resolution_images""".split())

# Field -> values that ask for nothing; null always does.
REFUSED: Mapping[str, tuple] = {
    # OpenAI
    "functions": ([],), "function_call": ("none",), "audio": ({},), "web_search_options": (), "verbosity": ("medium",),
    # vLLM
    "use_beam_search": (False,), "length_penalty": (1,), "early_stopping": (False,), "num_beams": (1,), "chat_template": (),
    "logits_processors": ([],), "structural_tag": (), "guided_whitespace_pattern": (), "vllm_xargs": ({},),
    "kv_transfer_params": ({},), "return_token_ids": (False,), "return_tokens_as_token_ids": (False,),
    "spaces_between_special_tokens": (True,), "truncation_side": ("left",), "prompt_embeds": ([],),
    "repetition_detection": ({},),
    # SGLang
    "stop_regex": ([],), "no_stop_trim": (False,), "lora_path": (), "session_params": ({},), "return_hidden_states": (False,),
    "custom_logit_processor": (), "custom_params": ({},), "stream_reasoning": (True,), "return_routed_experts": (False,),
    # llama.cpp
    "samplers": ([],), "mirostat": (0,), "dynatemp_range": (0,), "typical_p": (1,), "top_n_sigma": (-1, 0),
    "xtc_probability": (0,), "dry_multiplier": (0,), "repeat_last_n": (-1,), "penalize_nl": (True,), "tfs_z": (1,),
    "top_a": (0,), "min_keep": (0,), "adaptive_target": (-1,), "n_indent": (0,), "t_max_predict_ms": (0,),
    "t_max_prompt_ms": (0,), "n_probs": (0,), "n_cmpl": (1,), "post_sampling_probs": (False,), "image_data": ([],),
    "multimodal_data": ([],), "lora": ([],), "return_tokens": (False,), "return_progress": (False,),
    "timings_per_token": (False,), "response_fields": ([],), "thinking_forced_open": (False,), "parse_tool_calls": (True,),
    "reasoning_in_content": (False,), "reasoning_budget_message": ("",), "grammar_lazy": (False,), "grammar_triggers": ([],),
    "preserved_tokens": ([],), "input_prefix": ("",), "input_suffix": ("",), "input_extra": ([],),
    # ollama
    "options": ({},), "template": ("",), "system": ("",), "context": ([],), "raw": (False,), "images": ([],),
    # OpenRouter, Mistral, Fireworks, Together, xAI, Qwen
    "transforms": ([],), "plugins": ([],), "image_config": ({},), "debug": ({},), "safe_prompt": (False,), "prompt_mode": (),
    "context_length_exceeded_behavior": ("error",), "prompt_truncate_len": (), "raw_output": (False,), "safety_model": (),
    "search_parameters": ({},), "deferred": (False,), "enable_search": (False,), "search_options": ({},),
    "stop_sequences": ([],), "instructions": ("",), "input": (), "max_output_tokens": (), "extra_body": ({},),
    "lora_request": (), "adapter_id": (), "num_predict": (), "num_ctx": (), "chat_template_args": ({},),
    "return_logprob": (False,), "top_logprobs_num": (0,), "sampling_params": ({},), "token_healing": (False,),
    "banned_strings": ([],), "banned_tokens": ([],), "repetition_context_size": (-1,),
    # text-generation-inference, transformers and text-generation-webui
    "inputs": (), "parameters": ({},), "top_n_tokens": (0,), "details": (False,), "truncate": (), "max_length": (),
    "min_length": (0,), "stop_strings": ([],), "add_bos_token": (), "truncation_length": (), "grammar_string": ("",),
    "do_sample": (True,), "watermark": (False,), "decoder_input_details": (False,), "return_full_text": (False,),
    "no_repeat_ngram_size": (0,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "encoder_repetition_penalty": (1,),
    "penalty_alpha": (0,), "typical": (1,), "smoothing_factor": (0,), "dynamic_temperature": (False,),
    "temperature_last": (False,), "ban_eos_token": (False,), "custom_token_bans": ("",), "guidance_scale": (1,),
    "negative_prompt": ("",), "instruction_template": (), "character": (),
}
# What is a field of the one endpoint and asks for something that the other does not do.
CHAT_REFUSED = REFUSED | {"prompt": (), "suffix": ("",), "best_of": (1,), "include_stop_str_in_output": (False,),
                          "skip_special_tokens": (True,), "add_special_tokens": (False,), "parse_special": (False,)}
TOKENIZE_REFUSED = {"chat_template": (), "with_pieces": (False,), "chat_template_file": ()}
EMBEDDING_REFUSED = {"truncate_prompt_tokens": (), "truncate": (False, "NONE"), "truncation_side": (), "input_type": (),
                     "task": (), "task_type": (), "instruction": ("",), "prompt_name": (), "normalize": (True,),
                     "embd_normalize": (2,), "pooling": ("mean",), "late_chunking": (False,), "output_dtype": ("float",),
                     "output_dimension": (), "add_special_tokens": (True,), "messages": ([],)}
REMEDIES = {"with_pieces": "Give return_token_strs.", "functions": "Give tools.",
            "function_call": "Give tool_choice.", "chat_template": "The model's own is used.",
            "n_probs": "Give logprobs.", "do_sample": "Give temperature = 0.", "ban_eos_token": "Give ignore_eos.",
            "truncation_side": "A prompt is cut at its beginning.", "n_cmpl": "Give n.",
            "options": "Give its fields by themselves.",
            "stop_sequences": "Give stop.", "stop_strings": "Give stop.", "max_output_tokens": "Give max_tokens.",
            "num_predict": "Give max_tokens.", "max_length": "Give max_tokens.", "min_length": "Give min_tokens.",
            "truncate": "Give truncate_prompt_tokens.", "truncation_length": "Give truncate_prompt_tokens.",
            "top_n_tokens": "Give logprobs.", "return_logprob": "Give logprobs.", "top_logprobs_num": "Give logprobs.",
            "extra_body": "Give its fields by themselves.", "sampling_params": "Give its fields by themselves.",
            "parameters": "Give its fields by themselves.", "chat_template_args": "Give chat_template_kwargs.",
            "instructions": "Give a message of the system.", "add_bos_token": "Give add_special_tokens to /v1/completions.",
            "banned_strings": "Give bad_words.", "banned_tokens": "Give logit_bias.", "grammar_string": "Give grammar.",
            "system": "Give a message of the system.", "prompt": "It belongs to /v1/completions.",
            "prompt_truncate_len": "Give truncate_prompt_tokens.", "add_special_tokens": "The chat template writes them."}


def unknown_fields(extra: Mapping[str, object] | None, refused: Mapping[str, tuple],
                   remedies: Mapping[str, str] = REMEDIES) -> tuple[str, ...]:
    """The names of those that no known API has. extra: what a request holds besides the fields that are honored. remedies: what
    to do instead of giving a refused one; for others, to leave it out.

    Raises:
        ApiError: one of them would change the answer.
    """
    return tuple(_unknown({name: value for name, value in (extra or {}).items() if value is not None}, refused, remedies))


def _unknown(extra: Mapping[str, object], refused: Mapping[str, tuple], remedies: Mapping[str, str]) -> Iterator[str]:
    for name, value in extra.items():
        if name in refused:
            if value not in refused[name]:
                raise ApiError(400, f"{name}: is not served here. {remedies.get(name, 'Leave it out.')}", name)
        elif name not in HARMLESS and not name.startswith("speculative."):
            yield name
