"""Published configurations are read as their makers meant them; recipes stay strict (test_config.py)."""

import json

import pytest
import tiny
import torch
import transformers

from spoutnik.errors import RunError, UserError
from spoutnik.loading import load
from spoutnik.model.config import ModelConfig
from spoutnik.model.weights import load_model, save_model

SMOLLM = {"_attn_implementation_autoset": True, "is_llama_config": True, "rope_interleaved": False, "attention_bias": False,
          "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "rope_scaling": None, "rope_theta": 100000,
          "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "pad_token_id": 2, "unk_token_id": 0}
WINDOW = {"max_position_embeddings": 256, "sliding_window": 64}


def read(base: dict, **changes) -> ModelConfig:
    return ModelConfig.read(base | changes, "config.json")


def refusal(base: dict, **changes) -> str:
    with pytest.raises(UserError) as error:
        read(base, **changes)
    return str(error.value)


def test_smollm2_s_keys_change_nothing(capsys):
    plain = read(tiny.LLAMA, rope_theta=100000, rope_scaling=None)
    assert read(tiny.LLAMA, **SMOLLM) == plain
    assert capsys.readouterr().err == ""


def test_a_full_dump_of_transformers_changes_nothing(capsys):
    """What older versions wrote: every attribute, defaults included."""
    base = {key: value for key, value in tiny.LLAMA.items() if key not in ("model_type", "rope_scaling", "rope_theta")}
    theirs = transformers.LlamaConfig(**base)
    dump = theirs.to_dict() | {"tie_encoder_decoder": False, "temperature": 1.0, "num_beams": 1, "pruned_heads": {},
                               "bad_words_ids": None, "typical_p": 1.0, "finetuning_task": None, "torchscript": False,
                               "_commit_hash": "0" * 40, "internal_version": 3, "max_sequence_length": 2048}
    assert read(dump) == read(base, model_type="llama", bos_token_id=1, eos_token_id=2)
    assert capsys.readouterr().err == ""


def test_what_is_not_known_is_named_once_and_all_together(capsys):
    for _ in range(3):
        read(tiny.QWEN, a_new_key=1, another=[2])
    assert capsys.readouterr().err.count("a_new_key, another: not known here and not read") == 1


@pytest.mark.parametrize("base, changes", [
    (tiny.QWEN, {"dual_chunk_attention_config": {"chunk_size": 8}}), (tiny.LLAMA, {"rope_interleaved": True}),
    (tiny.LLAMA, {"logits_scaling": 8.0}), (tiny.LLAMA, {"partial_rotary_factor": 0.5}), (tiny.QWEN, {"use_mrope": True}),
    (tiny.LLAMA, {"no_rope_layers": [1, 0]}), (tiny.LLAMA, {"num_local_experts": 8}),
    (tiny.LLAMA, {"attention_chunk_size": 64}),
    (tiny.QWEN, WINDOW | {"use_sliding_window": True, "max_window_layers": 0}),
    (tiny.QWEN, WINDOW | {"layer_types": ["full_attention", "sliding_attention"]}),
    (tiny.LLAMA | {"model_type": "mistral"}, WINDOW),
    (tiny.LLAMA, {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}),
], ids=str)
def test_what_changes_the_numbers_is_refused_by_name(base, changes):
    key = next(key for key in reversed(changes) if key not in ("use_sliding_window", "max_window_layers", "layer_types"))
    assert key in refusal(base, **changes)


def test_all_of_it_is_named_at_once():
    words = refusal(tiny.LLAMA, logit_scale=2.0, rotary_pct=0.25, a_new_key=1)
    assert "logit_scale = 2.0" in words and "rotary_pct = 0.25" in words


@pytest.mark.parametrize("base, changes", [
    (tiny.QWEN, WINDOW | {"use_sliding_window": False}), (tiny.LLAMA, WINDOW),
    (tiny.QWEN, WINDOW | {"use_sliding_window": True, "max_window_layers": 28}),  # more layers than there are: none has it
    (tiny.QWEN, {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 4096, "max_position_embeddings": 256}),
    (tiny.QWEN, WINDOW | {"layer_types": ["full_attention", "full_attention"]}),
    (tiny.LLAMA | {"model_type": "mistral"}, {"sliding_window": None}),
], ids=str)
def test_a_window_that_no_layer_feels_is_none(base, changes):
    assert read(base, **changes).num_hidden_layers == base["num_hidden_layers"]


@pytest.mark.parametrize("changes", [{"max_position_embeddings": None}, {"num_hidden_layers": None}], ids=str)
def test_a_window_beside_what_is_no_number_leaves_the_sentence_to_that(changes):
    words = refusal(tiny.QWEN, **WINDOW | {"use_sliding_window": True, "max_window_layers": None} | changes)
    assert next(iter(changes)) in words


def test_other_names_of_the_same_arithmetic():
    assert read(tiny.V3 | {"model_type": "kimi_k2"}) == read(tiny.V3)
    assert read(tiny.LLAMA | {"model_type": "mistral"}) == read(tiny.LLAMA)


def test_mistral_is_computed_as_transformers_does(tmp_path):
    torch.manual_seed(0)
    config = transformers.MistralConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                        num_attention_heads=4, num_key_value_heads=2, sliding_window=None)
    theirs = transformers.MistralForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ids = torch.randint(64, (2, 20))
    with torch.no_grad():
        assert torch.allclose(load_model(tmp_path)(ids), theirs(ids).logits, atol=1e-5)


