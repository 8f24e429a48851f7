"""Adapters against PEFT itself, both ways: PEFT reads what we write and we read what PEFT writes; the largest differences of
logits, and of one step's gradients. Needs peft and transformers, which Spoutnik does not.

    python benchmarks/peft_parity.py [MODEL-FOLDER]

Without a folder: small models of every dense type with random weights, and DeepSeek's with adapters on its attention.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from spoutnik.model.adapter_file import Adapter, attach_adapter, base_hash, read_adapter, write_adapter
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LoraConfig, adapters_of, add_lora, merged_copy
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model, save_model

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
_SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2}
_MODELS = {
    "llama": _SIZES | {"model_type": "llama"}, "qwen2": _SIZES | {"model_type": "qwen2"},
    "qwen3": _SIZES | {"model_type": "qwen3", "head_dim": 12},
    "deepseek_v3": _SIZES | {
        "model_type": "deepseek_v3", "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 12, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8, "v_head_dim": 8, "moe_intermediate_size": 16, "n_routed_experts": 8, "n_shared_experts": 1,
        "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5}}
_VARIANTS = {"LoRA": {}, "rsLoRA": {"use_rslora": True}, "DoRA": {"use_dora": True}}
_ATTENTION = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")


def main() -> None:
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        if len(sys.argv) > 1:
            folders = {Path(sys.argv[1]).name: Path(sys.argv[1])}
        else:
            folders = {name: _write_model(Path(temporary) / name, values) for name, values in _MODELS.items()}
        for name, folder in folders.items():
            for variant, options in _VARIANTS.items():
                work = Path(temporary) / f"{name}-{variant}"
                rows.append({"model": name, "variant": variant} | compare(folder, options, work))
                print(rows[-1])
            if ModelConfig.load(folder).has_experts:
                measured = of_experts(folder, Path(temporary) / "experts")
                rows.append({"model": name, "variant": "LoRA of routed experts"} | measured)
                print(rows[-1])
    print(json.dumps(rows))


def compare(folder: Path, options: dict, work: Path) -> dict:
    """Largest absolute differences, beside the largest change that the adapter makes."""
    ours = load_model(folder, torch.float32)
    targets = _ATTENTION if ours.config.has_experts else "all-linear"
    ids = torch.randint(2, ours.config.vocab_size, (2, 24))
    base = ours(ids).detach()
    add_lora(ours, LoraConfig(4, 8.0, target_modules=targets, **options), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for part in adapters_of(ours).values():
            part.lora_B.normal_(0, 0.02)
    mine = ours(ids)
    _loss(mine, ids).backward()
    write_adapter(work / "ours", Adapter(adapters_of(ours), "base", base_hash(ours, adapters_of(ours))))
    theirs = PeftModel.from_pretrained(_peer(folder), work / "ours", is_trainable=True)
    read = theirs(ids).logits
    _loss(read, ids).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    own = {name: parameter for name, parameter in ours.named_parameters() if parameter.grad is not None}
    assert len(gradients) == len(own)
    written = PeftConfig(r=4, lora_alpha=8, target_modules=targets if isinstance(targets, str) else list(targets),
                         rank_pattern={"o_proj": 2}, alpha_pattern={"o_proj": 32, "layers.0.self_attn.q_b_proj": 3}, **options)
    peer = get_peft_model(_peer(folder), written)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    peer.save_pretrained(work / "theirs")
    back = load_model(folder, torch.float32)
    attach_adapter(back, read_adapter(work / "theirs"), work / "theirs")
    expected = peer(ids).logits
    return {"change": _largest(mine, base), "PEFT reads ours": _largest(mine, read),
            "gradients": max(_largest(p.grad, gradients[_peft_name(name)]) for name, p in own.items()),
            "largest gradient": max(float(g.abs().max()) for g in gradients.values()),
            "we read PEFT's": _largest(back(ids), expected), "merged": _largest(merged_copy(back)(ids), expected)}


def of_experts(folder: Path, work: Path) -> dict:
    """Attention and routed experts: PEFT turns our pairs of each expert into its own of the fused ones."""
    ours = load_model(folder, torch.float32)
    ids = torch.randint(2, ours.config.vocab_size, (2, 24))
    base = ours(ids).detach()
    add_lora(ours, LoraConfig(4, 8.0, target_modules=_ATTENTION, experts=True), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    mine, parts = ours(ids), adapters_of(ours)
    write_adapter(work, Adapter(parts, "base", base_hash(ours, parts)))
    back = load_model(folder, torch.float32)
    attach_adapter(back, read_adapter(work), work)
    theirs = PeftModel.from_pretrained(_peer(folder), work)(ids).logits
    return {"change": _largest(mine, base), "PEFT reads ours": _largest(mine, theirs),
            "we read ours": _largest(back(ids), mine), "merged": _largest(merged_copy(back)(ids), mine)}


def _peft_name(name: str) -> str:
    module, kind = name.split(".adapter.")
    kind = "lora_magnitude_vector.default.weight" if kind == "magnitude" else f"{kind}.default.weight"
    return f"base_model.model.model.{module}.{kind}"


def _peer(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def _loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def _largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return round(float((a - b).detach().abs().max()), 9)


def _write_model(folder: Path, values: dict) -> Path:
    model = Transformer(ModelConfig.parse(values, "benchmarks/peft_parity.py"))
    model.init_weights(torch.Generator().manual_seed(0))
    folder.mkdir()
    save_model(folder, model, torch.float32)
    return folder


if __name__ == "__main__":
    main()
