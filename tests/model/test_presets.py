"""Models by name have the published numbers, tensor for tensor."""

import hashlib
import json
from collections import Counter
from math import prod
from pathlib import Path

import pytest
import torch

from spoutnik.errors import UserError
from spoutnik.model import presets
from spoutnik.model.accounting import account
from spoutnik.model.layout import published_shapes, published_type
from spoutnik.model.presets import preset, preset_names
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import published_tensors
from spoutnik.recipe.schema import load_recipe

FOLDER = Path(presets.__file__).parent
RECIPE = Path(__file__).parents[2] / "recipes" / "nano.yaml"
# Parameters as the hub counts them in the published files (the main model's alone), and the number of tensors in these.
PUBLISHED = {
    "deepseek-r1": (671_026_419_200, 91_991), "deepseek-v3": (671_026_419_200, 91_991),
    "deepseek-v2": (235_741_434_880, 29_102), "deepseek-v2-lite": (15_706_484_224, 5_291),
    "deepseek-r1-distill-qwen-1.5b": (1_777_088_000, 339), "deepseek-r1-distill-qwen-7b": (7_615_616_512, 339),
    "deepseek-r1-distill-llama-8b": (8_030_261_248, 291), "deepseek-r1-distill-qwen-14b": (14_770_033_664, 579),
    "deepseek-r1-distill-qwen-32b": (32_763_876_352, 771), "deepseek-r1-distill-llama-70b": (70_553_706_496, 723),
    "qwen3-0.6b": (596_049_920, 310), "qwen3-1.7b": (1_720_574_976, 310), "qwen3-4b-thinking": (4_022_468_096, 398),
    "qwen3-8b": (8_190_735_360, 399), "qwen3-14b": (14_768_307_200, 443),
    "smollm2-360m": (361_821_120, 290), "smollm2-1.7b": (1_711_376_384, 218),
}


