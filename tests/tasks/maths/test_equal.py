"""`equal`: lists of pairs, properties, other languages, order, units."""

import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maths_pairs import DIFFERENT, PIECES, SAME, SAME_IN

from spoutnik.tasks.maths import equal, statistics

INTEGERS = st.integers(-10**9, 10**9)
ATOMS = st.one_of(st.integers(0, 999).map(str), st.sampled_from(["x", "y", r"\pi", r"\sqrt{2}", r"\frac{3}{7}", "0.25", "n"]))
EXPRESSIONS = st.recursive(ATOMS, lambda inner: st.one_of(
    st.tuples(inner, st.sampled_from(["+", "-", r"\cdot "]), inner).map("".join),
    st.tuples(inner, inner).map(lambda two: rf"\frac{{{two[0]}}}{{{two[1]}}}"),
    inner.map(lambda one: f"({one})^2"), inner.map(lambda one: rf"\sqrt{{{one}}}")), max_leaves=6)
ANSWERS = st.one_of(EXPRESSIONS, st.lists(EXPRESSIONS, min_size=2, max_size=3).map(lambda parts: f"({', '.join(parts)})"),
                    st.lists(EXPRESSIONS, min_size=2, max_size=3).map(", ".join))


@pytest.mark.parametrize("gold, answer", SAME)
def test_the_same_answers(gold, answer):
    assert equal(gold, answer) and equal(answer, gold)


@pytest.mark.parametrize("gold, answer", DIFFERENT)
def test_different_answers(gold, answer):
    assert not equal(gold, answer) and not equal(answer, gold)


@pytest.mark.parametrize("gold, answer, language", SAME_IN)
def test_the_same_answers_in_other_languages(gold, answer, language):
    assert equal(gold, answer, language) and equal(answer, gold, language)


@pytest.mark.parametrize("gold, answer, language", [
    ("1,234", "1234", "fr"), ("3,5", "35", "fr"), ("3,5", "5,3", "de"), ("3.5", "3,5", "en"), ("3,5", "3.5", "xx"),
    ("12,5", "125", "es")])
def test_different_answers_in_other_languages(gold, answer, language):
    assert not equal(gold, answer, language) and not equal(answer, gold, language)


@pytest.mark.parametrize("gold, answer", [("1,2", "2,1"), ("A, B", "B, A"), (r"1 \text{ and } 2", "2, 1"), ("2;3", "3;2")])
def test_the_order_of_a_bare_list_counts_where_it_is_asked_for(gold, answer):
    assert equal(gold, answer) and not equal(gold, answer, ordered=True)
    assert equal(gold, gold + ".", ordered=True)


def test_a_set_has_no_order_in_any_case():
    assert equal(r"\{1,2\}", r"\{2,1\}", ordered=True)


@pytest.mark.parametrize("equation, right_side", [("y=2x+1", "2x+1"), ("f(x)=x^2", "x^2"), ("y=x", "x"),
                                                  (r"y=\frac{1}{x}", r"\frac1x")])
def test_an_answer_may_name_what_it_says_and_a_gold_equation_is_more_than_its_right_side(equation, right_side):
    assert not equal(equation, right_side)
    assert equal(right_side, equation)


def test_a_percentage_is_its_value_and_not_its_number():
    assert equal(r"12\%", "0.12") and equal(r"12\%", "12 percent") and equal(r"12\%", r"\frac{3}{25}")
    assert not equal("12", r"12\%") and not equal(r"12\%", "12")


@pytest.mark.parametrize("wrong", [None, 5, b"5", ["5"], 5.0, object()])
def test_what_is_no_string_is_never_equal(wrong):
    assert equal("5", wrong) is False and equal(wrong, "5") is False and equal(wrong, wrong) is False


class AlwaysEqual(str):
    """A string that says of itself that it equals everything."""

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


def test_an_object_equal_to_everything_is_judged_by_its_letters():
    assert not equal("5", AlwaysEqual("6")) and not equal(AlwaysEqual("6"), "5")


@given(ANSWERS)
@settings(max_examples=80, deadline=None)
def test_every_answer_equals_itself_dressed(answer):
    assert equal(answer, answer)
    assert equal(answer, rf"\boxed{{ {answer}. }}") and equal(answer, f"$\\left. {answer}$".replace(r"\left. ", ""))


@given(ANSWERS, ANSWERS)
@settings(max_examples=80, deadline=None)
def test_equality_is_symmetric(one, other):
    assert equal(one, other) == equal(other, one)


@given(PIECES, PIECES, st.sampled_from(["en", "fr", "de", "", "zz-ZZ"]))
@settings(max_examples=200, deadline=None)
def test_no_string_raises(one, other, language):
    assert equal(one, other, language) in (True, False) and equal(one, "5") in (True, False)


@given(INTEGERS)
@settings(max_examples=80, deadline=None)
def test_an_integer_equals_its_dressings_and_not_its_neighbor(n):
    grouped = f"{n:,}"
    dressings = [f"{n}.", f"{n}.0", f"${n}$", grouped, grouped.replace(",", r"\,"), grouped.replace(",", "{,}"),
                 grouped.replace(",", " "),
                 grouped.replace(",", r",\!"), f"{n} apples", rf"{n}\text{{ cm}}", f"x = {n}", rf"\frac{{{2 * n}}}{{2}}",
                 f"{n + 1} - 1",
                 f"{n} €", rf"\boxed{{{n}}}", rf"\text{{{n}}}", f"{n}e0", str(n).replace("-", "−")]
    for dressed in dressings:
        assert equal(str(n), dressed), dressed
        assert not equal(str(n + 1), dressed), dressed
    assert equal(str(n), grouped.replace(",", " "), "fr") and equal(str(n), grouped.replace(",", "."), "de")


@given(st.integers(-10**6, 10**6), st.integers(1, 10**4), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_rational_numbers_are_compared_exactly(top, bottom, places):
    value = Fraction(top, bottom)
    assert equal(f"{top}/{bottom}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}")
    assert not equal(f"{top}/{bottom}", rf"\frac{{{top}}}{{{bottom}}} + 10^{{-{places}}}")


def test_threads_may_ask_at_once():
    questions = [(rf"\sin({n}x)", rf"\sin({n}x + 2\pi)") for n in range(1, 5)] + [(str(n), f"{n}.0") for n in range(20)]
    verdicts: list[bool] = []
    threads = [threading.Thread(target=lambda: verdicts.extend(equal(*question) for question in questions)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 4 * len(questions)


def test_the_exact_rules_ask_nobody():
    before = statistics().asked
    for gold, answer in SAME + DIFFERENT[:60]:
        equal(gold, answer)
    assert statistics().asked == before
