"""Text as it comes: whole characters, and stop texts wherever tokens end."""

from hypothesis import given
from hypothesis import strategies as st

from spoutnik.engine.detokenizer import OutputText
from spoutnik.engine.sampling_params import SamplingParams


def feed(tokenizer, text: str, **params) -> tuple[list[str], str, str | None]:
    """(pieces given out, text, stop text)"""
    stream, pieces, stop = OutputText(tokenizer, SamplingParams(**params)), [], None
    for token in tokenizer.encode(text):
        stop = stream.feed(token)
        if stop is not None:
            break
        pieces.append(stream.take())
    stream.close()
    pieces.append(stream.take())
    return pieces, stream.text, stop


@given(st.text(alphabet="abé 12€日\n", max_size=30))
def test_pieces_join_to_the_text(tokenizer, text):
    pieces, whole, _ = feed(tokenizer, text, stop="zzz")
    assert "".join(pieces) == whole == text and all("\ufffd" not in piece for piece in pieces)


@given(st.text(alphabet="ab1 é", max_size=25),
       st.lists(st.text(alphabet="ab1 é", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_first_stop_text_ends_it_and_nothing_of_it_was_given_out(tokenizer, text, stops):
    pieces, whole, stop = feed(tokenizer, text, stop=stops)
    positions = [text.find(s) for s in stops if s in text]
    assert "".join(pieces) == whole
    if not positions:
        assert (whole, stop) == (text, None)
    else:
        # A token may bring several at once: the earliest of them; what a later token brings is never looked at.
        assert stop in stops and whole == text[:text.find(stop)] and text.startswith(whole + stop)
        assert not any(s in whole for s in stops)


def test_a_stop_text_may_be_kept(tokenizer):
    pieces, whole, stop = feed(tokenizer, "so 12 is it", stop="12", include_stop_str_in_output=True)
    assert (whole, stop) == ("so 12", "12") and "".join(pieces) == whole


def test_before_min_tokens_no_stop_text_is_looked_for(tokenizer):
    text = "1 1 1 1 2"
    count = len(tokenizer.encode("1 1"))
    assert feed(tokenizer, text, stop="1", min_tokens=count + 1)[1] == "1 1 "


def test_half_a_character_at_the_end_is_shown_as_one_mark(tokenizer):
    stream = OutputText(tokenizer, SamplingParams())
    first = tokenizer.encode("€")[:-1]
    for token in first:
        stream.feed(token)
    assert stream.take() == ""
    stream.close()
    assert set(stream.take()) == {"\ufffd"}


def test_special_tokens_are_left_out_unless_asked_for(tokenizer):
    for skip, shown in ((True, "hi"), (False, "hi<think>")):
        stream = OutputText(tokenizer, SamplingParams(skip_special_tokens=skip))
        for token in [*tokenizer.encode("hi"), tokenizer.think_id]:
            stream.feed(token)
        stream.close()
        assert stream.text == shown
