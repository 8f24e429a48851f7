"""Qwen's published ranks, read by our Tokenizer, against the ids that llama.cpp's own tests expect."""

import base64
import json

import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers.convert_slow_tokenizer import bytes_to_unicode

from spoutnik.text.tokenizer import Tokenizer

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pairs that BPE may join, in order: of the token made, then of the parts. Ranks leave the parts open; any two
    tokens that make a third may be joined, and the third's rank says when."""
    merges = []
    for token in ranks:  # in order of rank
        splits = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        merges += sorted((s for s in splits if s[0] in ranks and s[1] in ranks), key=lambda s: (ranks[s[0]], ranks[s[1]]))
    return merges


@pytest.fixture(scope="module")
def qwen(tokenizer_data, tmp_path_factory):
    lines = (tokenizer_data / "qwen.tiktoken").read_text().split("\n")
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines if line}
    letters = bytes_to_unicode()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    added = [{"id": len(ranks) + i, "content": token, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
              "single_word": False} for i, token in enumerate(SPECIAL)]
    byte_level = json.loads(ByteLevel(add_prefix_space=False, use_regex=False).__getstate__())
    folder = tmp_path_factory.mktemp("qwen")
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": added, "normalizer": {"type": "NFC"}, "decoder": byte_level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}, byte_level]},
        "model": {"type": "BPE", "vocab": {spelled(token): rank for token, rank in ranks.items()},
                  "merges": [[spelled(left), spelled(right)] for left, right in merges_of(ranks)]}}))
    (folder / "tokenizer_config.json").write_text('{"bos_token": null, "eos_token": "<|im_end|>"}')
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
