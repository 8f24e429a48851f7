"""GGUF files read back: the same numbers under llama.cpp's names, the keys it reads, the vocabulary, and what is refused."""

import json
import math

import gguf
import gguf_back
import pytest
import tiny
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Regex, models, pre_tokenizers
from tokenizers import Tokenizer as BPE

from spoutnik.errors import RunError, UserError
from spoutnik.export.gguf_file import write_file
from spoutnik.export.gguf_metadata import differences, refuse_unreadable, yarn_keys
from spoutnik.export.gguf_tokens import OWN_NAME, split_name, vocabulary
from spoutnik.export.model_card import Provenance
from spoutnik.export.writer import export
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.rope import inverse_frequencies, rotary_magnitude, softmax_scale
from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.tokenizer import Tokenizer

EXACT = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
BLOCKS = {"q8_0": 1 / 127, "q4_0": 1 / 8}  # half a step of the largest number of a block, doubled
# Rows of 32 and 64 where they can be, so that blocks fit; kv_b's keys (8 wide) never do.
WIDE = {"hidden_size": 64, "intermediate_size": 96}


@pytest.mark.parametrize("kind", tiny.ALL)
@pytest.mark.parametrize("dtype", EXACT)
def test_numbers_are_the_published_ones(checkpoint, tmp_path, kind, dtype):
    folder = checkpoint(tiny.ALL[kind], torch.float32)
    path = export(folder, "gguf", tmp_path / "model.gguf", dtype).path
    config = tiny.config(tiny.ALL[kind], vocab_size=320)
    actual, kinds = gguf_back.published(path, config), gguf_back.stored(path)
    mtp = f"model.layers.{config.num_hidden_layers}."
    expected = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if not name.startswith(mtp)}
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        plain = tensor.dim() == 1 or name.endswith("mlp.gate.weight")
        assert torch.equal(actual[name], tensor if plain else tensor.to(EXACT[dtype]).float()), name
    for name, (stored, numbers) in kinds.items():
        assert stored == ("F32" if numbers.dim() == 1 or "ffn_gate_inp" in name else dtype.upper()), name


