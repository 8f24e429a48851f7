"""Export of adapters: the sum as transformers reads it, what rounding leaves of it, and the form that every reader takes."""

import json

import pytest
import tiny
import torch
from cli import spoutnik
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from spoutnik.commands.main import app
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.export.writer import default_target, export
from spoutnik.generation.chat import Chat, chat_llm
from spoutnik.generation.options import GenerationOptions
from spoutnik.locate import locate
from spoutnik.model.adapter_file import read_adapter


@pytest.mark.parametrize("base, options", [(tiny.QWEN, {"use_dora": True}), (tiny.DEEPSEEK, {"use_dora": True}),
                                           (tiny.DEEPSEEK, {"experts": True})], ids=["qwen2", "deepseek_v3", "experts"])
def test_a_merged_folder_is_the_sum_for_transformers(base, options, adapter_of, tmp_path):
    folder, path, model = adapter_of(base, **options)
    written = export(folder, "merged", tmp_path / "out", "f32", adapter=path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, attn_implementation="eager")
    ids = tiny.tokens(1, 20)
    assert (theirs(ids).logits - model(ids)).abs().max() < 2e-4
    assert written.dtype == "f32" and any("100.0% of what the adapter adds survives" in note for note in written.notes)


def test_what_has_no_adapter_keeps_its_bits(adapter_of, tmp_path):
    folder, path, _ = adapter_of(target_modules=("q_proj",))
    export(folder, "merged", tmp_path / "out", adapter=path)
    before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "out"))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)}


def test_a_sum_that_bfloat16_would_round_away_is_refused_unless_asked_for(adapter_of, tmp_path):
    folder, path, _ = adapter_of(size=2e-6)
    with pytest.raises(UserError, match="would survive rounding to bf16.*--dtype f32.*--lossy"):
        export(folder, "merged", tmp_path / "out", adapter=path)
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir())
    written = export(folder, "merged", tmp_path / "lossy", adapter=path, lossy=True)
    assert "survives rounding to bf16" in written.notes[-1]
    assert "100.0%" in export(folder, "merged", tmp_path / "wide", "f32", adapter=path).notes[-1]


def test_what_rounding_takes_counts_where_the_base_is_a_file_of_blocks_too(adapter_of, tmp_path):
    """They are read as float32 and written as bfloat16; the sum was measured in the first."""
    folder, path, _ = adapter_of(size=2e-6)
    (path / "base.json").unlink(missing_ok=True)  # rounded to 8 bits the base is another one
    export(folder, "gguf", tmp_path / "base.gguf", "q8_0")
    blocks = locate(str(tmp_path / "base.gguf"), None)
    with pytest.raises(UserError, match="would survive rounding to bf16"):
        export(blocks, "merged", tmp_path / "out", adapter=path)
    written = export(blocks, "merged", tmp_path / "lossy", adapter=path, lossy=True)
    assert "100.0%" not in written.notes[-1] and "to bf16" in written.notes[-1]


def test_lora_has_one_scale_and_says_who_does_not_read_it(adapter_of, tmp_path):
    folder, path, _ = adapter_of(use_rslora=True)
    written = export(folder, "lora", tmp_path / "out", adapter=path)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["r"], config["use_rslora"], written.notes) == (16, 4, False, [])
    for name, part in read_adapter(path).parts.items():
        torch.testing.assert_close(read_adapter(tmp_path / "out").parts[name].delta(), part.delta())


@pytest.mark.parametrize("base, options, words", [(tiny.QWEN, {"use_dora": True}, "refuse DoRA"),
                                                  (tiny.DEEPSEEK, {}, "attention alone")], ids=["dora", "experts"])
def test_an_adapter_that_some_do_not_read_says_so(base, options, words, adapter_of, tmp_path):
    folder, path, _ = adapter_of(base, **options)
    assert words in export(folder, "lora", tmp_path / "out", adapter=path).notes[0]


def test_the_command_merges_and_says_what_is_left(adapter_of, tmp_path, capsys):
    folder, path, _ = adapter_of()
    app(["export", str(folder), "--adapter", str(path), "--format", "merged", "--dtype", "f16", "--out", str(tmp_path / "out"),
         "--no-check"], standalone_mode=False)
    assert "survives rounding to f16" in capsys.readouterr().out
    assert default_target(folder, folder, "lora").name == f"{folder.name}-lora"


def test_requests_that_cannot_be_are_refused_in_sentences(adapter_of, tmp_path):
    folder, path, _ = adapter_of()
    for format, options, words in (("merged", {}, "needs --adapter"), ("gguf", {"adapter": path}, "Merge it first"),
                                   ("lora", {"adapter": folder}, "holds no adapter_config.json"),
                                   ("lora", {"adapter": path, "dtype": "bf16"}, "cannot be written as lora")):
        with pytest.raises(UserError, match=words):
            export(folder, format, tmp_path / "no.gguf", **options)
    assert not list(tmp_path.iterdir())


def test_chat_with_an_adapter_is_chat_with_the_merged_model(adapter_of, tmp_path):
    folder, path, _ = adapter_of()
    export(folder, "merged", tmp_path / "out", "f32", adapter=path)
    asked = ("--prompt", "12 + 30", "--temperature", "0", "--max-tokens", "8", "--json")
    with_it, without = (json.loads(spoutnik("chat", str(folder), *arguments, *asked).stdout) for arguments in (
        ("--adapter", str(path)), ()))
    merged = chat_llm(tmp_path / "out")
    reply = Chat(merged, GenerationOptions(SamplingParams(temperature=0.0), 8), 0, None).ask("12 + 30", None)
    texts = [(each["thought"], each["answer"]) for each in (with_it, reply, without)]
    assert texts[0] == texts[1] != texts[2]
