"""Text as it comes, and texts to stop at."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from spoutnik.text.detokenization import IncrementalDetokenizer, StopTextBuffer


@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=30), cuts=st.lists(st.integers(0, 60), max_size=8))
@example(text="é猫 👩‍👩‍👧 12\ufffd", cuts=[1, 2, 3])
def test_pieces_add_up_to_the_whole(text, cuts, tokenizer):
    ids, stream = tokenizer.encode(text), IncrementalDetokenizer(tokenizer)
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    assert "".join(stream.feed(ids[a:b]) for a, b in pairwise(edges)) + stream.close() == text


def stopped(text, stops, cuts):
    stream = StopTextBuffer(stops)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return "".join(stream.feed(text[a:b]) for a, b in pairwise(edges)) + stream.close(), stream.stopped


@given(text=st.text("ab ", max_size=12), stops=st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=3),
       cuts=st.lists(st.integers(0, 12), max_size=6))
@example(text="ab b", stops=["ab b", "b"], cuts=[2])
def test_the_stop_text_that_is_complete_first_ends_the_text_wherever_it_is_cut(text, stops, cuts):
    shown, stop = stopped(text, stops, cuts)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stops)]
    if not ends:
        assert (shown, stop) == (text, None)
    else:
        assert stop in stops and shown + stop == text[:ends[0]]
        assert len(stop) == max(len(s) for s in stops if text[:ends[0]].endswith(s))


def test_a_stop_text_may_be_passed_on_and_counts_only_where_it_may_end():
    stream = StopTextBuffer(["12", "2"], include_stop=True)
    assert stream.feed("a12", search=False) == "a12" and stream.feed("b1", search=False) == "b"
    assert stream.feed("2c") == "12" and stream.stopped == "12"
    assert stream.feed("d") == stream.close() == ""
