"""Where the thought ends: on whole replies and on streams."""

from itertools import pairwise

import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st

from spoutnik.text.thought import ThoughtStream, read_reply, thought_stream
from spoutnik.text.thought_format import follows_mark, opens_thought
from spoutnik.text.tokenizer import Tokenizer

THINK_ID, END = 4, 5


def read(tokenizer, *parts, finished=True):
    ids = [i for part in parts for i in (tokenizer.encode(part) if isinstance(part, str) else [part])]
    return read_reply(ids, tokenizer, finished)


def test_a_whole_reply_is_thought_then_answer(tokenizer):
    reply = read(tokenizer, "so 4\n", END, "\n\nIt is 4.")
    assert (reply.thought, reply.answer, reply.well_formed) == ("so 4", "It is 4.", True)
    assert reply.thought_tokens == len(tokenizer.encode("so 4\n"))


def test_a_thought_that_never_ends_leaves_no_answer(tokenizer):
    reply = read(tokenizer, "the answer is 4")
    assert (reply.thought, reply.answer, reply.well_formed) == ("the answer is 4", "", False)


def test_two_end_marks_are_ill_formed(tokenizer):
    reply = read(tokenizer, "a", END, "b", END, "c")
    assert not reply.well_formed and reply.thought == "a"


@pytest.mark.parametrize("answer", ["", "\n\n", " "])
def test_an_empty_answer_is_ill_formed(tokenizer, answer):
    assert not read(tokenizer, "a", END, answer).well_formed


def test_an_unfinished_sentence_is_ill_formed(tokenizer):
    assert not read(tokenizer, "a", END, "b", finished=False).well_formed


@pytest.mark.parametrize("stray", [0, 2, 3, 4])
def test_a_stray_special_token_is_ill_formed(tokenizer, stray):
    assert not read(tokenizer, "a", END, "b", stray, "c").well_formed
    assert not read(tokenizer, "a", stray, END, "b").well_formed


def test_an_end_mark_typed_letter_by_letter_ends_nothing(tokenizer):
    reply = read(tokenizer, "a</think>b")
    assert not reply.well_formed and reply.thought == "a</think>b"


def test_no_tokens_at_all_are_ill_formed(tokenizer):
    reply = read_reply([], tokenizer, True)
    assert (reply.thought, reply.answer, reply.well_formed, reply.thought_tokens) == ("", "", False, 0)


def test_what_fine_tuning_teaches_is_well_formed(tokenizer):
    reply = read_reply(tiny.completion_ids(tokenizer, "7 + 5 is 12.", "12")[:-1], tokenizer, True)
    assert (reply.thought, reply.answer, reply.well_formed) == ("7 + 5 is 12.", "12", True)


def test_the_empty_thought_that_general_traces_teach_is_well_formed(tokenizer):
    assert read_reply(tiny.completion_ids(tokenizer, "", "Hello!")[:-1], tokenizer, True).well_formed


# Every byte is a token of its own for characters BPE never saw, so these streams break inside characters.
text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufffd"), max_size=20)


def stream(tokenizer, ids, thinking=True, cuts=None, stop=()):
    """cuts: where the ids are cut into pieces, everywhere by default."""
    parts = ThoughtStream(tokenizer, thinking, stop)
    edges = range(len(ids) + 1) if cuts is None else [0, *sorted(cuts), len(ids)]
    pieces = [parts.feed(ids[a:b]) for a, b in pairwise(edges)] + [parts.close()]
    return tuple("".join(texts) for texts in zip(*pieces))


@given(thought=text, answer=text)
@example(thought="é猫", answer="👩‍👩‍👧 12")
@example(thought=" \n a", answer="")
def test_a_stream_shows_what_the_whole_reply_says(thought, answer, tokenizer):
    ids = tiny.completion_ids(tokenizer, thought, answer)[:-1]
    reply = read_reply(ids, tokenizer, True)
    shown = stream(tokenizer, ids)
    assert shown == (reply.thought, answer[answer[:len(answer) - len(answer.lstrip())].rfind("\n") + 1:])
    assert reply.thought == thought.strip() and reply.answer == answer.strip()


