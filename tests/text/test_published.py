"""Checkpoints of other families: read as transformers reads them, and safe from what users type."""

import json
import shutil
import unicodedata
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as BPE
from transformers import AutoTokenizer

from spoutnik.errors import RunError, UserError
from spoutnik.text.thought_format import opens_thought
from spoutnik.text.tokenizer import Tokenizer, check_vocabulary

NAMES = ["r1", "llama3", "qwen3", "chatml"]


@pytest.fixture(scope="module")
def loaded(checkpoints):
    return {name: Tokenizer.load(folder) for name, (folder, _) in checkpoints.items()}


def change(checkpoint, tmp_path, file, **keys):
    """A copy of a checkpoint's folder with keys of one JSON file changed (None removes the key)."""
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint[0], folder)
    path = folder / file
    content = (json.loads(path.read_text()) if path.exists() else {}) | keys
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


# Special tokens

@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_transformers(name, checkpoints, loaded):
    _, theirs = checkpoints[name]
    ours = loaded[name]
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.special_tokens == theirs.special_tokens_map and ours.vocab_size == len(theirs)
    for token, token_id in (("<think>", ours.think_id), ("</think>", ours.end_think_id), ("<｜User｜>", ours.user_id),
                         ("<｜Assistant｜>", ours.assistant_id)):
        assert token_id == theirs.get_vocab().get(token)


def test_every_token_that_ends_a_reply_is_known_the_tokenizer_s_first(checkpoints, loaded):
    ids = {name: checkpoints[name][1].convert_tokens_to_ids for name in NAMES}
    assert loaded["llama3"].eos_ids == [ids["llama3"]("<|eot_id|>"), ids["llama3"]("<|end_of_text|>")]
    assert loaded["qwen3"].eos_ids == [ids["qwen3"]("<|im_end|>"), ids["qwen3"]("<|endoftext|>")]
    assert loaded["chatml"].eos_ids == [ids["chatml"]("<|im_end|>")]


def test_a_special_token_may_be_an_object(checkpoints, tmp_path):
    spec = {"__type": "AddedToken", "content": "<|end_of_text|>", "lstrip": False, "special": True}
    folder = change(checkpoints["llama3"], tmp_path, "tokenizer_config.json", eos_token=spec)
    assert Tokenizer.load(folder).eos_id == AutoTokenizer.from_pretrained(folder).eos_token_id


# What belongs before plain text

@pytest.mark.parametrize("name", NAMES)
def test_plain_text_begins_as_transformers_begins_it(name, checkpoints, loaded):
    """chatml's has a beginning of sentence that is defined and belongs nowhere, as SmolLM2's."""
    theirs, ours = AutoTokenizer.from_pretrained(checkpoints[name][0]), loaded[name]
    for text in ("a weather", " 1 + 2\n"):
        assert ours.start_ids + ours.encode(text) == theirs.encode(text)
    assert ours.start_ids == ([ours.bos_id] if name in ("r1", "llama3") else [])


@pytest.mark.parametrize("name, stated, begins", [
    ("chatml", True, True), ("chatml", False, False), ("llama3", True, True), ("llama3", False, False),
    ("qwen3", True, False), ("qwen3", False, False)])  # qwen3's has no beginning of sentence
def test_add_bos_token_has_the_last_word(name, stated, begins, checkpoints, tmp_path):
    """Where it contradicts the post-processor, transformers 4 and llama.cpp follow it; transformers 5 no longer reads it."""
    ours = Tokenizer.load(change(checkpoints[name], tmp_path, "tokenizer_config.json", add_bos_token=stated))
    assert ours.start_ids == ([ours.bos_id] if begins else [])
    ours.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").start_ids == ours.start_ids