def test_without_a_tokenizer_the_same_numbers_and_no_vocabulary(checkpoint, tmp_path):
    folder = checkpoint(tiny.QWEN)
    with_tokens = export(folder, "gguf", tmp_path / "with.gguf", "bf16").path
    write_file(tmp_path / "without.gguf", Checkpoint.open(folder), None, "bf16", Provenance("random", "mit"))
    fields = gguf.GGUFReader(tmp_path / "without.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "no_vocab" and "tokenizer.ggml.tokens" not in fields
    stored, expected = gguf_back.stored(tmp_path / "without.gguf"), gguf_back.stored(with_tokens)
    assert all(torch.equal(stored[name][1], expected[name][1]) for name in stored.keys() | expected.keys())


@pytest.mark.parametrize("kind", tiny.ALL)
@pytest.mark.parametrize("dtype", BLOCKS)
def test_blocks_err_by_their_step(checkpoint, tmp_path, kind, dtype):
    folder = checkpoint(tiny.ALL[kind], **WIDE)
    path = export(folder, "gguf", tmp_path / "model.gguf", dtype).path
    whole = gguf_back.stored(export(folder, "gguf", tmp_path / "whole.gguf", "f32").path)
    seen = set()
    for name, (stored, numbers) in gguf_back.stored(path).items():
        expected = whole[name][1]
        seen.add(stored)
        if numbers.dim() == 1 or "ffn_gate_inp" in name:
            assert stored == "F32" and torch.equal(numbers, expected)
        elif numbers.shape[-1] % 32:
            assert stored == "F16" and torch.equal(numbers, expected.half().float())
        else:
            assert stored == ("Q8_0" if name in ("token_embd.weight", "output.weight") else dtype.upper())
            blocks, decoded = expected.reshape(-1, 32), numbers.reshape(-1, 32)
            limit = blocks.abs().amax(-1, keepdim=True) * BLOCKS[stored.lower()]
            assert ((blocks - decoded).abs() <= limit * 1.01).all(), name
    assert {"F32", dtype.upper(), "Q8_0"} <= seen


def test_stored_types_are_kept_where_none_is_asked(checkpoint, tmp_path):
    written = export(checkpoint(tiny.QWEN, torch.float16), "gguf", tmp_path / "model.gguf")
    assert written.dtype == "f16" and gguf_back.stored(written.path)["blk.0.attn_q.weight"][0] == "F16"


def test_keys_of_deepseek_v3(checkpoint, tmp_path):
    metadata = gguf_back.values(export(checkpoint(tiny.DEEPSEEK), "gguf", tmp_path / "model.gguf").path)
    expected = {
        "block_count": 3, "context_length": 128, "embedding_length": 32, "feed_forward_length": 48, "vocab_size": 320,
        "attention.head_count": 4, "attention.head_count_kv": 1, "attention.key_length": 20, "attention.value_length": 12,
        "attention.key_length_mla": 16, "attention.value_length_mla": 6, "attention.q_lora_rank": 16,
        "attention.kv_lora_rank": 12, "rope.dimension_count": 8, "rope.freq_base": 10000.0, "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.0,
        "leading_dense_block_count": 1, "expert_count": 8, "expert_used_count": 3, "expert_shared_count": 1,
        "expert_feed_forward_length": 16, "expert_weights_scale": 2.5, "expert_weights_norm": True, "expert_gating_func": 2,
        "expert_group_count": 4, "expert_group_used_count": 2}
    assert metadata["general.architecture"] == "deepseek2"
    assert {name: metadata[f"deepseek2.{name}"] for name in expected} == expected
    assert metadata["deepseek2.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert metadata["deepseek2.rope.scaling.yarn_log_multiplier"] == pytest.approx(0.1)
    assert metadata["general.sampling.temp"] == pytest.approx(0.6) and metadata["general.sampling.top_p"] == pytest.approx(0.95)


@pytest.mark.parametrize("changes, groups", [
    ({"topk_group": 4, "n_group": 4}, False),  # all groups: llama.cpp would stop at the key
    ({"n_group": 1, "topk_group": 1}, False), ({"n_group": 2, "topk_group": 1}, True)])
def test_groups_are_named_only_where_they_choose(checkpoint, tmp_path, changes, groups):
    metadata = gguf_back.values(export(checkpoint(tiny.DEEPSEEK, **changes), "gguf", tmp_path / "model.gguf").path)
    assert ("deepseek2.expert_group_count" in metadata) == groups


def test_keys_of_deepseek_v2_and_of_dense_models(checkpoint, tmp_path):
    lite = {"q_lora_rank": None, "topk_method": "greedy"}
    metadata = gguf_back.values(export(checkpoint(tiny.V2, **lite), "gguf", tmp_path / "v2.gguf").path)
    assert metadata["deepseek2.attention.q_lora_rank"] == 0 and metadata["deepseek2.expert_gating_func"] == 1
    assert metadata["deepseek2.expert_weights_norm"] is False and "deepseek2.expert_group_count" not in metadata
    metadata = gguf_back.values(export(checkpoint(tiny.QWEN3), "gguf", tmp_path / "qwen3.gguf").path)
    assert metadata["qwen3.attention.key_length"] == 12 and metadata["qwen3.attention.head_count_kv"] == 2
    dense = checkpoint(tiny.DEEPSEEK, first_k_dense_replace=3)
    metadata = gguf_back.values(export(dense, "gguf", tmp_path / "dense.gguf").path)
    assert metadata["deepseek2.leading_dense_block_count"] == 3 and "deepseek2.expert_count" not in metadata


def test_llama_3_s_scaling_is_a_tensor_of_divisors(checkpoint, tmp_path):
    path = export(checkpoint(tiny.LLAMA), "gguf", tmp_path / "model.gguf").path
    config = tiny.config(tiny.LLAMA)
    divisors = gguf_back.stored(path)["rope_freqs.weight"][1]
    plain = 500.0 ** (-torch.arange(0, 8, 2) / 8)
    assert torch.allclose(plain / divisors, inverse_frequencies(config)) and divisors.max() == 8 and divisors.min() == 1
    assert not any("rope.scaling" in name for name in gguf_back.values(path))


@pytest.mark.parametrize("base, scaling", [
    (tiny.DEEPSEEK, {}), (tiny.DEEPSEEK, {"mscale": 0.7, "mscale_all_dim": 0.0}), (tiny.V2, {}),
    (tiny.DEEPSEEK, {"mscale": 1.0, "mscale_all_dim": 0.3}), (tiny.DEEPSEEK, {"attention_factor": 1.3}),
    (tiny.QWEN, {"mscale_all_dim": 0.0}), (tiny.QWEN, {"mscale_all_dim": 0.0, "attention_factor": 0.8})])
def test_yarn_keys_solve_llama_cpp_s_equations(base, scaling):
    """Its formulas, as its source has them: the rotary factor, and deepseek2's factor of the attention's logits."""
    config = tiny.config(base, rope_scaling=tiny.YARN | base.get("rope_scaling", {}) | scaling)
    attention_factor, log_multiplier = yarn_keys(config)
    log, factor = math.log(4.0), lambda mscale: 0.1 * mscale * math.log(4.0) + 1
    mscale = log_multiplier if config.is_mla and log_multiplier != 1 else 1.0
    ratio = factor(mscale) / factor(log_multiplier) if log_multiplier else factor(1.0)
    yarn_attention = ratio / (1 + 0.1 * log) * attention_factor
    rotary = yarn_attention * (1 + 0.1 * log)
    assert rotary == pytest.approx(rotary_magnitude(config))
    if config.is_mla:
        logits = (rotary * (1 + 0.1 * log_multiplier * log)) ** 2 / math.sqrt(config.qk_head_dim)
        assert logits == pytest.approx(softmax_scale(config))


def test_vocabulary(checkpoint, tmp_path, tokenizer):
    path = export(checkpoint(tiny.QWEN), "gguf", tmp_path / "model.gguf").path
    metadata = gguf_back.values(path)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    size = tokenizer.vocab_size
    assert len(tokens) == len(types) == 320 and size < 320
    assert [tokenizer.bpe.token_to_id(token) for token in tokens[:size]] == list(range(size))
    control, user, normal, unused = (int(gguf.TokenType[name]) for name in ("CONTROL", "USER_DEFINED", "NORMAL", "UNUSED"))
    assert types[:6] == [control] * 4 + [user] * 2 and set(types[6:size]) == {normal} and set(types[size:]) == {unused}
    merges = json.loads(tokenizer.bpe.to_str())["model"]["merges"]
    assert [tuple(line.split(" ")) for line in metadata["tokenizer.ggml.merges"]] == [tuple(pair) for pair in merges]
    assert metadata["tokenizer.ggml.bos_token_id"] == 0 and metadata["tokenizer.ggml.eos_token_id"] == 1
    assert metadata["tokenizer.ggml.add_bos_token"] is True and metadata["tokenizer.ggml.pre"] == OWN_NAME
    assert metadata["tokenizer.chat_template"] == tokenizer.chat_template


QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
V3 = (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
      r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
      r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CODER = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
LLM = ("[\r\n]", r"\s?[A-Za-zÀ-ÿ]+", r"\s?[!-/:-~]+", r"\s+$", "[一-龥]+", r"\p{N}")


def split_by(*patterns, gpt2=False):
    bpe = BPE(models.BPE({"a": 0}, []))
    bpe.pre_tokenizer = pre_tokenizers.Sequence([*(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2)])
    bpe.add_special_tokens(["</s>", "<s>"])
    return Tokenizer(bpe, ChatTemplates({}, "test"), {"eos_token": "</s>", "bos_token": "<s>"})


@pytest.mark.parametrize("name, patterns, gpt2", [
    ("qwen2", (QWEN,), False), ("llama-bpe", (QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),), False),
    ("deepseek-v3", V3, False), ("deepseek-coder", CODER, False), ("deepseek-llm", LLM, False), ("gpt-2", (), True),
    ("smollm", (r"\p{N}",), True)])
def test_pre_tokenizers_are_recognised(name, patterns, gpt2):
    assert split_name(split_by(*patterns, gpt2=gpt2)) == (name, None)


def test_an_unknown_or_our_own_pre_tokenizer_is_named_with_a_warning(tokenizer):
    assert split_name(tokenizer)[0] == OWN_NAME and "numbers" in split_name(tokenizer)[1]
    name, warning = split_name(split_by(QWEN.replace(r"\p{L}+", r"[\p{L}\p{M}]+")))  # newer Qwens keep marks with letters
    assert name == "gpt-2" and "may be split differently" in warning


def test_added_tokens_keep_their_kind():
    tokenizer = split_by(QWEN)
    tokenizer.bpe.add_tokens([AddedToken("<tool>", special=False), AddedToken("<｜User｜>", special=False)])
    texts, types = vocabulary(tokenizer, 6)
    assert texts == ["a", "</s>", "<s>", "<tool>", "<｜User｜>", "[PAD5]"]
    assert [kind.name for kind in types] == ["NORMAL", "CONTROL", "CONTROL", "USER_DEFINED", "CONTROL", "UNUSED"]


@pytest.mark.parametrize("base, changes, expected", [
    (tiny.DEEPSEEK, {"attention_bias": True}, "attention_bias = true"),
    (tiny.QWEN3, {"attention_bias": True}, "attention_bias = true"),
    (tiny.QWEN3, {"rope_scaling": tiny.LLAMA["rope_scaling"]}, "rope_scaling.type = 'llama3'"),
    (tiny.DEEPSEEK, {"n_shared_experts": 0}, "n_shared_experts = 0"),
    (tiny.DEEPSEEK, {"num_hidden_layers": 27}, "num_hidden_layers = 27 with q_lora_rank = 16")])
def test_what_llama_cpp_cannot_read_is_refused(base, changes, expected):
    with pytest.raises(UserError, match=expected) as refused:
        refuse_unreadable(tiny.config(base, **changes))
    assert "--format hf" in str(refused.value)


@pytest.mark.parametrize("base, changes, expected", [
    (tiny.DEEPSEEK, {}, ["MTP layer"]), (tiny.V2, {}, ["two best"]), (tiny.V2, {"topk_method": "greedy"}, []),
    (tiny.V2, {"n_group": 8, "topk_group": 5}, []), (tiny.QWEN, {}, []), (tiny.LLAMA, {}, []),
    (tiny.DEEPSEEK, {"num_nextn_predict_layers": 0, "rms_norm_eps": 1e-5}, ["1e-05"]),
    (tiny.QWEN, {"rope_scaling": tiny.YARN | {"beta_fast": 16}}, ["--yarn-beta-fast 16 --yarn-beta-slow 1"])])
def test_what_llama_cpp_computes_otherwise_is_said(base, changes, expected):
    actual = differences(tiny.config(base, **changes))
    assert len(actual) == len(expected) and all(words in line for words, line in zip(expected, actual))


def test_a_tokenizer_of_another_kind_is_refused(checkpoint, tmp_path):
    folder = checkpoint(tiny.QWEN)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["byte_fallback"] = True
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="no byte-level BPE"):
        export(folder, "gguf", tmp_path / "model.gguf")
    assert not any(tmp_path.iterdir())
