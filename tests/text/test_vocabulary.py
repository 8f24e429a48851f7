"""A tokenizer with a few tokens more than its model has embeddings for: they are told, and never fed."""

import json
import shutil

import pytest
import tiny
import tokenizer_kinds
from hypothesis import given
from hypothesis import strategies as st

import spoutnik
from spoutnik.errors import RunError, UserError
from spoutnik.model.weights import save_model
from spoutnik.text.tokenizer import Tokenizer


@pytest.fixture(params=["byte_level_bos", "llama", "unigram"])
def folder(request, tmp_path):
    """With three tokens that were added, and the model's last ordinary one, beyond its embedding."""
    folder = tokenizer_kinds.write(request.param, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    first = Tokenizer.load(folder).vocab_size
    content["added_tokens"] += [{"id": first + i, "content": text, "special": True, "single_word": False, "lstrip": False,
                                 "rstrip": False, "normalized": False} for i, text in enumerate(["[PAD]", "<|a|>", "<|b|>"])]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"vocab_size": first - 1}))
    return folder


def size_of(folder):
    return json.loads((folder / "config.json").read_text())["vocab_size"]


def test_it_is_told_once_and_they_are_left_out(folder, capsys):
    ours = Tokenizer.load(folder)
    Tokenizer.load(folder)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"vocab_size = {size_of(folder)}" in said and "'[PAD]'" in said
    assert ours.vocab_size == size_of(folder) and "pad_token" not in ours.special_tokens
    ids = ours.encode_rendered("Once <|a|> upon [PAD]")
    assert max(ids) < size_of(folder) and ours.decode(ids).startswith("Once <|a|> upon [")


@given(text=st.text(st.sampled_from("Once upon a time cats dogs \n[PAD]<|a|>"), max_size=30))
def test_no_text_gives_an_id_beyond(text, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "beyond"
    if not folder.exists():
        tokenizer_kinds.write("llama", folder)
        (folder / "config.json").write_text(json.dumps({"vocab_size": Tokenizer.load(folder).vocab_size - 40}))
        loaded["llama"] = Tokenizer.load(folder)
    assert max(loaded["llama"].encode(text), default=0) < size_of(folder)


loaded = {}


def test_an_end_of_sentence_without_a_row_leaves_the_others(folder, capsys):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|a|>"}))
    with pytest.raises(RunError, match="names no eos_token"):
        Tokenizer.load(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, size_of(folder) + 2]}))
    assert Tokenizer.load(folder).eos_ids == [2]


@pytest.mark.parametrize("kind", ["Sequence", "RobertaProcessing", "BertProcessing"])
def test_what_every_text_begins_with_is_never_beyond(kind, folder, capsys):
    content, size = json.loads((folder / "tokenizer.json").read_text()), size_of(folder)
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[PAD]", "type_id": 0}},
                                                          {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"[PAD]": {"id": "[PAD]", "ids": [size + 1], "tokens": ["[PAD]"]}}}
    content["post_processor"] = {"type": kind, "sep": ["[PAD]", size + 1], "cls": ["[PAD]", size + 1], "trim_offsets": True,
                                 "add_prefix_space": False} if kind != "Sequence" else {"type": kind, "processors": [template]}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    ours = Tokenizer.load(folder)
    assert max(ours.start_ids + ours.encode("Once upon"), default=0) < size and max(ours.bpe.encode("Once").ids) < size


def test_many_too_many_are_another_model_s(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    save_model(tmp_path, tiny.model(tiny.QWEN, vocab_size=200))
    with pytest.raises(RunError, match="has 300 tokens but config.json says vocab_size = 200"):
        spoutnik.load(tmp_path)


def test_such_a_model_generates_and_refuses_their_ids(tmp_path, tokenizer, capsys):
    tokenizer.save(tmp_path)
    save_model(tmp_path, tiny.model(tiny.QWEN, vocab_size=295))
    llm = spoutnik.LLM(tmp_path, memory="16MB")
    params = spoutnik.SamplingParams(temperature=2.0, max_tokens=40, ignore_eos=True, bad_words=["the end"], min_tokens=3)
    output, = llm.generate("Question: what is 12 + 30?", params)
    assert max(output.prompt_token_ids + output.outputs[0].token_ids) < 295
    assert "no embedding for" in capsys.readouterr().err
    with pytest.raises(UserError, match="token id 296: the model's are 0 to 294"):
        llm.generate({"prompt_token_ids": [1, 296]})


def test_as_many_as_the_embedding_are_as_they_were(folder, tmp_path, capsys):
    same = shutil.copytree(folder, tmp_path / "same")
    (same / "config.json").write_text(json.dumps({"vocab_size": size_of(folder) + 4}))
    assert Tokenizer.load(same).vocab_size == size_of(folder) + 4 and capsys.readouterr().err == ""
