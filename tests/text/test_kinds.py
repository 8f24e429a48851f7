"""Tokenizers of every published kind, against transformers: ids, texts at a join, streams, what users type."""

import pytest
import tokenizer_kinds
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from spoutnik.engine.logits_processors import BadWordsProcessor
from spoutnik.errors import UserError
from spoutnik.text.detokenization import IncrementalDetokenizer
from spoutnik.text.thought import thought_stream
from spoutnik.text.tokenizer import Tokenizer

plain = st.text(st.characters(exclude_categories=("Cs",)), max_size=20).filter(lambda text: "<" not in text)
spelled = st.lists(st.one_of(st.sampled_from(["</s>", "<s>", "<unk>", " ", "a", "</", "the time"]),
                             st.text("ab é\n猫", max_size=3)), max_size=6).map("".join)


@pytest.fixture(scope="module", params=list(tokenizer_kinds.KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def both(kind, tmp_path_factory):
    folder = tokenizer_kinds.write(kind, tmp_path_factory.mktemp(kind))
    return Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)


@given(text=plain)
@example(text="Once upon a time")
@example(text=" two  spaces ")
@example(text="naïve 猫\n\n")
def test_a_prompt_has_transformers_ids(text, both):
    ours, theirs = both
    assert ours.prompt_ids(text)[0] == theirs(text)["input_ids"]


@given(text=spelled)
@example(text="Once</s> upon<s> a")
def test_a_rendered_text_has_transformers_ids(text, both):
    ours, theirs = both
    assert ours.encode_rendered(text) == theirs(text, add_special_tokens=False)["input_ids"]


@given(before=st.lists(st.integers(0, 500), max_size=8), after=st.lists(st.integers(0, 500), max_size=12), keep=st.booleans())
def test_a_continuation_s_text_is_what_it_adds_to_the_whole(before, after, keep, both):
    ours, theirs = both
    before, after = ([i % ours.vocab_size for i in ids] for ids in (before, after))
    start, whole = (theirs.decode(ids, skip_special_tokens=not keep) for ids in (before, before + after))
    if not whole.startswith(start) or start.endswith("\ufffd"):
        return  # bytes across the join
    assert ours.decode_after(before, after, keep) == whole[len(start):]
    stream = IncrementalDetokenizer(ours, keep, before)
    assert "".join([*(stream.feed([i]) for i in after), stream.close()]) == whole[len(start):]


@given(before=plain.filter(bool), after=plain)
@example(before="Once upon a", after=" time")
@example(before="a", after="b")
def test_text_that_goes_on_is_the_text_of_both(before, after, both, kind):
    """Unigram has no bytes for letters that it does not know, and one space of several."""
    ours, _ = both
    if kind == "unigram":
        before, after = "the time", " a cat"
    ids = ours.encode(before) + ours.encode(after, continues=True)
    assert ours.decode(ids) == ours.decode(ours.encode(before + after))


@given(text=spelled)
@example(text="Once </s>upon")
@example(text="</s>")
def test_typed_special_tokens_are_plain_text_without_spaces_inside(text, both, kind):
    ours, _ = both
    ids = ours.encode(text)
    assert not {ours.bpe.token_to_id(token) for token in ("<s>", "</s>")} & set(ids)
    if kind != "unigram":
        same = ours.encode(text.replace("<", "≤"))  # spells no special token
        assert ours.decode(ids, keep_special=True) == ours.decode(same, keep_special=True).replace("≤", "<")


@given(contents=st.lists(plain, min_size=1, max_size=3))
def test_a_conversation_has_transformers_ids(contents, both):
    ours, theirs = both
    messages = [{"role": role, "content": text} for role, text in zip(["user", "assistant", "user"], contents)]
    assert ours.chat_ids(messages) == theirs.apply_chat_template(messages)["input_ids"]


def test_what_a_user_types_in_a_conversation_has_no_spaces_inside(both, kind):
    ours, _ = both
    ids = ours.chat_ids([{"role": "user", "content": "the </s>time"}])
    shown = ours.decode(ids, keep_special=True)
    assert "the </s>time [" in shown and ids.count(ours.eos_id) == 0 and ids.count(ours.bos_id) == 1


@pytest.mark.parametrize("text", ["\ud800", "a" * 3000 + "\udfff b"])
def test_half_a_character_is_a_sentence(text, both):
    for encode in (both[0].encode, both[0].encode_rendered, both[0].prompt_ids, lambda t: both[0].encode(t, continues=True)):
        with pytest.raises(UserError, match="holds half a character"):
            encode(text)


def test_a_reply_that_goes_on_keeps_the_space_and_one_that_begins_has_none(both, kind):
    ours, _ = both
    before, after = ours.encode("Once upon a"), ours.encode(" time there", continues=True)
    asked = ours.chat_ids([{"role": "user", "content": "a"}])
    for prompt, continues, text in ((before, True, " time there"), (asked, False, None)):
        stream = thought_stream(ours, prompt, False, continues=continues)
        reply = "".join("".join(stream.feed([token])) for token in after) + "".join(stream.close())
        assert reply == text if continues else reply.strip() == "time there"


def test_words_that_must_not_come_are_those_of_the_middle_of_a_text(both, kind):
    if kind == "unigram":
        return
    ours, _ = both
    processor = BadWordsProcessor.of([" time"], ours)
    spaced, bare = (ours.encode(text, continues=True) for text in (" time", "time"))
    assert processor.sequences == [(ids[:-1], ids[-1]) for ids in (bare, spaced)]
