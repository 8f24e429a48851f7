"""Weights on disk: the published layout, and a sentence for everything that can be wrong with it."""

import json

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.errors import RunError, UserError
from spoutnik.model.weights import load_model, load_tensors, save_model


def stored(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path, tiny.model(tiny.DEEPSEEK), torch.float32)
    return tmp_path


@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN, tiny.QWEN | {"tie_word_embeddings": True}],
                         ids=["deepseek", "qwen2", "qwen2 tied"])
def test_a_model_comes_back_bit_for_bit(base, tmp_path):
    model = tiny.model(base)
    save_model(tmp_path, model, torch.float32)
    loaded = load_model(tmp_path)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.config == model.config
    assert torch.equal(loaded(tiny.tokens(1, 50)), model(tiny.tokens(1, 50)))
    assert all(p.requires_grad for p in loaded.parameters())
    assert (loaded.lm_head.weight is loaded.embed_tokens.weight) == loaded.config.tie_word_embeddings


def test_the_correction_bias_stays_float32_in_a_bfloat16_file(tmp_path):
    model = tiny.model(tiny.DEEPSEEK)
    save_model(tmp_path, model)
    types = {name: tensor.dtype for name, tensor in stored(tmp_path).items()}
    biases = [name for name in types if name.endswith("e_score_correction_bias")]
    assert len(biases) == 3 and all(types[name] == torch.float32 for name in biases)
    assert {dtype for name, dtype in types.items() if name not in biases} == {torch.bfloat16}
    loaded = load_model(tmp_path, torch.bfloat16)
    for name, router in loaded.routers.items():
        assert torch.equal(router.e_score_correction_bias, model.routers[name].e_score_correction_bias)


def test_tensors_have_the_published_names_and_shapes(saved):
    shapes = {name: list(tensor.shape) for name, tensor in stored(saved).items()}
    expected = {"model.embed_tokens.weight": [64, 32], "lm_head.weight": [64, 32], "model.norm.weight": [32]}
    for layer in range(4):
        here = f"model.layers.{layer}"
        expected |= {
            f"{here}.input_layernorm.weight": [32], f"{here}.post_attention_layernorm.weight": [32],
            f"{here}.self_attn.q_a_proj.weight": [16, 32], f"{here}.self_attn.q_a_layernorm.weight": [16],
            f"{here}.self_attn.q_b_proj.weight": [64, 16], f"{here}.self_attn.kv_a_proj_with_mqa.weight": [20, 32],
            f"{here}.self_attn.kv_a_layernorm.weight": [12], f"{here}.self_attn.kv_b_proj.weight": [56, 12],
            f"{here}.self_attn.o_proj.weight": [32, 24]}
        parts = {"": 48} if layer == 0 else {".shared_experts": 16} | {f".experts.{e}": 16 for e in range(8)}
        for part, width in parts.items():
            expected |= {f"{here}.mlp{part}.gate_proj.weight": [width, 32],
                         f"{here}.mlp{part}.up_proj.weight": [width, 32],
                         f"{here}.mlp{part}.down_proj.weight": [32, width]}
        if layer:
            expected |= {f"{here}.mlp.gate.weight": [8, 32], f"{here}.mlp.gate.e_score_correction_bias": [8]}
    mtp = "model.layers.3"
    expected |= {f"{mtp}.enorm.weight": [32], f"{mtp}.hnorm.weight": [32], f"{mtp}.eh_proj.weight": [32, 64],
                 f"{mtp}.embed_tokens.weight": [64, 32], f"{mtp}.shared_head.head.weight": [64, 32],
                 f"{mtp}.shared_head.norm.weight": [32]}
    assert shapes == expected


def test_gate_and_up_are_not_swapped(saved):
    model, tensors = tiny.model(tiny.DEEPSEEK), stored(saved)
    stacked = model.layers[1].mlp.experts.gate_up_proj
    assert torch.equal(tensors["model.layers.1.mlp.experts.5.gate_proj.weight"], stacked[5, :16])
    assert torch.equal(tensors["model.layers.1.mlp.experts.5.up_proj.weight"], stacked[5, 16:])


