"""Text to ids and back, and the border between what a user types and what the format means."""

import json
from pathlib import Path

import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, models
from tokenizers import Tokenizer as BPE
from transformers import AutoTokenizer

import spoutnik
from spoutnik.errors import RunError, UserError
from spoutnik.text.tokenizer import BOS, END_THINK, EOS, SPECIAL_TOKENS, THINK, USER, Tokenizer

anything = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
pieces = st.lists(st.one_of(st.sampled_from([*SPECIAL_TOKENS, "<", "think>", "</", "<｜", "｜>", "<<think>>"]),
                            st.text(st.characters(exclude_categories=("Cs",)), max_size=4)), max_size=8)
spelled = pieces.map("".join)
harmless = anything.filter(lambda text: not any(token in text for token in SPECIAL_TOKENS))


@given(text=st.one_of(anything, spelled))
@example(text="naïve — 猫 👩‍👩‍👧 \r\n\t \x00 \ufffd\U0010ffff")
@example(text="   12  345 ")
def test_any_text_comes_back(text, tokenizer):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(number=st.integers(0, 10 ** 12), before=st.sampled_from(["", " ", "x", "= "]))
def test_digits_are_read_one_by_one(number, before, tokenizer):
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(f"{before}{number}")]
    assert [p.strip() for p in pieces if p.strip()[-1:].isdigit()] == list(str(number))


def test_the_space_before_a_number_stays_with_its_first_digit(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer.encode(" 42 17")] == [" 4", "2", " 1", "7"]


def test_special_tokens_have_the_first_six_ids_and_v3_s_bos_and_eos(tokenizer):
    ids = [tokenizer.bos_id, tokenizer.eos_id, tokenizer.user_id, tokenizer.assistant_id, tokenizer.think_id,
           tokenizer.end_think_id]
    assert ids == [0, 1, 2, 3, 4, 5]
    assert tokenizer.decode(ids) == "" and tokenizer.decode(ids, keep_special=True) == "".join(SPECIAL_TOKENS)


@given(text=spelled)
@example(text="<think></think>")
@example(text=BOS + BOS)
@example(text="<<think>think>")
def test_a_typed_special_token_is_never_special(text, tokenizer):
    assert not set(tokenizer.encode(text)) & set(range(6))


@given(contents=st.lists(spelled, min_size=1, max_size=4))
@example(contents=["\ue0001\ue001", "\ue0000\ue001"])
def test_a_conversation_s_special_ids_are_those_of_its_frame_whatever_is_typed(contents, tokenizer):
    roles = ["system", "user", "user", "user"]
    messages = [{"role": role, "content": c} for role, c in zip(roles, contents, strict=False)]
    special = [i for i in tokenizer.chat_ids(messages) if i < 6]
    assert special == [0, *[2] * (len(messages) - 1), 3, 4]
    text = tokenizer.decode(tokenizer.chat_ids(messages))
    assert text == "".join(contents) + "\n"


roles = st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=4)


@given(roles=roles, system=st.booleans(), data=st.data())
def test_chat_ids_are_the_encoding_of_the_rendered_conversation(roles, system, data, tokenizer):
    roles = ["system"] * system + roles
    messages = [{"role": role, "content": data.draw(harmless)} for role in roles]
    whole = tokenizer.bpe.encode(tokenizer.render(messages), add_special_tokens=False)
    assert tokenizer.chat_ids(messages) == whole.ids


def test_an_assistant_s_leading_space_stays_where_the_template_keeps_it(tokenizer):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "  b"}]
    assert tokenizer.decode(tokenizer.chat_ids(messages), True) == tokenizer.render(messages)


def test_past_thoughts_are_dropped(tokenizer):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hmm</think>\n\nhello"},
                {"role": "user", "content": "again"}]
    assert tokenizer.render(messages) == (
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>hello<｜end▁of▁sentence｜><｜User｜>again<｜Assistant｜><think>\n")
    assert "hmm" not in tokenizer.decode(tokenizer.chat_ids(messages))


def test_without_generation_prompt_nothing_is_opened(tokenizer):
    text = tokenizer.render([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}], False)
    assert text == "<｜begin▁of▁sentence｜>Be kind.<｜User｜>hi"


