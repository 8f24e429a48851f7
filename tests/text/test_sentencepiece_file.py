"""Tokenizers published as a sentencepiece model alone: sentencepiece's ids (recorded by sentencepiece/make.py), and what the
files beside it say."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from cli import spoutnik
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.export.writer import export
from spoutnik.model.weights import load_model, save_model
from spoutnik.recipe.model_files import save_model_files
from spoutnik.text.prefix_space import SPACE
from spoutnik.text.sentencepiece_file import read_sentencepiece
from spoutnik.text.tokenizer import Tokenizer

FILES = Path(__file__).parent / "sentencepiece"
MODELS = sorted(path.stem for path in FILES.glob("*.model"))
EXPECTED = [json.loads(line) for line in (FILES / "expected.jsonl").read_text("utf-8").splitlines()]
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TEMPLATE = "{% for m in messages %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% endfor %}"


def write(folder, name, config=None, files=None):
    """A folder with a model and tokenizer_config.json. files: further ones with their contents."""
    folder.mkdir(exist_ok=True)
    shutil.copy(FILES / f"{name}.model", folder / "tokenizer.model")
    for file, content in ({} if config is None else {"tokenizer_config.json": config} | (files or {})).items():
        (folder / file).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return {name: Tokenizer.load(write(tmp_path_factory.mktemp(name), name)) for name in MODELS}


@pytest.fixture(params=MODELS)
def model(request, loaded):
    return request.param, loaded[request.param]


def test_ids_and_texts_are_those_of_sentencepiece(model):
    name, tokenizer = model
    unknown = tokenizer.bpe.token_to_id("<unk>")
    for text, expected in EXPECTED:
        ids, decoded = expected[name]
        assert tokenizer.encode(text) == ids, text
        assert unknown in ids or tokenizer.decode(ids) == decoded, text  # sentencepiece shows " ⁇ "


def test_saved_it_is_a_tokenizer_json_that_transformers_reads(model, tmp_path):
    name, tokenizer = model
    tokenizer.save(tmp_path)
    again, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert not (tmp_path / "tokenizer.model").exists() and again.vocab_size == tokenizer.vocab_size
    assert again.start_ids == tokenizer.start_ids and again.states_start
    for text, expected in EXPECTED:
        assert again.encode(text) == expected[name][0] == theirs.encode(text, add_special_tokens=False)
    assert theirs.encode("a") == tokenizer.start_ids + tokenizer.encode("a")


@given(text=st.text(st.characters(exclude_categories=("Cs",), exclude_characters=SPACE), max_size=30))
@example(text="<0x0A> <0xE9>\n\n   \u200b<s></s>")
@example(text="  two  spaces ")
def test_bytes_keep_every_text(text, loaded):
    for name in ("llama", "gemma", "unigram_bytes"):
        assert loaded[name].decode(loaded[name].encode(text)) == text


@pytest.mark.parametrize("config, ids, start", [
    (NAMED | {"tokenizer_class": "LlamaTokenizer", "legacy": True}, ["▁the", "</s>", "▁the"], ["<s>"]),
    (NAMED | {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": False}, ["▁the", "</s>", "the"], []),
    (NAMED | {"tokenizer_class": "LlamaTokenizerFast"}, ["▁the", "</s>", "the"], ["<s>"]),
    (NAMED | {"add_prefix_space": False}, ["the", "</s>", "the"], ["<s>"]),
    ({"tokenizer_class": "T5Tokenizer"}, ["▁the", "</s>", "▁the"], []),
    (None, ["▁the", "</s>", "▁the"], ["<s>"])], ids=str)
def test_where_the_space_comes_and_what_a_text_begins_with(config, ids, start, tmp_path):
    tokenizer = Tokenizer.load(write(tmp_path, "llama", config))
    split = [tokenizer.bpe.id_to_token(i) for i in tokenizer.encode_rendered("the</s>the")]
    assert "".join(split).replace(SPACE, "") == "the</s>the"
    assert [split[0][0] == SPACE, split[split.index("</s>") + 1][0] == SPACE] == [ids[0][0] == SPACE, ids[2][0] == SPACE]
    assert [tokenizer.bpe.id_to_token(i) for i in tokenizer.start_ids] == start
    assert tokenizer.eos_ids == [2] and tokenizer.special_tokens["unk_token"] == "<unk>"
    assert tokenizer.encode("the", continues=True) == Tokenizer.load(write(tmp_path, "llama", {
        "add_prefix_space": False})).encode("the")


def test_spaces_are_removed_at_a_text_s_ends_alone(tmp_path):
    """Text that goes on with other text keeps the space at the join."""
    tokenizer = Tokenizer.load(write(tmp_path, "unigram_bare"))
    assert tokenizer.encode("  the  model ") == tokenizer.encode("the model")
    assert tokenizer.encode("the") + tokenizer.encode(" model", continues=True) == tokenizer.encode("the model")


def test_special_tokens_of_the_files_beside_it(tmp_path):
    """Those behind the pieces have their ids, gaps are filled, and a piece that stands for no text may get another one."""
    config = NAMED | {"added_tokens_decoder": {"3": {"content": "<unk>"}, "4": {"content": "<|user|>", "special": True},
                                               "424": {"content": "<tool>", "special": False, "rstrip": True}},
                      "additional_special_tokens": ["<end>", "<new>"]}
    tokenizer = Tokenizer.load(write(tmp_path, "gemma", config, {
        "added_tokens.json": {"<extra>": 421}, "special_tokens_map.json": {"pad_token": {"content": "<extra>"}}}))
    assert len(read_sentencepiece(FILES / "gemma.model").pieces) == 420
    ids = {text: tokenizer.bpe.token_to_id(text) for text in ("<|user|>", "<end>", "<extra>", "<tool>", "<new>", "<start>")}
    assert ids == {"<|user|>": 4, "<end>": 5, "<extra>": 421, "<tool>": 424, "<new>": 425, "<start>": None}
    assert tokenizer.special_tokens["pad_token"] == "<extra>" and tokenizer.vocab_size == 426
    assert tokenizer.encode_rendered("<|user|>a<tool> \na<end>")[-3:] == [424, *tokenizer.encode("a"), 5]
    assert tokenizer.decode([4, 424, 5]) == "<tool>" and 4 not in tokenizer.encode("<|user|>")


@pytest.mark.parametrize("i, words", [("300", "the piece"), ("999999", "no piece"), ("-1", "no piece")])
def test_another_model_s_special_tokens_are_told(i, words, tmp_path):
    write(tmp_path, "llama", NAMED | {"added_tokens_decoder": {i: {"content": "<other>"}}})
    with pytest.raises(RunError, match=rf"tokenizer_config.json, .*'<other>' has the id {i}, which is {words}"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("added, words", [  # fields that follow: the last one of a kind counts
    (b"\x12\x02\x18\x03", "model_type = word"), (b"\x12\x03\xc0\x01\x01", "treat_whitespace_as_suffix"),
    (b"\x1a\x02\x28\x00", "escape_whitespaces"), (b"\x2a\x03\x12\x01a", "denormalizer_spec"),
    (b"\x0a\x06\x0a\x02~!\x18\x05", "of type UNUSED")], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_computed_is_refused_in_a_sentence(added, words, tmp_path):
    write(tmp_path, "unigram_rules")
    with open(tmp_path / "tokenizer.model", "ab") as file:
        file.write(added)
    with pytest.raises(UserError, match=rf"tokenizer.model: .*{words}.*Put a tokenizer.json into the folder\.$"):
        Tokenizer.load(tmp_path)


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path):
    content = (FILES / "unigram_rules.model").read_bytes()
    whole = read_sentencepiece(FILES / "unigram_rules.model")
    path = tmp_path / "tokenizer.model"
    for length in [*range(0, 200, 3), *range(len(content) - 700, len(content))]:
        path.write_bytes(content[:length])
        try:
            read = read_sentencepiece(path)
        except RunError as error:
            assert str(error).startswith(f"{path}: is damaged") and str(error).endswith("Fetch it again.")
        else:  # but for an empty last part
            assert read.pieces == whole.pieces and read.charsmap == whole.charsmap and read.special == whole.special
    pointer = b"version https://git-lfs.github.com/spec/v1\n"
    for content, words in ((b"", "damaged"), (bytes(99), "damaged"), (pointer, "git lfs")):
        path.write_bytes(content)
        with pytest.raises(RunError, match=words):
            read_sentencepiece(path)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A model whose folder holds its tokenizer as sentencepiece alone."""
    config = NAMED | {"tokenizer_class": "LlamaTokenizer", "legacy": False, "chat_template": TEMPLATE}
    folder = write(tmp_path_factory.mktemp("llama") / "model", "llama", config)
    save_model(folder, tiny.model(tiny.LLAMA | {"rope_scaling": None}, vocab_size=400))
    return folder