def pieces(draw_from) -> st.SearchStrategy:
    """(ids, where they are cut)"""
    return st.lists(draw_from, max_size=25).flatmap(
        lambda ids: st.tuples(st.just(ids), st.lists(st.integers(0, len(ids)), max_size=8)))


HALVES = [tiny.tokenizer().encode(character)[0] for character in "éж猫👩"]  # tokens that begin a character and end none
marked = st.one_of(st.sampled_from([THINK_ID, END]), st.sampled_from(HALVES), st.sampled_from(tiny.tokenizer().encode(" \n\t")),
                   st.integers(0, 299))


@given(ids_and_cuts=pieces(marked), thinking=st.booleans(), stop=st.lists(st.text("ab é", min_size=1, max_size=3), max_size=2))
@example(ids_and_cuts=([70, THINK_ID, 71, END, 72], [1, 4]), thinking=False, stop=[])
@example(ids_and_cuts=([*tiny.tokenizer().encode("\t"), HALVES[2], THINK_ID, END, 72], [1]), thinking=False, stop=[])
def test_any_pieces_of_any_tokens_give_the_same_two_texts(ids_and_cuts, thinking, stop, tokenizer):
    ids, cuts = ids_and_cuts
    assert stream(tokenizer, ids, thinking, cuts, stop) == stream(tokenizer, ids, thinking, (), stop)


@given(thought=text, answer=text)
def test_no_piece_of_a_stream_holds_half_a_character(thought, answer, tokenizer):
    parts = ThoughtStream(tokenizer)
    assert not any("\ufffd" in "".join(parts.feed([token])) for token in tiny.completion_ids(tokenizer, thought, answer)[:-1])


# A prompt that left the thought unopened; a vocabulary without marks of thought

def read_closed(tokenizer, *parts):
    ids = [i for part in parts for i in (tokenizer.encode(part) if isinstance(part, str) else [part])]
    return read_reply(ids, tokenizer, True, thinking=False), stream(tokenizer, ids, thinking=False)


def test_a_reply_after_an_unopened_thought_is_answer(tokenizer):
    reply, shown = read_closed(tokenizer, " It is 4.")
    assert (reply.thought, reply.answer, reply.well_formed, reply.thought_tokens) == ("", "It is 4.", True, 0)
    assert shown == ("", " It is 4.")


def test_a_model_may_open_the_thought_itself(tokenizer):
    reply, shown = read_closed(tokenizer, THINK_ID, "\nso 4\n", END, "\n\nIt is 4.")
    assert (reply.thought, reply.answer, reply.well_formed) == ("so 4", "It is 4.", True)
    assert reply.thought_tokens == len(tokenizer.encode("\nso 4\n")) and shown == ("so 4", "It is 4.")


@pytest.mark.parametrize("parts", [("a", THINK_ID, "b", END, "c"), ("a", END, "b"), (THINK_ID, "a"), (THINK_ID, "a", END),
                                   (THINK_ID, THINK_ID, "a", END, "b"), (THINK_ID, "a", END, "b", END)])
def test_marks_of_thought_elsewhere_are_ill_formed(tokenizer, parts):
    assert not read_closed(tokenizer, *parts)[0].well_formed


@given(ids=st.lists(marked, max_size=25), thinking=st.booleans())
@example(ids=[70, THINK_ID, 71, END, 72], thinking=False)
def test_a_stream_of_arbitrary_tokens_agrees_with_the_whole_reply(ids, thinking, tokenizer):
    reply = read_reply(ids, tokenizer, True, thinking)
    thought, answer = stream(tokenizer, ids, thinking)
    assert (thought, answer.strip()) == (reply.thought, reply.answer)


