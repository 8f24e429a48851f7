"""GGUF files as models: what our exporter writes is read back to the same numbers, rotary tables, tokens and template."""

import gguf_back
import pytest
import tiny
import torch
from test_gguf import WIDE

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.export.writer import export
from spoutnik.loading import load, load_tokenizer
from spoutnik.locate import locate
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model

EXACT = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
HOSTILE = ["", " ", "  two  spaces ", "\n\n\r\n\t", "We'LL pay(123) 45 for 6789", "été e\u0301te\u0301", "日本 \u0639x_1 👩‍🚀",
           "<think>\nno</think>", "<｜User｜> <|im_start|>", "\x00\x7f\ufffd", "a" * 300, "x=1;  y\t=  22\n    z"]
TEMPLATED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi </think> 12"}]
MODELS = {
    **tiny.ALL, "tied": tiny.QWEN | {"tie_word_embeddings": True},
    "biases": tiny.LLAMA | {"attention_bias": True, "mlp_bias": True, "rope_scaling": None},
    "linear": tiny.LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "yarn": tiny.QWEN | {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
    "yarn_factor": tiny.QWEN3 | {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
                                                  "attention_factor": 0.8}},
    "two_mscales": tiny.DEEPSEEK | {"rope_scaling": tiny.YARN | {"mscale": 0.7, "mscale_all_dim": 0.3}},
    "lite": tiny.V2 | {"q_lora_rank": None, "topk_method": "greedy"},
    "no_experts": tiny.DEEPSEEK | {"first_k_dense_replace": 3}}


def state(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("mtp.")}


def logits(model: Transformer) -> torch.Tensor:
    ids = torch.arange(60).view(2, 30) * 5 % 300
    with torch.no_grad():
        return model(ids)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dtype", EXACT)
def test_what_is_exported_is_read_back(checkpoint, tmp_path, kind, dtype):
    folder = checkpoint(MODELS[kind], torch.float32)
    path = export(folder, "gguf", tmp_path / "model.gguf", dtype).path
    original, read = load_model(folder, torch.float32), load(path, torch.float32)
    expected = state(original)
    assert state(read).keys() == expected.keys()
    for name, tensor in state(read).items():
        kept = tensor.dim() == 1 or name.endswith(("mlp.gate.weight", "router.weight"))
        assert torch.equal(tensor, expected[name]) if kept or dtype == "f32" else torch.equal(
            tensor, expected[name].to(EXACT[dtype]).float()), name
    assert torch.allclose(read.rotary, original.rotary, atol=1e-6, rtol=0)
    assert dtype != "f32" or torch.allclose(logits(read), logits(original), atol=2e-5)


@pytest.mark.parametrize("kind", tiny.ALL)
@pytest.mark.parametrize("dtype", ["q8_0", "q4_0"])
def test_blocks_are_what_the_gguf_package_makes_of_them(checkpoint, tmp_path, kind, dtype):
    folder = checkpoint(tiny.ALL[kind], **WIDE)
    path = export(folder, "gguf", tmp_path / "model.gguf", dtype).path
    expected = gguf_back.model(path, tiny.config(tiny.ALL[kind], vocab_size=320, **WIDE))
    read = load(path, torch.float32)
    assert all(torch.equal(tensor, state(expected)[name]) for name, tensor in state(read).items())
    assert torch.allclose(logits(read), logits(expected), atol=2e-5)
    assert load(path).embed_tokens.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("quantize", [None, "int8"], ids=["float32", "int8"])
def test_the_engine_generates_as_from_the_folder(checkpoint, tmp_path, quantize):
    folder = checkpoint(tiny.LLAMA, torch.float32)
    path = export(folder, "gguf", tmp_path / "model.gguf", "f32").path
    greedy = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    outputs = [LLM(model, dtype="float32", quantize=quantize).generate(["12 + 30 ="], greedy)[0].outputs[0].token_ids
               for model in (path, folder)]
    assert outputs[0] == outputs[1]


def test_tokenizer_and_template_come_from_the_file(checkpoint, tmp_path, tokenizer):
    path = export(checkpoint(tiny.QWEN), "gguf", tmp_path / "model.gguf").path
    read = load_tokenizer(locate(path))
    for text in HOSTILE:
        assert read.encode(text) == tokenizer.encode(text), text
        assert read.encode_rendered(text) == tokenizer.encode_rendered(text), text
        assert read.decode(read.encode(text)) == text
    assert read.chat_template == tokenizer.chat_template and read.chat_ids(TEMPLATED) == tokenizer.chat_ids(TEMPLATED)
    assert (read.bos_id, read.start_ids, read.think_id) == (tokenizer.bos_id, tokenizer.start_ids, tokenizer.think_id)
    assert read.eos_ids == tokenizer.eos_ids and read.vocab_size == tokenizer.vocab_size


def test_another_file_of_the_same_name_is_read_anew(checkpoint, tmp_path):
    first, second = checkpoint(tiny.QWEN), checkpoint(tiny.LLAMA)
    path = export(first, "gguf", tmp_path / "model.gguf").path
    folder = locate(path)
    written = (folder / "config.json").stat().st_mtime_ns
    assert folder.name == "model" and locate(path) == folder and (folder / "config.json").stat().st_mtime_ns == written
    path.unlink()
    export(second, "gguf", path)
    assert load(path).config.model_type == "llama"


def test_a_model_without_a_vocabulary_takes_token_ids(checkpoint, tmp_path):
    from spoutnik.export.gguf_file import write_file
    from spoutnik.export.model_card import Provenance
    from spoutnik.model.checkpoint import Checkpoint
    write_file(tmp_path / "bare.gguf", Checkpoint.open(checkpoint(tiny.QWEN)), None, "bf16", Provenance("random", "mit"))
    model = load(tmp_path / "bare.gguf")
    assert model.tokenizer is None and logits(model).shape == (2, 30, 320)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_transformers_reads_the_same_model(checkpoint, tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate alone")
    base = MODELS[kind] | {"rope_scaling": None, "head_dim": None} | ({"head_dim": 128} if kind == "qwen3" else {})
    path = export(checkpoint(base, torch.float32, **WIDE), "gguf", tmp_path / "model.gguf", "f32").path
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ids = torch.arange(60).view(2, 30) * 5 % 300
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, logits(load(path, torch.float32)), atol=1e-4)
