"""Qwen's published ranks, read by our Tokenizer, against the ids that llama.cpp's own tests expect."""

import json
import shutil

import pytest

from spoutnik.text.tokenizer import Tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def qwen(tokenizer_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    shutil.copyfile(tokenizer_data / "qwen.tiktoken", folder / "qwen.tiktoken")
    added = {str(151643 + i): {"content": token, "special": True} for i, token in enumerate(SPECIAL)}
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": None, "eos_token": "<|im_end|>", "added_tokens_decoder": added}))
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    return Tokenizer.load(folder)


@pytest.mark.parametrize("name", ["qwen2", "deepseek-r1-qwen"])
def test_every_vector_of_llama_cpp_is_reproduced(name, qwen, tokenizer_data):
    texts = (tokenizer_data / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    expected = [[int(i) for i in line.split()]
                for line in (tokenizer_data / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")]
    assert len(texts) == len(expected) == 47  # the last is the empty text
    assert [qwen.encode(text) for text in texts] == expected
    assert [qwen.decode(ids) for ids in expected] == texts


def test_special_ids_follow_the_ranks_as_in_qwen2_5_s_config(qwen):
    assert (qwen.bos_id, qwen.eos_id) == (None, 151645)
    assert qwen.vocab_size == 151646 and qwen.end_think_id is None
