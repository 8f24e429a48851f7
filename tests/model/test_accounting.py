"""The published numbers of DeepSeek-V3, from the model itself, on the meta device: nothing is allocated."""

import pytest
import tiny
import torch

from spoutnik.model.accounting import account
from spoutnik.model.rope import inverse_frequencies, softmax_scale, yarn_correction_range, yarn_mscale
from spoutnik.model.transformer import Transformer


@pytest.fixture(scope="module")
def v3():
    return account(tiny.config(tiny.V3))


def test_v3_has_671_billion_parameters(v3):
    assert v3.total_parameters == 671_026_419_200


def test_v3_s_mtp_module_adds_11_6_billion(v3):
    assert v3.mtp_parameters == 11_610_068_224


def test_v3_reads_37_55_billion_for_one_token(v3):
    assert v3.active_parameters == pytest.approx(37.55e9, rel=2e-4)


def test_v3_caches_70272_bytes_a_token(v3):
    assert v3.cache_bytes_per_token == 70_272


def test_a_forward_pass_costs_two_operations_per_active_weight_but_the_embedding_s(v3):
    assert v3.flops_per_token == 2 * (v3.active_parameters - 129280 * 7168)
    assert v3.attention_flops_per_position == 2 * 61 * 128 * (192 + 128)


def test_v2_lite_s_attention_has_one_query_projection():
    with torch.device("meta"):
        names = set(Transformer(tiny.config(tiny.DEEPSEEK, q_lora_rank=None)).state_dict())
    assert "layers.0.self_attn.q_proj.weight" in names and not any("q_a_" in n or "q_b_" in n for n in names)


def test_qwen_1_5b_has_its_published_size():
    qwen = tiny.config(tiny.QWEN, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
                       num_attention_heads=12, num_key_value_heads=2, vocab_size=151936)
    # https://huggingface.co/deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B: 1,777,088,000 with an untied head
    assert account(qwen).total_parameters == 1_777_088_000
    assert account(qwen).cache_bytes_per_token == 2 * 28 * 2 * 2 * 128
    tied = account(qwen.model_copy(update={"tie_word_embeddings": True}))
    assert tied.total_parameters == 1_777_088_000 - 151936 * 1536
    assert tied.flops_per_token == account(qwen).flops_per_token


def test_a_model_s_active_parameters_follow_from_its_experts():
    counts = account(tiny.config(tiny.DEEPSEEK, num_nextn_predict_layers=0))
    routed = 2 * 8 * 3 * 32 * 16  # layers, experts, matrices, their size
    assert counts.total_parameters - counts.active_parameters == routed * 5 // 8


def test_v3_s_softmax_scale_carries_yarn_s_temperature():
    assert softmax_scale(tiny.config(tiny.V3)) == pytest.approx(0.1352338, abs=1e-7)


def test_v2_lite_s_temperature_is_the_published_one():
    assert yarn_mscale(40, 0.707) ** 2 == pytest.approx(1.5896262, abs=1e-6)


def test_v3_s_yarn_blends_between_frequencies_10_and_23():
    config = tiny.config(tiny.V3)
    assert yarn_correction_range(config.rope_scaling, 64, 10000.0) == (10, 23)
    plain = inverse_frequencies(config.model_copy(update={"rope_scaling": None}))
    ratio = plain / inverse_frequencies(config)
    torch.testing.assert_close(ratio[:11], torch.ones(11))
    torch.testing.assert_close(ratio[23:], torch.full((9,), 40.0))
    assert (ratio[11:23] > 1).all() and (ratio[11:23] < 40).all()
