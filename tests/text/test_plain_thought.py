"""Thoughts whose marks are plain text, in tokens of every kind."""

from itertools import pairwise

import plain_marks
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spoutnik.text.plain_thought import PlainThoughtStream
from spoutnik.text.thought import read_reply, thought_stream
from spoutnik.text.thought_format import follows_mark, has_plain_marks, opens_thought

ASKED = [{"role": "user", "content": "What does <think> mean? </think>"}]


@pytest.fixture(scope="module")
def plain():
    return plain_marks.tokenizer()


def stream(tokenizer, ids, thinking, cuts=None, stop=(), cut=False, **more):
    """((thought, answer), tokens of thought). cuts: where the ids are cut into pieces, everywhere by default."""
    parts = PlainThoughtStream(tokenizer, thinking, stop, **more)
    edges = range(len(ids) + 1) if cuts is None else [0, *sorted(min(at, len(ids)) for at in cuts), len(ids)]
    pieces = [parts.feed(ids[a:b]) for a, b in pairwise(edges)] + [parts.close(cut)]
    return tuple("".join(texts) for texts in zip(*pieces)), parts.thought_tokens


def texts(tokenizer, text, thinking, **more):
    return stream(tokenizer, tokenizer.encode(text), thinking, **more)[0]


def test_the_tokenizer_has_what_makes_it_hard(plain):
    assert has_plain_marks(plain) and len(plain.encode("<think>")) > 1
    pieces = [plain.decode([token]) for token in range(plain.vocab_size)]
    assert any(piece.startswith(">") and len(piece) > 1 for piece in pieces)
    assert any(piece.endswith("</") and len(piece) > 2 for piece in pieces)


@pytest.mark.parametrize("text, thinking, thought, answer", [
    ("Hm, 3 < 4.</think>\n\nYes.", True, "Hm, 3 < 4.", "Yes."),
    ("\nHm.\n</think>\n\n    def f():\n        pass\n", True, "Hm.", "    def f():\n        pass\n"),
    ("<think>\nOK.\n</think>\nYes", False, "OK.", "Yes"), (" \n<think>OK</think>Yes", False, "OK", "Yes"),
    ("<think>\n<think>a</ b </thin c</think>b", True, "a</ b </thin c", "b"),
    ("a</think></think>\n</think>b", True, "a", "b"), ("a</think>\n<think>b</think>c", True, "ab", "c"),
    ("The tag <think> opens, </think> ends.", False, "", "The tag <think> opens, </think> ends."),
    ("a</think>It is <think>.", True, "a", "It is <think>."), ("</think>", False, "", "</think>"),
    ("   code", False, "", "   code"), ("\n  code\n", False, "", "\n  code\n"), ("<thing>", False, "", "<thing>"),
    ("hm", True, "hm", ""), ("", True, "", ""), ("", False, "", "")])
def test_where_a_thought_begins_and_ends(text, thinking, thought, answer, plain):
    assert texts(plain, text, thinking) == (thought, answer)


@pytest.mark.parametrize("text, thinking, ended, cut", [
    ("a </thi", True, ("a </thi", ""), ("a", "")), ("x <", True, ("x <", ""), ("x <", "")),
    ("<thi", False, ("", "<thi"), ("", "")), ("<", False, ("", "<"), ("", "<"))])
def test_half_a_mark_is_text_only_where_the_model_ended_with_it(text, thinking, ended, cut, plain):
    assert texts(plain, text, thinking) == ended and texts(plain, text, thinking, cut=True) == cut


@pytest.mark.parametrize("answer, shown", [
    ("So 4.\n</think>\n\n4", "So 4.\n\n\n4"), ("4</think>", "4"), ("</think>4</think>", "4</think>"),
    ("So </think>4, </think>", "So 4, </think>"), ("4 </thi", "4 </thi")])
def test_a_model_may_end_a_thought_that_was_closed_for_it(answer, shown, plain):
    parts = PlainThoughtStream(plain, True)
    parts.feed(plain.encode("Hm.\n\nEnough.</think>\n\n"))
    parts.expects_end = True
    pieces = [parts.feed([token])[1] for token in plain.encode(answer)] + [parts.close()[1]]
    assert "".join(pieces) == shown


spelled = st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "</thi", "nk>", ">", "think", "\n", "\n\n", " ", ".", "é",
                                    "猫", "x", "12", "<|im_end|>"]), max_size=14).map("".join)


@given(text=spelled, thinking=st.booleans(), cuts=st.lists(st.integers(0, 60), max_size=8),
       stop=st.lists(st.sampled_from(["x", "12", "\n", "<th"]), max_size=2), cut=st.booleans())
@example(text="a.</think>\n\nb", thinking=True, cuts=[2], stop=[], cut=False)
def test_any_pieces_give_the_same(text, thinking, cuts, stop, cut, plain):
    ids = plain.encode(text)
    assert stream(plain, ids, thinking, cuts, stop, cut) == stream(plain, ids, thinking, None, stop, cut)


def reference(text, thinking):
    """The rule in plain words, on the whole text."""
    thought, answer, had = "", "", thinking
    while True:
        if thinking:
            while text.lstrip().startswith("<think>"):
                text = text.lstrip().removeprefix("<think>")
            before, end, text = text.partition("</think>")
            thought, thinking = thought + before, not end
            if thinking:
                return thought.strip(), answer
        elif text.lstrip().startswith("<think>"):
            text, thinking, had = text.lstrip().removeprefix("<think>"), True, True
        elif had and text.lstrip().startswith("</think>"):
            text = text.lstrip().removeprefix("</think>")
        else:
            return thought.strip(), text.strip()