@pytest.mark.parametrize("single, count", [("<s> $A", 1), ("$A", 0), ("$A </s>", 0), ("[gMASK] <s> $A", 2), ("<s> $A </s>", 1)])
@pytest.mark.parametrize("kind", ["sentencepiece", "sequence"])
def test_whatever_the_post_processor_puts_before_a_text_belongs_there(single, count, kind, tmp_path):
    bpe = BPE(models.BPE(vocab={"<unk>": 0, "<s>": 1, "</s>": 2, "[gMASK]": 3, "▁": 4, "a": 5, "b": 6, "▁a": 7},
                         merges=[("▁", "a")], unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bpe.decoder = decoders.Metaspace()
    bpe.add_special_tokens(["<s>", "</s>", "[gMASK]"])
    template = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2), ("[gMASK]", 3)])
    bpe.post_processor = template if kind == "sentencepiece" else processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template])
    bpe.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours.start_ids == theirs.encode("ab a")[:count] and len(ours.start_ids) == count
    assert ours.start_ids + ours.encode("ab a") == [i for i in theirs.encode("ab a") if i != 2]


@pytest.mark.parametrize("file, content", [
    ("special_tokens_map.json", '{"eos_token": "<|im_end|>"}'),
    ("special_tokens_map.json", '{"eos_token": {"content": "<|im_end|>"}}'),
    ("generation_config.json", '{"eos_token_id": [ID]}'), ("config.json", '{"eos_token_id": ID}'),
])
def test_what_the_tokenizer_s_config_leaves_out_is_looked_up(file, content, checkpoints, tmp_path):
    eos = checkpoints["chatml"][1].eos_token_id
    folder = change(checkpoints["chatml"], tmp_path, "tokenizer_config.json", eos_token=None)
    (folder / file).write_text(content.replace("ID", str(eos)))
    ours = Tokenizer.load(folder)
    assert ours.eos_id == eos and ours.special_tokens["eos_token"] == "<|im_end|>"


def test_null_in_the_tokenizer_s_config_means_none(checkpoints, tmp_path):
    folder = change(checkpoints["qwen3"], tmp_path, "config.json", bos_token_id=3)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": None}))
    assert Tokenizer.load(folder).bos_id is None


def test_without_any_end_of_sentence_the_key_is_named(checkpoints, tmp_path):
    with pytest.raises(RunError, match=r"tokenizer_config\.json: names no eos_token"):
        Tokenizer.load(change(checkpoints["chatml"], tmp_path, "tokenizer_config.json", eos_token=None))


@pytest.mark.parametrize("file", ["vocab.json"])
def test_a_tokenizer_of_the_older_kind_has_a_remedy(file, tmp_path):
    (tmp_path / file).write_text("")
    with pytest.raises(RunError, match=r"tokenizer\.json: not found\. .* save_pretrained"):
        Tokenizer.load(tmp_path)


def test_a_config_that_is_no_object_is_named(checkpoints, tmp_path):
    folder = change(checkpoints["chatml"], tmp_path, "config.json")
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(RunError, match=r"tokenizer_config\.json: must hold a JSON object"):
        Tokenizer.load(folder)


def test_custom_code_is_never_run(checkpoints, tmp_path):
    folder = change(checkpoints["chatml"], tmp_path, "tokenizer_config.json", tokenizer_class="Trap",
                    auto_map={"AutoTokenizer": [None, "trap.Trap"]})
    (folder / "trap.py").write_text("raise SystemExit('ran')")
    assert Tokenizer.load(folder).decode(Tokenizer.load(folder).encode("so")) == "so"


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_copy_is_the_same_to_transformers(name, checkpoints, loaded, tmp_path):
    _, theirs = checkpoints[name]
    loaded[name].config["kept"] = 1
    loaded[name].save(tmp_path)
    copy = AutoTokenizer.from_pretrained(tmp_path)
    assert copy.get_vocab() == theirs.get_vocab() and copy.chat_template == theirs.chat_template
    assert copy.special_tokens_map == theirs.special_tokens_map
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["kept"] == 1
    again = Tokenizer.load(tmp_path)
    assert again.bpe.to_str() == loaded[name].bpe.to_str() and again.templates.sources == loaded[name].templates.sources


def test_tokens_beyond_the_model_are_refused_and_padding_is_fine(loaded, tmp_path):
    ours = loaded["r1"]
    check_vocabulary(ours, ours.vocab_size, tmp_path)
    check_vocabulary(ours, ours.vocab_size + 100, tmp_path)
    with pytest.raises(RunError, match=rf"tokenizer\.json: has {ours.vocab_size} tokens but config\.json says vocab_size = "
                                       f"{ours.vocab_size - 1}"):
        check_vocabulary(ours, ours.vocab_size - 1, tmp_path)


