"""Folders that transformers loads: the same logits, the same bits, the same token ids, sharded, and dequantized."""

import json
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import spoutnik
from spoutnik.export.writer import export
from spoutnik.files import read_json
from spoutnik.model.checkpoint import Checkpoint, read_header
from spoutnik.model.config import ARCHITECTURES
from spoutnik.model.layout import SCALE, is_quantized
from spoutnik.model.weights import Reader, load_model
from spoutnik.text.tokenizer import Tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def same_logits(folder, out):
    """transformers' from `out` and ours from `folder`."""
    theirs, info = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager",
                                                        output_loading_info=True)
    config = load_model(folder).config
    mtp = f"model.layers.{config.num_hidden_layers}."
    assert not info["missing_keys"] and all(name.startswith(mtp) for name in info["unexpected_keys"])
    assert type(theirs).__name__ == ARCHITECTURES[config.model_type]
    ids = tiny.tokens(2, 60, vocab=300)
    with torch.no_grad():
        expected, actual = load_model(folder)(ids), theirs(ids).logits
    assert expected.std() > 0.3 and (actual - expected).abs().max() < 1e-5 * max(1, float(expected.abs().max()))


@pytest.mark.parametrize("kind", tiny.ALL)
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_transformers_gives_the_same_logits(checkpoint, tmp_path, kind, stored):
    folder = checkpoint(tiny.ALL[kind], stored)
    same_logits(folder, export(folder, "hf", tmp_path / "out").path)


@pytest.mark.parametrize("kind", tiny.ALL)
def test_reading_writing_reading_is_bit_identical(checkpoint, tmp_path, kind):
    folder = checkpoint(tiny.ALL[kind])
    export(folder, "hf", tmp_path / "once", shard_size="20KB")
    export(tmp_path / "once", "hf", tmp_path / "twice")
    first, last = Checkpoint.open(folder), Checkpoint.open(tmp_path / "twice")
    assert list(first.tensors) == list(last.tensors) and first.config == last.config
    for name in first.tensors:
        before, after = (Reader(checkpoint).read(name) for checkpoint in (first, last))
        assert before.dtype == after.dtype and torch.equal(before.view(torch.uint8), after.view(torch.uint8)), name


def test_shards_are_as_large_as_asked_and_complete(checkpoint, tmp_path):
    folder = checkpoint(tiny.DEEPSEEK)
    written = export(folder, "hf", tmp_path / "out", shard_size="30KB")
    index = read_json(tmp_path / "out" / "model.safetensors.index.json")
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    data = [sum(stored.size for stored in read_header(tmp_path / "out" / shard)[0].values()) for shard in shards]
    assert all(size <= 30_000 for size in data) and sum(data) == index["metadata"]["total_size"]
    assert written.size == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    same_logits(folder, tmp_path / "out")
    for shard in shards:  # any reader may map a tensor only at a multiple of its item size
        assert all(stored.start % {"F32": 4, "BF16": 2}[stored.dtype] == 0
                   for stored in read_header(tmp_path / "out" / shard)[0].values())
        assert read_header(tmp_path / "out" / shard)[1] == {"format": "pt"}


def test_a_tensor_larger_than_a_shard_has_a_file_of_its_own(checkpoint, tmp_path):
    folder = checkpoint(tiny.QWEN)
    export(folder, "hf", tmp_path / "out", shard_size="1B")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == len(Checkpoint.open(folder).tensors)
    same_logits(folder, tmp_path / "out")