def test_a_tied_file_holds_one_copy(tmp_path):
    save_model(tmp_path, tiny.model(tiny.QWEN, tie_word_embeddings=True), torch.float32)
    assert "lm_head.weight" not in stored(tmp_path)


@pytest.mark.parametrize("cut", [1, 0], ids=["in its last number", "in all"])
def test_a_head_that_is_not_the_embedding_is_read_though_it_is_called_tied(tmp_path, capsys, cut):
    """As transformers 5 has it: fine-tunes that trained the head keep the key of their base."""
    model = tiny.model(tiny.QWEN, tie_word_embeddings=True)
    save_model(tmp_path, model, torch.float32)
    head = stored(tmp_path)["model.embed_tokens.weight"].clone()
    head.view(-1)[-1 if cut else slice(None)] += 1
    save_file(stored(tmp_path) | {"lm_head.weight": head}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.lm_head.weight, head) and not torch.equal(loaded.embed_tokens.weight, head)
    assert not loaded.config.tie_word_embeddings and "tie_word_embeddings" in capsys.readouterr().err
    native = NativeRunner.of_folder(tmp_path, torch.float32)
    assert not native.config.tie_word_embeddings
    load_model(tmp_path)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("kept", ["both", "lm_head.weight"])
def test_one_matrix_is_embedding_and_head_under_either_name(tmp_path, capsys, kept):
    model = tiny.model(tiny.QWEN, tie_word_embeddings=True)
    save_model(tmp_path, model, torch.float32)
    tensors = stored(tmp_path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    if kept != "both":
        del tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_model(tmp_path)
    assert loaded.lm_head.weight is loaded.embed_tokens.weight and loaded.config.tie_word_embeddings
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight) and not capsys.readouterr().err


def test_the_file_says_which_framework_wrote_it(saved):
    """transformers refuses a file without it."""
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_model_in_several_files_loads_through_its_index(saved):
    tensors = stored(saved)
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, saved / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    (saved / "model.safetensors").unlink()
    before, after = tiny.model(tiny.DEEPSEEK).state_dict(), load_model(saved).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    (saved / "model-2.safetensors").unlink()
    with pytest.raises(RunError, match=r"model-2\.safetensors: listed in the index but not found"):
        load_model(saved)


def test_a_missing_tensor_is_named(saved):
    tensors = stored(saved)
    del tensors["model.layers.1.mlp.experts.5.up_proj.weight"]
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(RunError, match=r"model\.layers\.1\.mlp\.experts\.5\.up_proj\.weight .* is missing") as error:
        load_model(saved)
    assert str(saved) in str(error.value)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(saved):
    tensors = stored(saved)
    tensors["model.norm.weight"] = torch.ones(33)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(RunError, match=r"model\.safetensors: model\.norm\.weight has shape \[33\].*\[32\]"):
        load_model(saved)


def test_a_configuration_of_another_model_is_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(RunError, match=r"embed_tokens\.weight has shape \[64, 32\].*\[64, 64\].*not belong together"):
        load_model(saved)


@pytest.mark.parametrize("keep", [0, 4, 100, -5])
def test_a_truncated_file_is_called_damaged(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    for load in (lambda: load_model(saved), lambda: load_tensors(path)):
        with pytest.raises(RunError, match=r"model\.safetensors: is damaged"):
            load()


def test_a_folder_without_weights_is_named(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(RunError, match=rf"{saved}: has neither model\.safetensors nor"):
        load_model(saved)
    with pytest.raises(RunError, match=r"model\.safetensors: not found"):
        load_tensors(saved / "model.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_a_broken_configuration_file_is_named(saved, text):
    (saved / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises((RunError, UserError), match=r"config\.json: "):
        load_model(saved)


def test_a_folder_without_configuration_is_named(tmp_path):
    with pytest.raises(RunError, match=r"config\.json: not found"):
        load_model(tmp_path)