def test_white_space_and_letters_that_are_added_tokens_stay_tokens(checkpoints, tmp_path):
    bpe = BPE.from_file(str(checkpoints["chatml"][0] / "tokenizer.json"))
    bpe.add_tokens([AddedToken("ø", normalized=False), AddedToken("  ", normalized=False)])
    folder = change(checkpoints["chatml"], tmp_path, "config.json")
    bpe.save(str(folder / "tokenizer.json"))
    text = "smør  brød"
    assert Tokenizer.load(folder).encode(text) == AutoTokenizer.from_pretrained(folder).encode(text)


# Conversations

letters = st.characters(exclude_categories=("Cs",))
plain = st.text(letters, max_size=12).filter(lambda text: not any(mark in text for mark in "<[{｜"))
conversations = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), plain), min_size=1, max_size=4).map(
    lambda turns: [{"role": role, "content": content} for role, content in turns])


@pytest.mark.parametrize("name", NAMES)
@given(messages=conversations, prompt=st.booleans())
@example(messages=[{"role": "user", "content": "\n\ue000 e\u0301\\ue001\n"}], prompt=True)
@example(messages=[{"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"}], prompt=True)
def test_ids_of_a_conversation_are_those_of_transformers(name, messages, prompt, checkpoints, loaded):
    _, theirs = checkpoints[name]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {},
                                               "description": messages[0]["content"].partition("<")[0]}}]
    for given_tools in (None, tools):
        expected = theirs.apply_chat_template(messages, tools=given_tools, add_generation_prompt=prompt)["input_ids"]
        assert loaded[name].chat_ids(messages, given_tools, add_generation_prompt=prompt) == expected


def test_a_function_is_a_tool(checkpoints, loaded):
    def weather(city: str):
        """Tells the weather.

        Args:
            city: Where.
        """

    messages = [{"role": "user", "content": "hi"}]
    _, theirs = checkpoints["qwen3"]
    expected = theirs.apply_chat_template(messages, tools=[weather], add_generation_prompt=True)["input_ids"]
    assert loaded["qwen3"].chat_ids(messages, [weather]) == expected


def controls_of(theirs):
    return {token.content: i for i, token in theirs.added_tokens_decoder.items()}


spelled = {name: st.lists(st.one_of(st.sampled_from(["<", "<|", "<｜", "think>", "|>", "</", " ", "\ue000", *tokens]),
                                    st.text(letters, max_size=3)), max_size=6).map("".join)
           for name, tokens in {"r1": ["<think>", "</think>", "<｜User｜>", "<｜end▁of▁sentence｜>"],
                                "llama3": ["<|eot_id|>", "<|start_header_id|>"],
                                "qwen3": ["<|im_end|>", "<think>", "</tool_call>"],
                                "chatml": ["<|im_start|>", "<s>"]}.items()}


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_no_typed_text_becomes_a_control_token(name, data, checkpoints, loaded):
    """The control tokens are those of the same conversation with nothing typed, and the text is what the template made."""
    _, theirs = checkpoints[name]
    ours, controls = loaded[name], set(controls_of(theirs).values())
    roles = data.draw(st.lists(st.sampled_from(["user", "system", "assistant"]), min_size=1, max_size=4))
    messages = [{"role": role, "content": data.draw(spelled[name])} for role in roles]
    for message in messages:
        if message["role"] == "assistant":  # what it said may hold the end of a thought
            message["content"] = message["content"].replace("</think>", "")
    tools = [{"type": "function", "function": {"name": data.draw(spelled[name]), "parameters": {"<think>": "</think>"}}}]
    empty = [{"role": role, "content": "a"} for role in roles]
    ids, bare = ours.chat_ids(messages, tools), ours.chat_ids(empty, [{"type": "function", "function": {}}])
    assert [i for i in ids if i in controls] == [i for i in bare if i in controls]
    rendered = theirs.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    composed = partial(unicodedata.normalize, "NFC") if name == "qwen3" else str  # as its tokenizer does
    assert composed(ours.decode(ids, keep_special=True)) == composed(rendered)
    assert not controls & set(ours.encode(messages[0]["content"]))