def test_modules_that_fp8_leaves_out_are_seen_by_their_types():
    fp8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
           "modules_to_not_convert": ["lm_head"]}
    assert read(tiny.QWEN, quantization_config=fp8).quantization_config.quant_method == "fp8"


def test_one_file_is_taken_before_an_index_that_was_left_over(tmp_path):
    save_model(tmp_path, tiny.model(tiny.LLAMA))
    ids = torch.arange(8)[None]
    before = load_model(tmp_path)(ids)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(load_model(tmp_path)(ids), before)


def test_an_embedding_model_s_tensors_lack_the_prefix(tmp_path):
    config = transformers.Qwen3Config(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=8,
                                      num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    theirs = transformers.Qwen3Model(config).eval()
    theirs.save_pretrained(tmp_path)
    ids = torch.randint(64, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = theirs(ids).last_hidden_state @ theirs.embed_tokens.weight.T
        assert torch.allclose(load_model(tmp_path)(ids), logits, atol=1e-5)


@pytest.mark.parametrize("file, text, words", [
    ("config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 600\n", "git lfs pull"),
    ("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 600\n", "git lfs pull"),
    ("config.json", json.dumps(tiny.LLAMA | {"quantization": {"group_size": 64, "bits": 4}}), "MLX"),
    ("config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"}), "an adapter .LORA.*org/base"),
])
def test_other_kinds_of_folders_are_named(tmp_path, file, text, words):
    save_model(tmp_path, tiny.model(tiny.LLAMA))
    (tmp_path / file).write_text(text)
    with pytest.raises((UserError, RunError), match=words):
        load(tmp_path)


def test_an_adapter_s_folder_names_the_model_it_belongs_to(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="adapter.*org/base"):
        load(tmp_path)


def test_a_mark_before_the_text_is_no_error(tmp_path):
    save_model(tmp_path, tiny.model(tiny.LLAMA))
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "config.json").read_bytes())
    assert load_model(tmp_path).config.model_type == "llama"


def test_v2_without_the_key_has_one_query_projection(tmp_path):
    """V2-Lite's q_lora_rank is null, or left out."""
    model = tiny.model(tiny.V2, q_lora_rank=None)
    save_model(tmp_path, model, torch.float32)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("q_lora_rank") is None
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = tiny.tokens(1, 9)
    assert torch.equal(load_model(tmp_path)(ids), model(ids))
