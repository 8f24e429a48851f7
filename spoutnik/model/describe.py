"""An inspection as labels and texts."""

from spoutnik.model.accounting import Accounting
from spoutnik.model.config import ModelConfig
from spoutnik.model.inspect import MARKERS, Inspection
from spoutnik.units import short, size


def describe(inspection: Inspection) -> list[tuple[str, str]]:
    """Labels and texts, in the order to print them."""
    config, counts = inspection.config, inspection.counts
    facts = inspection.as_json()
    parameters = f"{_billions(counts.total_parameters)} ({counts.total_parameters:,})"
    if config.has_experts:
        parameters += f", {_billions(counts.active_parameters)} at work for a token"
    where = {True: ", in the files", False: ", not in the files", None: ""}[inspection.mtp_in_files]
    mtp = f"{_billions(counts.mtp_parameters)} more predict two tokens ahead (MTP){where}" if counts.mtp_parameters else ""
    layers = f"{config.num_hidden_layers} ({facts['dense_layers']} dense, {facts['moe_layers']} of experts)" \
        if config.has_experts else str(config.num_hidden_layers)
    context = config.max_position_embeddings
    lines = {
        inspection.kind: inspection.source,
        "architecture": f"{facts['architecture']} ({config.model_type})",
        "parameters": parameters,
        "prediction": mtp,
        "layers": f"{layers}, hidden size {config.hidden_size:,}",
        "attention": _attention(config),
        "experts": _experts(config) if config.has_experts else "",
        "vocabulary": f"{config.vocab_size:,} tokens",
        "context": f"{context:,} tokens{_scaling(config)}",
        "cache": _cache(counts, context),
        "arithmetic": f"{short(counts.flops_per_token)}FLOP a token, and "
                      f"{short(counts.attention_flops_per_position)}FLOP for each token before it",
        "memory": ", ".join(f"{size(number)} in {name}" for name, number in inspection.memory.items()) + " (weights alone)",
        "files": _files(inspection),
        "chat": _chat(inspection),
        "sampling": ", ".join(f"{name} {value}" for name, value in inspection.generation.items()),
        "licence": inspection.licence or "not stated",
    }
    return [(label, text) for label, text in lines.items() if text]


def _attention(config: ModelConfig) -> str:
    heads = f"{config.num_attention_heads} heads"
    if not config.is_mla:
        biases = ", biases on q, k and v" if config.qkv_bias else ""
        return (f"grouped queries (GQA): {heads} share {config.num_key_value_heads} keys and values of width "
                f"{config.qk_head_dim}{biases}")
    queries = f"queries through {config.q_lora_rank:,}" if config.q_lora_rank else "queries straight from the hidden state"
    return (f"latent (MLA): {heads}, {config.kv_lora_rank} latent + {config.qk_rope_head_dim} rotary numbers cached, "
            f"{queries}")


def _experts(config: ModelConfig) -> str:
    groups = f" in {config.n_group} groups ({config.topk_group} eligible)" if config.n_group > 1 else ""
    return (f"{config.n_routed_experts} routed{groups}, {config.num_experts_per_tok} for a token; {config.n_shared_experts} "
            f"shared; width {config.moe_intermediate_size:,}")


def _scaling(config: ModelConfig) -> str:
    scaling = config.rope_scaling
    if scaling is None:
        return ""
    original = getattr(scaling, "original_max_position_embeddings", None)
    return f" ({scaling.type}, factor {scaling.factor:g}" + (f" from {original:,})" if original else ")")


def _cache(counts: Accounting, context: int) -> str:
    latent, expanded = counts.cache_bytes_per_token, counts.expanded_cache_bytes_per_token
    against = f" ({expanded / latent:.1f} times less than keys and values, {expanded:,})" if expanded != latent else ""
    return f"{latent:,} bytes a token{against}, {size(latent * context)} at full context"


def _files(inspection: Inspection) -> str:
    if inspection.kind == "configuration":
        return f"no weights in this folder; {inspection.tensors:,} tensors would be expected"
    where = f"in {inspection.files:,} file{'s' * (inspection.files > 1)}" if inspection.files else "as published"
    stored = sorted(inspection.stored.items(), key=lambda item: -item[1])
    types = ", ".join(f"{kind} {size(number)}" for kind, number in stored)
    return f"{inspection.tensors:,} tensors {where}, {size(sum(inspection.stored.values()))}: {types}"


def _chat(inspection: Inspection) -> str:
    if inspection.chat_format is None:
        return "no template stated" if inspection.kind == "preset" else "no template"
    marker = f" ({MARKERS[inspection.chat_format]})" if inspection.chat_format in MARKERS else ""
    return f"{inspection.chat_format}{marker}, " + ("opens a thought" if inspection.opens_thought else "opens no thought")


def _billions(count: int) -> str:
    return short(count).replace("G", "B").rstrip()