def test_a_model_with_it_alone_generates_and_is_exported(llama, tmp_path):
    tokenizer = Tokenizer.load(llama)
    output, = LLM(llama, memory="16MB").generate("the model reads", SamplingParams(temperature=0, max_tokens=8))
    assert output.prompt_token_ids == [1, *tokenizer.encode("the model reads")]
    out = export(llama, "hf", tmp_path / "out").path
    theirs = AutoTokenizer.from_pretrained(out)
    assert theirs("the model reads")["input_ids"] == output.prompt_token_ids
    messages = [{"role": "user", "content": "Où est-il ?"}]
    assert tokenizer.chat_ids(messages) == theirs.apply_chat_template(messages)["input_ids"]


def test_a_stage_that_goes_on_from_it_saves_a_tokenizer_json(llama, tmp_path):
    tokenizer = Tokenizer.load(llama)
    save_model_files(tmp_path, load_model(llama), tokenizer, llama)
    assert Tokenizer.load(tmp_path).encode("the model, où ?") == tokenizer.encode("the model, où ?")
    assert not (tmp_path / "tokenizer.model").exists()


def test_the_commands_take_such_a_folder(llama):
    shown = spoutnik("inspect", str(llama))
    assert shown.returncode == 0, shown.stderr
    reply = spoutnik("chat", str(llama), "--prompt", "the model", "--max-tokens", "4", "--memory", "16MB")
    assert reply.returncode == 0 and "Traceback" not in reply.stderr, reply.stderr