@pytest.mark.parametrize("dtype, torch_dtype", [("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_conversion_spares_the_correction_bias(checkpoint, tmp_path, dtype, torch_dtype):
    folder = checkpoint(tiny.DEEPSEEK, torch.float32)
    export(folder, "hf", tmp_path / "out", dtype)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        expected = tensor if name.endswith("e_score_correction_bias") else tensor.to(torch_dtype)
        assert after[name].dtype == expected.dtype and torch.equal(after[name], expected), name
    assert read_json(tmp_path / "out" / "config.json")["torch_dtype"] == str(torch_dtype).removeprefix("torch.")


def test_numbers_too_large_for_float16_are_refused(checkpoint, tmp_path):
    folder = checkpoint(tiny.QWEN, torch.float32)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = 70000.0
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="model.norm.weight: holds numbers up to 7e[+]04, and float16"):
        export(folder, "hf", tmp_path / "out", "f16")
    assert not any(tmp_path.iterdir())


def test_an_fp8_checkpoint_is_kept_or_dequantized(checkpoint, tmp_path):
    folder = checkpoint(tiny.DEEPSEEK, torch.float32)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if is_quantized(name)]:
        tensors[name], tensors[name + SCALE] = tiny.quantize_fp8(tensors[name])
    save_file(tensors, folder / "model.safetensors")
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps(read_json(folder / "config.json") | {"quantization_config": fp8}))
    assert export(folder, "hf", tmp_path / "kept").dtype == "fp8"
    kept = load_file(tmp_path / "kept" / "model.safetensors")
    assert kept.keys() == tensors.keys() and all(torch.equal(kept[name].view(torch.uint8), tensors[name].view(torch.uint8))
                                                 for name in tensors)
    assert read_json(tmp_path / "kept" / "config.json")["quantization_config"]["quant_method"] == "fp8"
    export(folder, "hf", tmp_path / "whole", "f32")
    assert "quantization_config" not in read_json(tmp_path / "whole" / "config.json")
    assert not any(name.endswith(SCALE) for name in Checkpoint.open(tmp_path / "whole").tensors)
    same_logits(folder, tmp_path / "whole")


@pytest.mark.parametrize("kind", tiny.ALL)
def test_the_tokenizer_and_its_template_come_along(checkpoint, tmp_path, tokenizer, kind):
    folder = checkpoint(tiny.ALL[kind])
    export(folder, "hf", tmp_path / "out")
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "out"), Tokenizer.load(tmp_path / "out")
    for text in ("What is 12 + 30 ?", "Réponse : 7.\n\n\tthe end", "日本 ½ 3", ""):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text) == tokenizer.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    messages = [{"role": "user", "content": "What is 12 + 30 ?"}]
    assert (theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            == tokenizer.render(messages))
    assert theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == tokenizer.chat_ids(messages)
    assert theirs.eos_token_id == tokenizer.eos_id and theirs.bos_token_id == tokenizer.bos_id


def test_generation_defaults_are_r1_s_or_the_source_s_own(checkpoint, tmp_path, tokenizer):
    folder = checkpoint(tiny.QWEN)
    export(folder, "hf", tmp_path / "out")
    assert read_json(tmp_path / "out" / "generation_config.json") == {
        "do_sample": True, "temperature": 0.6, "top_p": 0.95, "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id}
    own = {"temperature": 0.7, "top_k": 20, "eos_token_id": [1, 3]}
    (folder / "generation_config.json").write_text(json.dumps(own))
    export(folder, "hf", tmp_path / "out", force=True)
    assert read_json(tmp_path / "out" / "generation_config.json") == own


@pytest.mark.parametrize("name", ["base", "student_base", "nano/distilled"])
def test_an_export_says_that_texts_begin_with_the_beginning_of_sentence(name, tmp_path):
    """The shipped models were trained so, and their own files do not say it."""
    shipped, = (Path(spoutnik.__file__).parent / "prebuilt").glob(f"{name}-*")
    out = export(shipped, "hf", tmp_path / "out").path
    ours, theirs = Tokenizer.load(shipped), AutoTokenizer.from_pretrained(out)
    for text in ("a 12", " Ça va ?\n"):
        assert theirs(text)["input_ids"] == ours.prompt_ids(text)[0] == Tokenizer.load(out).prompt_ids(text)[0]
    assert theirs("a")["input_ids"][0] == ours.bos_id and read_json(out / "tokenizer_config.json")["add_bos_token"] is True
    messages = [{"role": "user", "content": "hi"}]
    assert theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ours.chat_ids(messages)


@pytest.mark.parametrize("stated", [True, False])
def test_what_only_the_settings_say_is_written_where_every_reader_finds_it(stated, checkpoint, tmp_path):
    """As the published DeepSeek models have it: add_bos_token, and a post-processor that says otherwise."""
    folder = checkpoint(tiny.QWEN)
    bpe = json.loads((folder / "tokenizer.json").read_text())
    if stated:
        (folder / "tokenizer.json").write_text(json.dumps(bpe | {"post_processor": None}))
    config = read_json(folder / "tokenizer_config.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": stated}))
    out = export(folder, "hf", tmp_path / "out").path
    written = read_json(out / "tokenizer_config.json")
    (out / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in written.items() if k != "add_bos_token"}))
    assert written["add_bos_token"] is stated
    assert AutoTokenizer.from_pretrained(out)("a")["input_ids"] == Tokenizer.load(folder).prompt_ids("a")[0]
