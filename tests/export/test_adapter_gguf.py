"""Adapters as GGUF files: what llama.cpp would add to the base's own file is what the adapter adds here."""

import gguf_back
import pytest
import tiny
import torch

from spoutnik.commands.main import app
from spoutnik.errors import UserError
from spoutnik.export.adapter_gguf import write_adapter_file
from spoutnik.export.writer import export
from spoutnik.locate import locate
from spoutnik.model.adapter_file import read_adapter
from spoutnik.model.lora import LowRank
from spoutnik.model.transformer import Transformer


def beside(model: Transformer, path) -> Transformer:
    """Adds a file's pairs to weights that are laid out as llama.cpp's, by llama.cpp's rule: alpha over the tensor's own rank.
    The rotated heads of Llama are put back by gguf_back, which no exporter uses."""
    tensors, alpha = gguf_back.stored(path), gguf_back.values(path)["adapter.lora.alpha"]
    for name in sorted({name.rpartition(".")[0] for name in tensors}):
        a, b = tensors[f"{name}.lora_a"][1], tensors[f"{name}.lora_b"][1]
        _, layer, inside, _ = name.split(".")
        delta = gguf_back._straight(alpha / len(a) * (b @ a), inside, model.config)
        model.get_submodule(f"layers.{layer}.{gguf_back.LAYER[inside]}").weight.data += delta
    return model


@pytest.mark.parametrize("base", [tiny.LLAMA, tiny.QWEN3], ids=["llama", "qwen3"])
def test_the_file_adds_what_the_adapter_adds(base, adapter_of, tmp_path):
    folder, path, model = adapter_of(base, use_rslora=True)
    export(folder, "gguf", tmp_path / "base.gguf", "f32")
    written = export(folder, "lora-gguf", tmp_path / "adapter.gguf", adapter=path)
    theirs = gguf_back.model(tmp_path / "base.gguf", model.config)
    ids = tiny.tokens(1, 20)
    assert (theirs(ids) - model(ids)).abs().max() > 0.05
    assert (beside(theirs, tmp_path / "adapter.gguf")(ids) - model(ids)).abs().max() < 1e-4
    assert (written.architecture, written.dtype) == (base["model_type"], "f32")


def test_one_rank_and_one_scale_whatever_the_adapter_had(adapter_of, tmp_path):
    folder, path, model = adapter_of(tiny.QWEN)
    export(folder, "lora-gguf", tmp_path / "adapter.gguf", "f16", adapter=path)
    values, tensors = gguf_back.values(tmp_path / "adapter.gguf"), gguf_back.stored(tmp_path / "adapter.gguf")
    assert [values[key] for key in ("general.type", "adapter.type", "general.architecture", "adapter.lora.alpha")] == [
        "adapter", "lora", "qwen2", 8.0]
    assert len(tensors) == 2 * 2 * 7 and {kind for kind, _ in tensors.values()} == {"F16"}
    assert tensors["blk.1.ffn_down.weight.lora_a"][1].shape == (4, 48)
    assert not any(str(path.parent) in str(value) for value in values.values())


def test_thinner_pairs_and_other_scales_are_folded(adapter_of, tmp_path):
    _, path, model = adapter_of(tiny.QWEN)
    parts = read_adapter(path).parts
    thin = parts["layers.0.self_attn.v_proj"]
    parts["layers.0.self_attn.v_proj"] = LowRank(thin.lora_A[:2].detach(), thin.lora_B[:, :2].detach(), 16.0)
    write_adapter_file(tmp_path / "adapter.gguf", parts, model.config, "adapter")
    tensors = gguf_back.stored(tmp_path / "adapter.gguf")
    a, b = (tensors[f"blk.0.attn_v.weight.{kind}"][1] for kind in ("lora_a", "lora_b"))
    assert len(a) == 4
    torch.testing.assert_close(8.0 / 4 * (b @ a), parts["layers.0.self_attn.v_proj"].delta())


@pytest.mark.parametrize("base, options, words", [
    (tiny.QWEN, {"use_dora": True}, "use_dora = true.*--format merged"),
    (tiny.DEEPSEEK, {}, "kv_a_proj_with_mqa.*it would ignore them.*--format merged"),
    (tiny.DEEPSEEK, {"target_modules": ("o_proj",), "experts": True}, "adapts routed experts.*--format merged")],
    ids=["dora", "latent attention", "experts"])
def test_what_llama_cpp_would_not_compute_is_refused(base, options, words, adapter_of, tmp_path):
    folder, path, _ = adapter_of(base, **options)
    with pytest.raises(UserError, match=words):
        export(folder, "lora-gguf", tmp_path / "adapter.gguf", adapter=path)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_it_and_the_file_is_no_model(adapter_of, tmp_path, capsys):
    folder, path, _ = adapter_of(tiny.QWEN)
    out = tmp_path / "a.gguf"
    app(["export", str(folder), "--adapter", str(path), "--format", "lora-gguf", "--out", str(out), "--no-check"],
        standalone_mode=False)
    assert f"--lora {out}" in capsys.readouterr().out
    with pytest.raises(UserError, match="is an adapter, not a model"):
        locate(out)
    with pytest.raises(UserError, match="--readers python: is of --format lora, lora-gguf, merged, not of gguf"):
        app(["export", str(folder), "--format", "gguf", "--readers", "python"], standalone_mode=False)