@given(text=spelled, thinking=st.booleans())
def test_the_stream_keeps_the_rule(text, thinking, plain):
    shown = texts(plain, text, thinking)
    assert (shown[0], shown[1].strip()) == reference(text, thinking)


@given(text=spelled, thinking=st.booleans())
def test_no_piece_of_a_stream_holds_a_part_of_a_mark_that_counts(text, thinking, plain):
    """All that was shown before the last token is a beginning of what is shown in the end."""
    ids = plain.encode(text)
    whole = stream(plain, ids, thinking)[0]
    parts, shown = PlainThoughtStream(plain, thinking), ("", "")
    for token in ids:
        shown = tuple(map("".join, zip(shown, parts.feed([token]))))
        assert all(end.startswith(part) for part, end in zip(shown, whole))


@given(text=spelled, thinking=st.booleans())
def test_tokens_of_thought_are_those_that_hold_its_text(text, thinking, plain):
    ids = plain.encode(text)
    shown, counted = stream(plain, ids, thinking)
    assert 0 <= counted <= len(ids) and (counted > 0 or not shown[0]) and (thinking or shown[0] or counted <= len(ids) - 3 or
                                                                           counted == 0)


def test_marks_are_not_counted(plain):
    hm = plain.encode("Hm, so 4")
    ids = [*plain.encode("<think>"), *hm, *plain.encode("</think>"), *plain.encode("Yes")]
    assert stream(plain, ids, False) == (("Hm, so 4", "Yes"), len(hm))
    straddling = next(token for token in range(plain.vocab_size) if plain.decode([token]).endswith(".</"))
    rest = plain.encode("think>")
    assert stream(plain, [*hm, straddling, *rest], True) == ((f"Hm, so 4{plain.decode([straddling])[:-2]}", ""), len(hm) + 1)


def test_an_answer_that_is_held_to_a_form_does_not_begin_in_a_mark_s_token(plain):
    parts = PlainThoughtStream(plain, True, structured=True)
    token = next(token for token in range(plain.vocab_size) if plain.decode([token]) == "></")
    assert parts.feed([*plain.encode("a</think"), token, *plain.encode("b")]) == ("a", "b") and parts.overshoot == "</"


def test_nothing_is_read_again_and_again(plain):
    class Counting:
        eos_ids, bpe, byte_ids, marks = plain.eos_ids, plain.bpe, plain.byte_ids, plain.marks
        decoded = 0

        def decode(self, ids, keep_special=False):
            self.decoded += len(ids)
            return plain.decode(ids, keep_special)

    counting, ids = Counting(), plain.encode("x < 3 </ 4 </thi\n ") * 400
    for tail in ([], [plain.bpe.token_to_id("Ģ")] * 4000):  # a byte that is no text, again and again
        counting.decoded = 0
        parts = PlainThoughtStream(counting, True)
        for token in ids + tail:
            parts.feed([token])
        assert counting.decoded < 4 * len(ids) + 160 * len(tail)


# Prompts

def ids_of(template, messages=ASKED, prefill="", **variables):
    tokenizer = plain_marks.tokenizer(template)
    return tokenizer.chat_ids(messages, variables=variables) + tokenizer.encode(prefill), tokenizer


@pytest.mark.parametrize("template, prefill, variables, opened, begins", [
    (plain_marks.OPENING, "", {}, True, True), (plain_marks.OPENING, "First, I ", {}, True, False),
    (plain_marks.OPENING, "", {"enable_thinking": False}, False, True),
    (plain_marks.OPENING, "a\n</think>\n\nThe answer", {}, False, False),
    (plain_marks.CHATML, "", {}, False, False), (plain_marks.CHATML, "<think>\nOK", {}, True, False),
    (plain_marks.ROLES_IN_WORDS, "", {}, False, False), (plain_marks.ROLES_IN_WORDS + "<think>\n", "", {}, True, True)])
def test_what_a_prompt_ends_with(template, prefill, variables, opened, begins):
    ids, tokenizer = ids_of(template, prefill=prefill, **variables)
    assert (opens_thought(ids, tokenizer), follows_mark(ids, tokenizer)) == (opened, begins)


def test_a_thought_that_the_prompt_begins_goes_on_as_it_is():
    ids, tokenizer = ids_of(plain_marks.OPENING, prefill="First, I")
    parts = thought_stream(tokenizer, ids, True)
    assert parts.feed(tokenizer.encode(" add 3.</think>\n\n  Yes\n")) == (" add 3.", "  Yes\n")


@pytest.mark.parametrize("text, template, thought, answer, well_formed", [
    ("Hm.\n</think>\n\nYes", plain_marks.OPENING, "Hm.", "Yes", True), ("Hm.", plain_marks.OPENING, "Hm.", "", False),
    ("<think>Hm.</think>Yes", plain_marks.CHATML, "Hm.", "Yes", True), ("Yes", plain_marks.CHATML, "", "Yes", True),
    ("<think>Hm.</think>", plain_marks.CHATML, "Hm.", "", False), ("a</think>b", plain_marks.CHATML, "", "a</think>b", False),
    ("a</think>b</think>c", plain_marks.OPENING, "a", "b</think>c", False)])
def test_training_and_evaluation_read_the_same(text, template, thought, answer, well_formed):
    tokenizer = plain_marks.tokenizer(template)
    reply = read_reply(tokenizer.encode(text), tokenizer, True)
    assert (reply.thought, reply.answer, reply.well_formed) == (thought, answer, well_formed)