@pytest.mark.parametrize("thinking", [None, False])
def test_without_tokens_for_the_marks_they_are_read_in_the_text(thinking, checkpoints):
    tokenizer = Tokenizer.load(checkpoints["llama3"][0])
    reply = read_reply(tokenizer.encode("<think>hm</think>Yes"), tokenizer, True, thinking)
    assert (reply.thought, reply.answer, reply.well_formed) == ("hm", "Yes", True)
    reply = read_reply(tokenizer.encode("Yes, <think>."), tokenizer, True, thinking)
    assert (reply.thought, reply.answer) == ("", "Yes, <think>.")


@pytest.mark.parametrize("after, answer", [
    ("\n\n    def f():\n        pass\n", "    def f():\n        pass\n"), ("\n \n\tcode", "\tcode"), ("Yes. ", "Yes. "),
    ("\n\n", "")])
def test_of_an_answer_s_white_space_only_the_lines_around_the_mark_are_left_out(after, answer, tokenizer):
    ids = [*tokenizer.encode("so\n"), END, *tokenizer.encode(after)]
    assert stream(tokenizer, ids) == ("so", answer)
    assert stream(tokenizer, tokenizer.encode(after), thinking=False) == ("", after)


@pytest.mark.parametrize("prompt, begins", [((THINK_ID, "\n"), True), ((THINK_ID, "\nFirst,"), False), ((END, "\n\n"), True),
                                            ((END, "\n\nYes"), False), (("Yes",), False),
                                            ((THINK_ID, "a", 3), False), ((), False)])
def test_what_goes_on_with_a_prompt_s_text_keeps_its_white_space(prompt, begins, tokenizer):
    ids = [i for part in prompt for i in (tokenizer.encode(part) if isinstance(part, str) else [part])]
    assert follows_mark(ids, tokenizer) == begins
    parts = thought_stream(tokenizer, ids, opens_thought(ids, tokenizer))
    new = tokenizer.encode("\n\n  so")
    shown = "".join(map("".join, zip(parts.feed(new), parts.close())))
    assert shown == ("so" if begins and ids[0] == THINK_ID else "  so" if begins else "\n\n  so")


@pytest.mark.parametrize("ids, opened", [([], False), ([0, 2, 9, 3, 4, 9], True), ([0, 4, 9, 5, 9], False),
                                         ([4, 9, 1, 2], False), ([4, 5, 4], True), ([9, 9], False)])
def test_the_last_mark_of_a_prompt_says_whether_it_opens_the_thought(ids, opened, tokenizer):
    assert opens_thought(ids, tokenizer) == opened


def test_a_thought_opened_again_is_not_shown_as_answer(tokenizer):
    ids = [*tokenizer.encode("a"), END, *tokenizer.encode("b "), THINK_ID, *tokenizer.encode("c"), END, *tokenizer.encode("d")]
    assert stream(tokenizer, ids) == ("ac", "b d")


def test_the_answer_ends_at_a_stop_text_and_the_thought_does_not(tokenizer):
    ids = [*tokenizer.encode("one. two"), END, *tokenizer.encode("three. four")]
    parts = ThoughtStream(tokenizer, stop=["fo", ". "])
    assert parts.feed(ids) == ("one. two", "three") and parts.stopped == ". "
    assert parts.feed(tokenizer.encode("five")) == parts.close() == ("", "")


def test_the_empty_line_before_the_answer_is_no_stop_text(tokenizer):
    parts = ThoughtStream(tokenizer, stop=["\n\n"])
    assert parts.feed(tiny.completion_ids(tokenizer, "hm", "one\n\ntwo")[:-1]) == ("hm", "one") and parts.stopped == "\n\n"


def test_the_thought_is_marked_as_such_until_its_end(tokenizer):
    parts = ThoughtStream(tokenizer)
    marks = [(parts.feed([token]), parts.thinking)[1] for token in tiny.completion_ids(tokenizer, "a", "b")[:-1]]
    assert marks == sorted(marks, reverse=True) and marks[0] and not marks[-1]
    assert parts.thought_tokens == marks.count(True)
