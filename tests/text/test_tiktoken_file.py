"""Tokenizers published as ranks: exact, without running the code beside them."""

import base64
import json

import pytest
import regex
import tiny
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as BPE
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.export.gguf_tokens import split_name
from spoutnik.export.writer import export
from spoutnik.model.weights import save_model
from spoutnik.text.tiktoken_file import KIMI, LLAMA, QWEN, _byte_letters
from spoutnik.text.tokenizer import Tokenizer

TEXTS = ["The cat's hat, THE CATS' hats: 12345 and 67.", "中文和漢字 the 日本語ひらがな 中文",
         "  spaces \n\n\t and\r\n lines  ", "def f(x):\n    return x  # don't", "aaaaaaaa ======== --------"] * 3
CODE = '''import os
raise SystemExit("ran")
class TikTokenTokenizer(Base):
    num_reserved_special_tokens = 8
    pat_str = "|".join([r"""\\p{{L}}+""", r"""{digits}""", r"""\\s+""", r"""[^\\s\\p{{L}}\\p{{N}}]+"""])
'''


@pytest.fixture(scope="module")
def ranks():
    """All bytes, then what training on these texts joins."""
    bpe = BPE(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=420, show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    byte_of = {letter: byte for byte, letter in _byte_letters().items()}
    return {bytes(byte_of[letter] for letter in token): i for token, i in bpe.get_vocab().items()}


def write(folder, ranks, name="tiktoken.model", model_type="kimi_k2", **config):
    folder.mkdir(exist_ok=True)
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in sorted(ranks.items(), key=lambda entry: entry[1])]
    (folder / name).write_text("\n".join(lines) + "\n")
    first = len(ranks)
    added = {str(first): {"content": "[BOS]", "special": True}, str(first + 1): {"content": "[EOS]", "special": True},
             str(first + 5): {"content": "<|im_end|>", "special": True},
             str(first + 6): {"content": "<|tool|>", "special": False}}
    settings = {"bos_token": "[BOS]", "eos_token": "[EOS]", "added_tokens_decoder": added,
                "tokenizer_class": "TikTokenTokenizer",
                "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]}} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def plain_ids(text, ranks, pattern):
    """tiktoken's way in the plainest form: join the two neighbors whose bytes together have the lowest rank, while there are
    any."""
    ids = []
    for piece in regex.findall(f"(?V1){pattern}", text):
        piece = piece.encode()
        parts = [piece] if piece in ranks else [bytes([byte]) for byte in piece]
        while True:
            joined = [(ranks[both], i) for i, both in enumerate(map(bytes.__add__, parts, parts[1:])) if both in ranks]
            if not joined:
                break
            _, i = min(joined)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


words = st.lists(st.one_of(st.sampled_from(["The", "CATS", "cat's", "don'T", " 12345", "  ", "\n", "\r\n", "中文", "漢the",
                                            "ひら", "aaaa", "=====", "é", "E\u0301", "ǅa", "\u3000", "\u00a0"]),
                           st.text(st.characters(exclude_categories=("Cs",)), max_size=4)), max_size=8).map("".join)


@pytest.fixture(scope="module")
def kimi(ranks, tmp_path_factory):
    return Tokenizer.load(write(tmp_path_factory.mktemp("kimi"), ranks))


@given(text=words)
@example(text="a" * 41 + "=" * 33 + " " * 9)
def test_ids_are_those_of_tiktoken(text, kimi, ranks):
    ids = kimi.encode(text)
    assert ids == plain_ids(text, ranks, KIMI.pattern) and kimi.decode(ids) == text


def test_special_tokens_have_their_ids_and_the_others_kimi_s_names(kimi, ranks):
    first = len(ranks)
    assert (kimi.bos_id, kimi.eos_id, kimi.vocab_size) == (first, first + 1, first + 256)
    assert kimi.encode_rendered("[BOS]a<|im_end|><|tool|>") == [first, *kimi.encode("a"), first + 5, first + 6]
    assert kimi.decode([first + 2], keep_special=True) == f"<|reserved_token_{first + 2}|>"
    assert kimi.decode([first + 5, first + 6]) == "<|tool|>" and kimi.start_ids == []
    assert not {first, first + 5} & set(kimi.encode("[BOS]<|im_end|>"))


def test_saved_it_needs_neither_ranks_nor_code(kimi, tmp_path):
    kimi.save(tmp_path)
    again, config = Tokenizer.load(tmp_path), json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert again.encode("The cat's 中文 12345") == kimi.encode("The cat's 中文 12345") and again.vocab_size == kimi.vocab_size
    assert "auto_map" not in config and config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_the_pattern_is_read_from_code_that_is_not_run(ranks, tmp_path):
    write(tmp_path, ranks)
    (tmp_path / "tokenization_kimi.py").write_text(CODE.format(digits=r"\p{N}"))
    ours = Tokenizer.load(tmp_path)
    assert ours.vocab_size == len(ranks) + 8
    pattern = r"\p{L}+|\p{N}|\s+|[^\s\p{L}\p{N}]+"
    for text in TEXTS:
        assert ours.encode(text) == plain_ids(text, ranks, pattern) != plain_ids(text, ranks, KIMI.pattern)


@pytest.mark.parametrize("name, model_type, config, kind", [
    ("tiktoken.model", "deepseek_v3", {"tokenizer_class": None}, KIMI), ("tokenizer.model", "llama", {}, LLAMA),
    ("qwen.tiktoken", "qwen2", {"tokenizer_class": "Qwen2Tokenizer"}, QWEN), ("qwen.tiktoken", "x", {
        "tokenizer_class": "QWenTokenizer"}, QWEN)])
def test_known_kinds(name, model_type, config, kind, ranks, tmp_path):
    given = {"auto_map": None, "tokenizer_class": None} | config
    ours = Tokenizer.load(write(tmp_path, ranks, name, model_type, **given))
    assert [ours.encode(text) for text in TEXTS] == [plain_ids(text, ranks, kind.pattern) for text in TEXTS]


def test_windows_line_ends_change_nothing(kimi, ranks, tmp_path):
    write(tmp_path, ranks)
    (tmp_path / "tiktoken.model").write_bytes((tmp_path / "tiktoken.model").read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.load(tmp_path).encode("The cat") == kimi.encode("The cat")


@pytest.mark.parametrize("content, sentence", [
    ("IQ== 0\nnot base64 1\n", "line 2 is no token"), ("IQ== 0\nIQ== 1\n", "line 2 is no token"),
    ("IQ== 0\nIg== 5\n", "its ranks must be 0 to"), ("IQ== 0\n", "all 256 bytes"),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull")])
def test_a_damaged_file_is_named(content, sentence, ranks, tmp_path):
    write(tmp_path, ranks)
    (tmp_path / "tiktoken.model").write_text(content)
    with pytest.raises(RunError, match=f"tiktoken.model: .*{sentence}"):
        Tokenizer.load(tmp_path)


def test_an_unknown_way_to_split_is_not_guessed(ranks, tmp_path):
    write(tmp_path, ranks, model_type="deepseek_v2", tokenizer_class="Other")
    with pytest.raises(RunError, match="not known how this model .*'Other'.* code is never run"):
        Tokenizer.load(tmp_path)


def test_a_special_token_in_place_of_a_rank_is_named(ranks, tmp_path):
    for number in (7, 10**12):
        write(tmp_path, ranks, added_tokens_decoder={str(number): {"content": "[EOS]"}})
        with pytest.raises(RunError, match=f"added_tokens_decoder: {number} is no id of a special token"):
            Tokenizer.load(tmp_path)


@pytest.mark.parametrize("stated", [["[EOS]"], "[EOS]", {"end": {"content": "[EOS]"}}, {"300": {}}, {"300": {"content": 3}},
                                    {"300": 4}], ids=str)
def test_special_tokens_of_another_form_are_told(ranks, tmp_path, stated):
    write(tmp_path, ranks, added_tokens_decoder=stated)
    with pytest.raises(RunError, match="tokenizer_config.json: added_tokens_decoder: must be ids with tokens"):
        Tokenizer.load(tmp_path)


def test_a_model_with_ranks_alone_generates_and_is_exported(kimi, ranks, tmp_path):
    folder = write(tmp_path / "model", ranks)
    save_model(folder, tiny.model(tiny.DEEPSEEK, vocab_size=kimi.vocab_size))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "kimi_k2"}))
    llm = LLM(folder, memory="16MB")
    output, = llm.generate("The cat's 中文", SamplingParams(temperature=0, max_tokens=8))
    assert output.prompt_token_ids == plain_ids("The cat's 中文", ranks, KIMI.pattern)
    assert output.outputs[0].text == kimi.decode(output.outputs[0].reply_ids)
    out = export(folder, "hf", tmp_path / "out").path
    assert AutoTokenizer.from_pretrained(out)("The cat's 中文")["input_ids"] == output.prompt_token_ids
    assert split_name(kimi) == ("kimi-k2", None)  # llama.cpp's name
