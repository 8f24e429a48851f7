"""Votes over answers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.generation import voting
from spoutnik.generation.delta import CollectedReply
from spoutnik.generation.final_answer import final_answer, plain_number
from spoutnik.generation.voting import Agreement, tally, tally_replies
from spoutnik.tasks import maths

PROSE = "We look at each of the options, one after the other, and find what is said of it, until one is left.\n"


@pytest.mark.parametrize("answer, final", [
    ("42", "42"), ("The answer is 42.", "42"), ("**1,234**", "1234"), ("  42\n", "42"), ("#### 42", "42"),
    (r"Thus $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"), (r"\boxed{x = 5}", "5"), (r"\boxed{\text{(B)}}", "b"),
    (r"\boxed{1} and then \boxed{{2}}", "{2}"), (r"so \boxed{7} and \boxed{unfinished", "7"), (r"$\fbox{\$1{,}000}$", "1000"),
    ("Paris", "paris"), ("The answer is Paris.", "paris"), ("La réponse est Paris !", "paris"),
    ("It's the Louvre.", "it's the louvre"),
    ("The Louvre", "louvre"), ("(8 + 5) + 3", "(8+5)+3"), ("", ""), (" \n", ""), ("$$", ""),
    ("17 + 26 = 43", "17+26=43"), ("The sum of 17 and 26 is 43.", "43"), ("17 and 26 make 43 in all.", "43"),
    ("x = 3 or 5", "3 or 5"),
    ("La somme de 17 et 26 est 43.", "43"), ("It takes 3 hours.", "3"), ("x = 3 or x = 5", "x=3 or x=5"),
    ("B", "b"), ("(b)", "(b)"), ("B)", "b"), ("**B**", "b"), ("B. Paris", "b"), ("The answer is (C).", "c"), ("Option D", "d"),
    ("La réponse est B.", "b"), ("The answer is A train.", "train"), ("Answer: A", "a"), ("I", "i"),
    ("Yes", "yes"), ("Yes, it is.", "yes"), ("Oui.", "oui"), ("No one", "no one"),
    ("3,5", "3.5"), ("1 234,5", "1234.5"), ("1\u202f234", "1234"), ("\u22127", "-7"), ("+7", "7"), ("0,125", "0.125"),
    ("12 %", "12%"),
    ("3, 5", "3, 5"), ("3,  5", "3, 5"), ("42 km", "42"), ("42°", "42"),
    ("There are twelve months in a year, and each has at least four weeks; so with thirty days each\nit makes 360 days.",
     "360"),
    (PROSE + "The answer is **B**.", "b"),
    (PROSE + "Réponse : Paris", "paris")])
def test_what_an_answer_comes_to(answer, final):
    assert final_answer(answer) == final


@pytest.mark.parametrize("text, plain", [("1,234,567", "1234567"), ("1,234.50", "1234.50"), ("1.234,5", "1234.5"),
    ("12,34", "12.34"),
                                         ("3/4", "3/4"), ("1,2,3", "1,2,3"), ("1.234", "1.234"), ("-1,5", "-1.5")])
def test_numbers_of_both_languages(text, plain):
    assert plain_number(text) == plain


@pytest.mark.parametrize("one, other, agree", [
    ("1/2", r"\frac{1}{2}", True), ("0.5", "1/2", True), ("3", "4", False), ("paris", "london", False), ("43.0", "43", True),
    ("x^{2}-1", "(x-1)(x+1)", True), ("50%", "0.5", True), ("50%", "50", False), ("5", "50%", False), ("3, 5", "5, 3", True),
    ("(3,5)", "(5,3)", False), ("1/0", "1/0", True),
    ("-3/6", "-0.5", True), (r"-\frac{3}{6}", "-0.5", True)])
def test_mathematics_agrees_by_value(one, other, agree):
    same = Agreement()
    assert same(one, other) == same(other, one) == agree


PARTS = [r"\boxed{", "{", "}", "1", "1,", "2.", " ", "/", "%", "B", "is ", "=", "\n", "answer: ", "#### ", "-", "\u202f", "or ",
         "\\text{", "x", "or 3 "]


@given(st.lists(st.sampled_from(PARTS), max_size=200).map("".join), st.integers(1, 200))
def test_what_anything_comes_to_is_found_in_no_time(text, times):
    began = time.process_time()
    final = final_answer(text * times)
    assert isinstance(final, str) and time.process_time() - began < 2.0
    assert final_answer(f" {text}\n") == final_answer(text)


@pytest.mark.parametrize("text", [r"\boxed{" * 50000, "1" * 100000, "1 " * 50000, "1," * 50000, "answer is " * 20000,
                                  "{" * 100000, "B) " * 40000, r"\text{" * 30000, " " * 100000 + "x", "1" + " " * 100000])
def test_long_answers_are_read_in_no_time(text):
    began = time.process_time()
    final_answer(text)
    assert time.process_time() - began < 1.0


def test_what_takes_for_ever_to_compute_is_an_answer_like_others():
    verdict = tally(["0.5", "99^{99*99*99*99}", "1/2"])
    assert (verdict.index, verdict.agreement) == (0, 2 / 3)


def test_patience_has_an_end(monkeypatch):
    comparisons = []
    monkeypatch.setattr("spoutnik.generation.voting.equal", lambda *texts: comparisons.append(texts) or False)
    seconds = iter(range(0, 1000, 5))
    agree = Agreement(lambda: next(seconds))
    assert not any(agree("x", f"y_{number}") for number in range(50)) and len(comparisons) == voting.MAX_SECONDS // 5
    assert agree("x", "x")


def test_votes_are_counted_by_the_function_that_grades():
    assert voting.equal is maths.equal


def test_the_majority_speaks():
    verdict = tally(["41", "The answer is 42.", "42", "", r"\boxed{42}", "41"])
    assert (verdict.index, verdict.agreement, verdict.runners_up, verdict.votes) == (1, 0.5, [("41", 2)], 5)


def test_the_first_of_equals_and_nobody():
    assert tally(["b", "a", "a", "b"]).index == 0
    assert tally(["", ""]).agreement == 0.0


def replies(*given):
    return [CollectedReply(thought="hm", answer=answer, finish_reason=reason) for answer, reason in given]


def test_only_finished_answers_vote():
    """Two that were cut off say the same; one came to its end."""
    voters = replies(("12 12 12", "length"), ("42", "stop"), ("12 12 12", "length"))
    result = tally_replies(voters)
    assert (result.index, result.agreement, result.runners_up, result.votes) == (1, 1 / 3, [], 1)
    for reason in ("length", "abort", "error", ""):
        assert tally_replies(replies(("7", reason), ("7", reason), ("8", "stop"))).index == 2
    assert tally_replies(replies(("7", "stop"), ("", "stop"), (" \n", "stop"), ("8", "stop"), ("8", "stop"))).index == 3
    assert not any(reply.warnings for reply in voters)


def test_where_nothing_finished_that_is_said():
    voters = replies(("", "length"), ("half an", "length"), ("half an", "length"))
    result = tally_replies(voters)
    assert (result.index, result.agreement, result.votes) == (1, 0.0, 0)
    assert [str(warning) for warning in voters[1].warnings][0].startswith("none of the 3 thoughts came to a finished answer")
    assert tally_replies(replies(("", "abort"))).index == 0


def test_a_tie_is_said():
    voters = replies(("7", "stop"), ("8", "stop"), ("8", "stop"), ("7", "stop"), ("9", "stop"))
    assert tally_replies(voters).index == 0
    assert [str(warning) for warning in voters[0].warnings] == [
        "the vote is a tie: several answers have 2 each. This is the one that came first"]
    for won in (replies(("7", "stop"), ("7", "stop"), ("8", "stop")), replies(("7", "stop"), ("7", "stop"))):
        tally_replies(won)
        assert not any(reply.warnings for reply in won)
