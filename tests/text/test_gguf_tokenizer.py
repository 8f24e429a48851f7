"""Tokenizers from the metadata of GGUF files: the same ids as the tokenizer that the metadata was written of."""

import json
from pathlib import Path

import pytest
import tokenizer_kinds
from tokenizers import AddedToken, Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BPE

from spoutnik.errors import RunError, UserError
from spoutnik.export.gguf_tokens import split_name
from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.gguf_tokenizer import SPLITS, gguf_tokenizer
from spoutnik.text.tokenizer import Tokenizer

PATH = Path("some.gguf")
TEXTS = ["", " ", "  two  spaces ", "a\n\n\r\n\tb", "We'LL pay(123) 45 for 6789", "été e\u0301te\u0301 Ünï",
         "日本語 ひらがな \u0639x_1",
         "👩‍🚀\x00\x7f", "the time, the times and the timer" * 3, "def f(x):\n\t  return x + 1", "1234567", "<tool> </s> <|x|>"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def metadata(tokenizer: Tokenizer, kind: str, **keys: object) -> dict:
    """What a converter writes of a tokenizer, with one row more than it has tokens."""
    added, size = tokenizer.bpe.get_added_tokens_decoder(), tokenizer.vocab_size
    texts = [tokenizer.bpe.id_to_token(i) for i in range(size)] + ["[PAD]"]
    types = [(CONTROL if added[i].special else USER_DEFINED) if i in added else NORMAL for i in range(size)] + [UNUSED]
    pairs = json.loads(tokenizer.bpe.to_str())["model"]["merges"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
    values = {"model": kind, "tokens": texts, "token_type": types, "merges": merges, "eos_token_id": tokenizer.eos_id,
              "bos_token_id": tokenizer.bos_id} | keys
    return {f"tokenizer.ggml.{name}": value for name, value in values.items() if value is not None}


def byte_level(*patterns: str, gpt2: bool) -> Tokenizer:
    bpe = BPE(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([*(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2)])
    bpe.train_from_iterator(tokenizer_kinds.TEXTS, trainers.BpeTrainer(
        vocab_size=360, show_progress=False, special_tokens=["</s>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    bpe.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return Tokenizer(bpe, ChatTemplates({}, "test"), {"eos_token": "</s>", "bos_token": "<s>", "add_bos_token": False})


@pytest.mark.parametrize("name, patterns, gpt2", [
    ("llama-bpe", (tokenizer_kinds.SPLIT,), False), ("qwen2", (tokenizer_kinds.SPLIT.replace("{1,3}", ""),), False),
    ("gpt-2", (), True), ("smollm", (r"\p{N}",), True)], ids=["llama-bpe", "qwen2", "gpt-2", "smollm"])
def test_text_is_split_as_the_file_says(name, patterns, gpt2):
    original = byte_level(*patterns, gpt2=gpt2)
    read = gguf_tokenizer(metadata(original, "gpt2", pre=name, add_bos_token=False), PATH)
    texts = [text for text in TEXTS if name != "qwen2" or "\u0301" not in text]  # qwen2 composes letters and accents
    assert [read.encode(text) for text in texts] == [original.encode(text) for text in texts]
    assert [read.encode_rendered(text) for text in texts] == [original.encode_rendered(text) for text in texts]
    assert read.start_ids == [] and read.eos_ids == original.eos_ids and read.bpe.id_to_token(read.vocab_size) is None


@pytest.mark.parametrize("name", SPLITS)
def test_the_exporter_recognizes_every_way_to_split(name):
    original = byte_level(gpt2=True)
    read = gguf_tokenizer(metadata(original, "gpt2", pre=name), PATH)
    same = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2", "starcoder": "smollm",
            "refact": "smollm", "command-r": "smollm", "codeshell": "smollm", "phi-2": "gpt-2", "olmo": "gpt-2", "mpt": "gpt-2",
            "trillion": "gpt-2"}
    assert split_name(read) == (same.get(name, name), None)
    assert read.start_ids == ([read.bos_id] if same.get(name, name) == "llama-bpe" else [])


def test_accents_are_composed_for_qwen2():
    read = gguf_tokenizer(metadata(byte_level(gpt2=True), "gpt2", pre="qwen2"), PATH)
    assert read.encode("e\u0301") == read.encode("é")


@pytest.mark.parametrize("prefix", [True, False], ids=["prefix", "no_prefix"])
def test_sentencepiece_vocabularies_merge_by_their_scores(tmp_path, prefix):
    kind = "llama_as_written" if prefix else "gemma_like"
    original = Tokenizer.load(tokenizer_kinds.write(kind, tmp_path))
    values = metadata(original, "llama", add_space_prefix=prefix, unknown_token_id=0, merges=None,
                      scores=[*(-float(i) for i in range(original.vocab_size)), 0.0])
    types = values["tokenizer.ggml.token_type"]
    types[0], types[3:259] = UNKNOWN, [BYTE] * 256
    read = gguf_tokenizer(values, PATH)
    texts = [*TEXTS, *tokenizer_kinds.TEXTS[:5], "<s>the</s> the"]
    for text in texts:
        assert read.encode(text) == original.encode(text), text
        assert read.encode_rendered(text) == original.encode_rendered(text), text
        assert read.decode(read.encode(text)) == original.decode(original.encode(text))
    assert read.start_ids == [read.bos_id] and read.byte_ids == original.byte_ids


def test_ends_of_a_reply_are_the_keys_and_the_known_names():
    original = byte_level(gpt2=True)
    original.bpe.add_special_tokens(["<|im_end|>", "<|endoftext|>"])
    ids = [original.bpe.token_to_id(text) for text in ("</s>", "<|endoftext|>", "<|im_end|>")]
    read = gguf_tokenizer(metadata(original, "gpt2", pre="gpt-2", eot_token_id=ids[1]), PATH)
    assert read.eos_ids == ids and read.eos_id == ids[0]


@pytest.mark.parametrize("keys, error, words", [
    ({"model": "t5"}, UserError, "tokenizer.ggml.model = 't5'"), ({"pre": "chameleon"}, UserError, "pre = 'chameleon'"),
    ({"pre": None}, UserError, "pre = None"), ({"merges": ["x"]}, RunError, "merges"),
    ({"merges": []}, RunError, "merges is missing"), ({"token_type": [1]}, RunError, "1 entries for"),
    ({"eos_token_id": 5000}, RunError, "eos_token_id = 5000"), ({"model": "llama", "scores": [0.5]}, RunError, "scores"),
    ({"tokens": "abc"}, RunError, "tokens"), ({"eos_token_id": None}, RunError, "names no token that ends a reply")],
    ids=lambda value: None if not isinstance(value, dict) else "-".join(value))
def test_what_cannot_be_read_is_refused_in_a_sentence(keys, error, words):
    values = metadata(byte_level(gpt2=True), "gpt2", **{"pre": "gpt-2"} | keys)
    with pytest.raises(error) as caught:
        gguf_tokenizer(values, PATH)
    assert words in str(caught.value) and str(caught.value).startswith("some.gguf: ")