def test_every_preset_but_ours_has_published_numbers_here():
    assert set(preset_names()) == set(PUBLISHED) | {"nano"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_its_published_size(name):
    config = preset(name).config
    assert (account(config).total_parameters, len(published_shapes(config))) == PUBLISHED[name]


def test_r1_is_a_model_of_671_billion_with_37_at_work():
    counts = account(preset("deepseek-r1").config)
    assert (counts.active_parameters, counts.mtp_parameters) == (37_552_297_472, 11_610_068_224)
    assert (counts.cache_bytes_per_token, counts.expanded_cache_bytes_per_token) == (70_272, 4_997_120)
    assert counts.flops_per_token == 73_251_236_864


def test_v2_is_the_one_with_236_and_21_billion():
    assert account(preset("deepseek-v2").config).active_parameters == pytest.approx(21e9, rel=0.02)
    assert account(preset("deepseek-v2-lite").config).active_parameters == pytest.approx(2.66e9, rel=0.002)


def test_r1_s_files_hold_what_the_hub_counts_in_them():
    """https://huggingface.co/deepseek-ai/DeepSeek-R1: elements by type, MTP layer and multipliers included."""
    config = preset("deepseek-r1").config
    elements = Counter()
    for name, shape in published_shapes(config).items():
        elements[published_type(name, config)] += prod(shape)
    assert elements == {"BF16": 3_918_786_560, "F8_E4M3": 680_571_043_840, "F32": 41_555_600}
    assert elements.total() == 684_531_386_000


@pytest.mark.parametrize("name, shape, dtype", [
    ("model.embed_tokens.weight", (129280, 7168), "BF16"), ("lm_head.weight", (129280, 7168), "BF16"),
    ("model.norm.weight", (7168,), "BF16"),
    ("model.layers.0.self_attn.q_a_proj.weight", (1536, 7168), "F8_E4M3"),
    ("model.layers.0.self_attn.q_a_proj.weight_scale_inv", (12, 56), "F32"),
    ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", (576, 7168), "F8_E4M3"),
    ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv", (5, 56), "F32"),  # its last block is ragged
    ("model.layers.0.self_attn.kv_a_layernorm.weight", (512,), "BF16"),
    ("model.layers.60.self_attn.kv_b_proj.weight_scale_inv", (256, 4), "F32"),
    ("model.layers.60.self_attn.o_proj.weight", (7168, 16384), "F8_E4M3"),
    ("model.layers.2.mlp.down_proj.weight_scale_inv", (56, 144), "F32"),
    ("model.layers.3.mlp.gate.weight", (256, 7168), "BF16"),
    ("model.layers.3.mlp.gate.e_score_correction_bias", (256,), "F32"),
    ("model.layers.3.mlp.experts.255.up_proj.weight", (2048, 7168), "F8_E4M3"),
    ("model.layers.3.mlp.experts.255.down_proj.weight_scale_inv", (56, 16), "F32"),
    ("model.layers.3.mlp.shared_experts.gate_proj.weight", (2048, 7168), "F8_E4M3"),
    ("model.layers.61.eh_proj.weight", (7168, 14336), "BF16"), ("model.layers.61.enorm.weight", (7168,), "BF16"),
    ("model.layers.61.embed_tokens.weight", (129280, 7168), "BF16"),
    ("model.layers.61.shared_head.head.weight", (129280, 7168), "BF16"),
    ("model.layers.61.shared_head.norm.weight", (7168,), "BF16"),
    ("model.layers.61.mlp.experts.0.gate_proj.weight_scale_inv", (16, 56), "F32"),
])
def test_r1_s_tensors_have_the_published_names_shapes_and_types(name, shape, dtype):
    config = preset("deepseek-r1").config
    assert published_shapes(config)[name] == shape and published_type(name, config) == dtype


@pytest.mark.parametrize("name, absent", [
    ("deepseek-r1", "model.layers.3.mlp.gate_proj.weight"), ("deepseek-r1", "model.layers.62.input_layernorm.weight"),
    ("deepseek-r1", "model.layers.61.eh_proj.weight_scale_inv"), ("deepseek-r1", "lm_head.weight_scale_inv"),
    ("deepseek-v2", "model.layers.60.input_layernorm.weight"),
    ("deepseek-v2", "model.layers.1.mlp.gate.e_score_correction_bias"),
    ("deepseek-v2-lite", "model.layers.0.self_attn.q_a_proj.weight"),
    ("deepseek-r1-distill-qwen-7b", "model.layers.0.self_attn.o_proj.bias"),
    ("deepseek-r1-distill-llama-8b", "model.layers.0.self_attn.q_proj.bias"),
])
def test_no_preset_has_tensors_that_the_published_files_lack(name, absent):
    assert absent not in published_shapes(preset(name).config)


@pytest.mark.parametrize("name", [n for n in sorted(PUBLISHED) if "distill" in n])
def test_a_student_s_configuration_is_the_published_file_byte_for_byte(name):
    values = json.loads((FOLDER / f"{name}.json").read_text())
    published = json.dumps(values["config"], indent=2) + "\n"
    assert hashlib.sha256(published.encode()).hexdigest() == values["config_sha256"]


def on_meta(config) -> dict:
    """Published names and shapes of the module itself."""
    with torch.device("meta"):
        model = Transformer(config.model_copy(update={"max_position_embeddings": 1}))
    return {name: tuple(tensor.shape) for name, tensor in published_tensors(model)}


@pytest.mark.parametrize("name", preset_names())
def test_the_network_has_exactly_the_published_tensors(name):
    config = preset(name).config
    config = config.model_copy(update={"quantization_config": None, "num_hidden_layers": config.first_k_dense_replace + 2})
    assert on_meta(config) == published_shapes(config)


def test_all_of_v3_s_network_has_exactly_the_published_tensors():
    config = preset("deepseek-v3").config.model_copy(update={"quantization_config": None})
    assert on_meta(config) == published_shapes(config)


def test_nano_is_the_recipe_s_model():
    assert preset("nano").config == load_recipe(RECIPE).model_config_of("nano", "test")


@pytest.mark.parametrize("name, words", [
    ("deepseek-r1", "MIT"), ("deepseek-v3", "DeepSeek Model License"), ("deepseek-v2", "DeepSeek Model License"),
    ("deepseek-r1-distill-qwen-32b", "Apache-2.0"), ("deepseek-r1-distill-llama-8b", "Llama 3.1"),
    ("deepseek-r1-distill-llama-70b", "Llama 3.3")])
def test_the_licence_names_what_the_weights_derive_from(name, words):
    assert words in preset(name).licence


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(UserError, match=r"^deepseek-r1-distil-qwen-7b: is no .* Did you mean deepseek-r1-distill-qwen-7b\?"):
        preset("deepseek-r1-distil-qwen-7b")
    with pytest.raises(UserError, match=r"^\.\./presets/nano: .*The presets are deepseek-r1, .*, nano, .*"):
        preset("../presets/nano")
