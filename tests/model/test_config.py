"""Configurations are read strictly: every refusal is a sentence that names the source and the key."""

import math

import pytest
import tiny
import torch
from transformers import AutoConfig, DeepseekV3Config, Qwen2Config

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import save_model


def refusal(base: dict, **changes) -> str:
    with pytest.raises(UserError) as error:
        ModelConfig.parse(base | changes, "config.json")
    message = str(error.value)
    assert message.startswith("config.json: ") and message.endswith((".", "?"))
    return message


def test_an_unknown_key_is_refused():
    assert "unknown key 'hiden_size'" in refusal(tiny.DEEPSEEK, hiden_size=3)


def test_a_missing_key_is_named():
    with pytest.raises(UserError, match="the key 'hidden_size' is missing"):
        ModelConfig.parse({k: v for k, v in tiny.QWEN.items() if k != "hidden_size"}, "config.json")


def test_an_unknown_key_inside_rope_scaling_is_named_with_its_path():
    assert "'rope_scaling.facter'" in refusal(tiny.DEEPSEEK, rope_scaling=tiny.YARN | {"facter": 2})


@pytest.mark.parametrize("base, key, value", [
    (tiny.DEEPSEEK, "model_type", "mamba"), (tiny.QWEN, "mlp_bias", True),
    (tiny.QWEN, "head_dim", 6),
    (tiny.QWEN, "n_routed_experts", 4), (tiny.LLAMA, "head_dim", 7), (tiny.V2, "norm_topk_prob", True),
    (tiny.V2, "scoring_func", "sigmoid"), (tiny.V2, "topk_method", "noaux_tc"), (tiny.DEEPSEEK, "mlp_bias", True),
    (tiny.DEEPSEEK, "hidden_size", 0), (tiny.DEEPSEEK, "hidden_size", "big"),
    (tiny.DEEPSEEK, "num_hidden_layers", -1), (tiny.DEEPSEEK, "kv_lora_rank", 0), (tiny.DEEPSEEK, "v_head_dim", 0),
    (tiny.DEEPSEEK, "qk_rope_head_dim", 7), (tiny.DEEPSEEK, "num_experts_per_tok", 9),
    (tiny.DEEPSEEK, "num_experts_per_tok", 0), (tiny.DEEPSEEK, "topk_group", 5), (tiny.DEEPSEEK, "topk_group", 0),
    (tiny.DEEPSEEK, "n_group", 3), (tiny.DEEPSEEK, "n_group", -4), (tiny.DEEPSEEK, "moe_intermediate_size", 0),
    (tiny.DEEPSEEK, "num_nextn_predict_layers", 2), (tiny.DEEPSEEK, "moe_layer_freq", 2),
    (tiny.DEEPSEEK, "scoring_func", "softmax"), (tiny.DEEPSEEK, "topk_method", "greedy"),
    (tiny.DEEPSEEK, "rms_norm_eps", 0), (tiny.QWEN, "num_attention_heads", 5), (tiny.QWEN, "num_key_value_heads", 3),
    (tiny.QWEN, "vocab_size", -2),
])
def test_an_impossible_value_is_refused_by_a_sentence_that_names_its_key(base, key, value):
    assert key in refusal(base, **{key: value})


def test_a_group_of_one_expert_is_refused():
    assert "a group needs two experts" in refusal(tiny.DEEPSEEK, n_group=8, topk_group=4)


def test_v3_s_published_keys_are_accepted():
    config = tiny.config(tiny.V3, architectures=["DeepseekV3ForCausalLM"], auto_map={}, torch_dtype="bfloat16",
                         hidden_act="silu", ep_size=1, attention_bias=False, attention_dropout=0.0, use_cache=True,
                         transformers_version="4.33.1", pretraining_tp=1)
    assert config == tiny.config(tiny.V3)


@pytest.mark.parametrize("base", tiny.ALL.values(), ids=tiny.ALL)
def test_a_configuration_comes_back_from_its_published_form(base):
    config = tiny.config(base)
    assert ModelConfig.parse(config.published(), "test") == config


def test_transformers_reads_our_file_as_we_mean_it(tmp_path):
    save_model(tmp_path, tiny.model(tiny.DEEPSEEK))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(theirs, DeepseekV3Config)
    assert theirs.rope_parameters["rope_type"] == "yarn" and theirs.rope_parameters["factor"] == 4.0
    assert (theirs.n_routed_experts, theirs.topk_group, theirs.eos_token_id) == (8, 2, 1)


@pytest.mark.parametrize("changes", [
    {"n_group": 0}, {"n_shared_experts": -1}, {"q_lora_rank": 0}, {"q_lora_rank": -3},
    {"n_routed_experts": -8}, {"routed_scaling_factor": math.nan},
], ids=str)
def test_values_that_no_network_can_have_are_refused(changes):
    assert next(iter(changes)) in refusal(tiny.DEEPSEEK, **changes)


def test_an_odd_head_width_is_refused():
    refusal(tiny.QWEN, hidden_size=36, num_attention_heads=4, num_key_value_heads=4)


def test_silu_has_another_name():
    assert ModelConfig.read(tiny.QWEN | {"hidden_act": "swish"}, "config.json") == ModelConfig(**tiny.QWEN)


@pytest.mark.parametrize("key, value", [("hidden_act", "gelu"), ("rope_interleave", False)])
def test_a_value_that_changes_the_numbers_is_not_silently_ignored(key, value):
    assert key in refusal(tiny.DEEPSEEK, **{key: value})


def test_a_file_written_by_transformers_5_keeps_its_rotary_base(tmp_path):
    rope = {"rope_type": "default", "rope_theta": 1e6}
    theirs = Qwen2Config(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                         num_attention_heads=4, num_key_value_heads=2, rope_parameters=rope)
    theirs.save_pretrained(tmp_path)
    ours = ModelConfig.load(tmp_path)
    with torch.device("meta"):
        Transformer(ours)
    assert ours.rope_theta == 1e6


def test_a_configuration_with_a_list_of_ends_has_a_hash():
    first, same, other = (tiny.config(tiny.LLAMA, eos_token_id=ends) for ends in ([2, 0], [2, 0], [2]))
    assert hash(first) == hash(same) and first == same != other and len({first, same, other}) == 2