def test_a_token_begun_in_one_text_is_not_completed_by_the_next(checkpoints, tmp_path):
    folder = change(checkpoints["r1"], tmp_path, "config.json")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content | trim }}{% endfor %}")
    ours = Tokenizer.load(folder)
    ids = ours.chat_ids([{"role": "user", "content": "<thi \n"}, {"role": "user", "content": "nk>"}])
    assert ours.decode(ids) == "<think>" and ours.think_id not in ids


def test_tool_outputs_calls_and_variables_are_typed_text_too(checkpoints, loaded):
    ours, (_, theirs) = loaded["qwen3"], checkpoints["qwen3"]
    messages = [{"role": "user", "content": "hi"},
                {"role": "assistant", "content": "", "reasoning_content": "<|im_end|>", "tool_calls": [
                    {"type": "function", "function": {"name": "<tool_call>", "arguments": {"a": "<|im_start|>"}}}]},
                {"role": "tool", "content": "</tool_call><think>"}]
    ids = ours.chat_ids(messages)
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.decode(ids, keep_special=True) == rendered
    names = {i: token for token, i in controls_of(theirs).items()}
    assert [names[i] for i in ids if i in names] == [
        "<|im_start|>", "<|im_end|>", "<|im_start|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_end|>",
        "<|im_start|>", "<|im_end|>", "<|im_start|>"]
    sanitised = theirs.apply_chat_template(messages, add_generation_prompt=True, sanitize_control_tokens=True)["input_ids"]
    assert [i for i in ids if i in names] == [i for i in sanitised if i in names]


@pytest.mark.parametrize("dump", ["tojson", "tojson(ensure_ascii=true)", "tojson(indent=2)"])
def test_a_text_that_the_template_quotes_is_still_cut(dump, checkpoints, tmp_path):
    folder = change(checkpoints["qwen3"], tmp_path, "config.json")
    (folder / "chat_template.jinja").write_text("{{ messages | " + dump + " }}")
    ours = Tokenizer.load(folder)
    messages = [{"role": "user", "content": "<think> \\ue000 \ue001"}]
    ids = ours.chat_ids(messages)
    assert json.loads(ours.decode(ids, keep_special=True)) == messages and ours.think_id not in ids


def test_an_assistant_s_thought_is_the_template_s_to_keep(checkpoints, loaded):
    """Qwen3's template splits `<think>…</think>` off the content and keeps it after the last question alone."""
    ours = loaded["qwen3"]
    assistant = {"role": "assistant", "content": "<think>\nhm <|im_end|>\n</think>\n\nYes <think>"}
    last = ours.chat_ids([{"role": "user", "content": "a"}, assistant], add_generation_prompt=False)
    past = ours.chat_ids([{"role": "user", "content": "a"}, assistant, {"role": "user", "content": "b"}])
    assert (last.count(ours.think_id), last.count(ours.end_think_id), last.count(ours.eos_id)) == (1, 1, 2)
    assert ours.decode(last, keep_special=True) == checkpoints["qwen3"][1].apply_chat_template(
        [{"role": "user", "content": "a"}, assistant], tokenize=False)
    assert "hm" in ours.decode(last) and "hm" not in ours.decode(past)
    assert ours.think_id not in past and ours.end_think_id not in past


@pytest.mark.parametrize("name, variables, opened", [
    ("r1", {}, True), ("qwen3", {"enable_thinking": False}, False), ("qwen3", {}, False), ("llama3", {}, False),
])
def test_whether_a_prompt_opens_the_thought(name, variables, opened, loaded):
    assistant = {"role": "assistant", "content": "hm</think>Yes"}
    messages = [{"role": "user", "content": "<think>"}, assistant, {"role": "user", "content": "<think>"}]
    ids = loaded[name].chat_ids(messages, variables=variables)
    assert opens_thought(ids, loaded[name]) == opened
    assert not opens_thought(loaded[name].chat_ids(messages[:2], variables=variables, add_generation_prompt=False),
                             loaded[name])


def test_published_templates_have_roles_of_their_own(loaded):
    messages = [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]
    assert "tool\nb" in loaded["chatml"].decode(loaded["chatml"].chat_ids(messages))


def test_a_template_s_refusal_reaches_who_asked(loaded):
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call, call]}]
    with pytest.raises(UserError, match="only supports single tool-calls at once!"):
        loaded["llama3"].chat_ids(messages)