def test_prompt_and_completion_together_are_the_rendered_conversation(tokenizer):
    prompt = tokenizer.chat_ids([{"role": "user", "content": "2 + 2?"}])
    whole = prompt + tiny.completion_ids(tokenizer, "It is 4.", "4")
    assert tokenizer.decode(whole, keep_special=True) == (
        f"{BOS}{USER}2 + 2?<｜Assistant｜>{THINK}\nIt is 4.\n{END_THINK}\n\n4{EOS}")


@given(contents=st.lists(harmless, min_size=1, max_size=3))
def test_transformers_renders_and_encodes_the_saved_folder_alike(contents, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "tokenizer"
    if not folder.exists():
        tokenizer.save(folder)
        transformers_tokenizer[0] = AutoTokenizer.from_pretrained(folder)
    theirs = transformers_tokenizer[0]
    messages = [{"role": role, "content": c}
                for role, c in zip(["user", "assistant", "user"], contents, strict=False)]
    for prompt in (True, False):
        assert theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt) \
            == tokenizer.render(messages, prompt)
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids == tokenizer.bpe.encode(tokenizer.render(messages), add_special_tokens=False).ids


transformers_tokenizer = [None]


def test_transformers_knows_which_token_ends_a_sentence(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert theirs.decode(tokenizer.encode("it 's 4 .")) == "it 's 4 ."


def test_a_saved_tokenizer_comes_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.bpe.to_str() == tokenizer.bpe.to_str() and loaded.chat_template == tokenizer.chat_template
    assert loaded.vocab_size == tokenizer.vocab_size == 300


def test_training_twice_gives_the_same_tokenizer():
    texts = ["the cat sat on the mat 12", "le chat dort 34"] * 5
    assert Tokenizer.train(texts, 280).bpe.to_str() == Tokenizer.train(texts, 280).bpe.to_str()


def test_a_missing_tokenizer_is_named(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(RunError, match=r"tokenizer\.json: not found\. The checkpoint is incomplete"):
        Tokenizer.load(tmp_path)


def test_the_mark_of_an_editor_before_the_file_is_no_damage(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Tokenizer.load(tmp_path).encode("a 1") == tokenizer.encode("a 1")


def test_without_a_template_a_base_model_still_reads_and_writes(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    loaded = Tokenizer.load(tmp_path)
    assert loaded.chat_template is None and loaded.decode(loaded.encode("a 1")) == "a 1"
    with pytest.raises(UserError, match=r"tokenizer_config\.json: gives no chat template"):
        loaded.chat_ids([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("role", ["tool", "User", "<think>"])
def test_our_template_passes_over_no_role_in_silence(tokenizer, role):
    with pytest.raises(UserError, match="a message is of the system, the user or the assistant"):
        tokenizer.chat_ids([{"role": role, "content": "hi"}])


@pytest.mark.parametrize("name", ["base", "student_base"])
def test_a_shipped_tokenizer_loaded_and_saved_has_the_same_bytes(name, tmp_path):
    shipped, = (Path(spoutnik.__file__).parent / "prebuilt").glob(f"{name}-*")
    Tokenizer.load(shipped).save(tmp_path)
    for file in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        assert (tmp_path / file).read_bytes() == (shipped / file).read_bytes()


def test_our_models_texts_begin_as_their_documents_did_also_where_older_files_do_not_say_so(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.start_ids + tokenizer.encode("a 12") == theirs.encode("a 12") and tokenizer.start_ids == [tokenizer.bos_id]
    for shipped in (Path(spoutnik.__file__).parent / "prebuilt").glob("**/tokenizer.json"):
        assert Tokenizer.load(shipped.parent).start_ids == [0]


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"model": {"type": "BPE"}})])
def test_a_file_that_is_no_tokenizer_is_named(tokenizer, tmp_path, text):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(RunError, match=r"tokenizer\.json: is not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_special_token_that_the_vocabulary_lacks_is_named(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    other = BPE(models.BPE())
    other.add_special_tokens([AddedToken(BOS)])
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(RunError, match=f"tokenizer_config.json: eos_token = '{EOS}' is not in the vocabulary"):
        Tokenizer.load(tmp_path)
