"""FP8 checkpoints: blocks of 128 x 128, ragged ones included, read into bfloat16 or kept as they are."""

import json
import math

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from spoutnik.errors import RunError, UserError
from spoutnik.model.cache import Cache
from spoutnik.model.fp8 import dequantize
from spoutnik.model.layout import SCALE, is_quantized, published_shapes
from spoutnik.model.packing import PackedSequences
from spoutnik.model.weights import load_model, save_model

# Wider and taller than a block in every projection, and never a multiple of it.
WIDE = tiny.DEEPSEEK | {"hidden_size": 160, "intermediate_size": 200, "moe_intermediate_size": 144, "q_lora_rank": 136,
                        "kv_lora_rank": 132, "qk_nope_head_dim": 24, "v_head_dim": 34, "initializer_range": 0.05}


def plain(weight, scale_inv):
    """Element by element, from the definition."""
    out = torch.empty(weight.shape)
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            out[i, j] = float(weight[i, j].float()) * float(scale_inv[i // 128, j // 128])
    return out


@pytest.mark.parametrize("shape", [(128, 128), (130, 5), (3, 257), (256, 128)])
def test_dequantization_is_the_definition(shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).to(torch.float8_e4m3fn)
    scale_inv = torch.rand(math.ceil(shape[0] / 128), math.ceil(shape[1] / 128), generator=generator) + 0.5
    assert torch.equal(dequantize(weight, scale_inv, torch.empty(shape)), plain(weight, scale_inv))


def test_quantization_errs_by_e4m3_s_half_step():
    weight = torch.randn(300, 200, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 3, 200)
    quantized, scale_inv = tiny.quantize_fp8(weight)
    assert quantized.dtype == torch.float8_e4m3fn and scale_inv.shape == (3, 2)
    back = dequantize(quantized, scale_inv, torch.empty(300, 200))
    largest = weight.abs().amax()
    assert ((back - weight).abs() <= weight.abs() * 2**-4 + largest * 2**-9 / 448).all()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(folder in FP8, folder with the same numbers in float32)."""
    fp8, whole = tmp_path_factory.mktemp("fp8"), tmp_path_factory.mktemp("whole")
    save_model(fp8, tiny.model(WIDE), torch.float32)
    tensors = load_file(fp8 / "model.safetensors")
    stored, same = {}, {}
    for name, tensor in tensors.items():
        if is_quantized(name):
            stored[name], stored[name + SCALE] = tiny.quantize_fp8(tensor)
            same[name] = plain(stored[name], stored[name + SCALE]) if tensor.numel() < 3000 else \
                dequantize(stored[name], stored[name + SCALE], torch.empty(tensor.shape))
        else:
            stored[name] = same[name] = tensor
    save_file(stored, fp8 / "model.safetensors")
    save_file(same, whole / "model.safetensors")
    config = json.loads((fp8 / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(config))
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128],
                                     "activation_scheme": "dynamic"}
    (fp8 / "config.json").write_text(json.dumps(config))
    return fp8, whole


def test_an_fp8_file_has_the_published_names(checkpoint):
    fp8, _ = checkpoint
    model = load_model(fp8)
    assert published_shapes(model.config) == {name: tuple(t.shape) for name, t in
                                              load_file(fp8 / "model.safetensors").items()}
    assert published_shapes(model.config)["model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv"] == (2, 2)


def test_an_fp8_checkpoint_becomes_the_numbers_it_means(checkpoint):
    fp8, whole = checkpoint
    ours, expected = load_model(fp8).state_dict(), load_model(whole).state_dict()
    assert ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in ours)
    assert load_model(fp8, None).layers[0].mlp.up_proj.weight.dtype == torch.float32  # what the norms are stored in


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_in_8_bits_it_computes_the_same(checkpoint, dtype):
    fp8, _ = checkpoint
    kept, read = load_model(fp8, dtype, keep_fp8=True), load_model(fp8, dtype)
    ids = tiny.tokens(2, 50)
    with torch.no_grad():
        expected, ours = read(ids), kept(ids)
        assert (ours - expected).abs().max() <= (1e-4 if dtype == torch.float32 else 0.05) * expected.std()
        cache = Cache.empty(kept.config, 1, 60, dtype)
        kept.prefill(ids[0], PackedSequences.of([50]), cache)
        hidden = kept.decode(ids[1, :1], cache)  # the absorbed form reads kv_b_proj, in 8 bits too
        again = Cache.empty(read.config, 1, 60, dtype)
        read.prefill(ids[0], PackedSequences.of([50]), again)
        torch.testing.assert_close(hidden, read.decode(ids[1, :1], again), atol=1e-4 if dtype == torch.float32 else 0.1,
                                   rtol=1e-2)


def test_kept_in_8_bits_it_holds_a_byte_per_weight(checkpoint):
    fp8, _ = checkpoint
    kept = load_model(fp8, torch.bfloat16, keep_fp8=True)
    held = sum(t.numel() for t in kept.state_dict().values() if t.dtype == torch.float8_e4m3fn)
    assert held == sum(math.prod(shape) for name, shape in published_shapes(kept.config).items() if is_quantized(name))
    others = [name for name, t in kept.state_dict().items() if t.dtype != torch.float8_e4m3fn and t.numel() > 40_000]
    assert others == ["mtp.eh_proj.weight"]


def test_what_is_kept_in_8_bits_is_not_trained(checkpoint):
    fp8, _ = checkpoint
    kept = load_model(fp8, torch.float32, keep_fp8=True)
    kept(tiny.tokens(1, 10)).sum().backward()
    trained = {name for name, p in kept.named_parameters() if p.grad is not None}
    assert "embed_tokens.weight" in trained and not any("q_a_proj" in name for name in trained)


def test_multipliers_are_part_of_the_checkpoint(checkpoint, tmp_path):
    fp8, _ = checkpoint
    tensors = load_file(fp8 / "model.safetensors")
    del tensors["model.layers.1.self_attn.o_proj.weight_scale_inv"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((fp8 / "config.json").read_text())
    with pytest.raises(RunError, match=r"o_proj\.weight_scale_inv .* missing"):
        load_model(tmp_path)


@pytest.mark.parametrize("changes, key", [
    ({"quant_method": "gptq", "bits": 4}, "quant_method"), ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt"),
    ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "weight_block_size"),
    ({"quant_method": "fp8", "activation_scheme": "static"}, "activation_scheme")])
def test_another_quantization_is_refused(checkpoint, tmp_path, changes, key):
    config = json.loads((checkpoint[0] / "config.json").read_text()) | {"quantization_config": changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=key):
        load_model(tmp_path)
