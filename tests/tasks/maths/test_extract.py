"""`extract`: boxes, statements, formulas, numbers, nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maths_pairs import COMES_TO, PIECES

from spoutnik.tasks.maths import extract


@pytest.mark.parametrize("text, result", COMES_TO)
def test_what_a_text_comes_to(text, result):
    assert extract(text) == result


@pytest.mark.parametrize("wrong", [None, 5, b"5", ["5"]])
def test_what_is_no_string_comes_to_nothing(wrong):
    assert extract(wrong) is None


@pytest.mark.parametrize("text, result", [
    (r"\boxed{1} \boxed{2} \boxed{", "2"), (r"\boxed{\{1, 2\}}", r"\{1, 2\}"), (r"\boxed{a \boxed{b} c}", "b"),
    (r"\boxed{x} then \fbox{y}", "y"),
    (r"\boxed{\left\{x\right.}", r"\left\{x\right."), ("\\boxed\n{5}", "5"), (r"\boxed{\text{a} and} }", r"\text{a} and")])
def test_the_last_whole_box_counts(text, result):
    assert extract(text) == result


@pytest.mark.parametrize("gold", ["42", r"\frac{1}{2}", "x^2+1", "(1, 2)", r"\{1,2\}", r"5\text{ cm}", r"\$18", "1,2",
                                  r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
                                  "3.5", "-7", r"25\%", "Saturday", r"\text{east}", r"(-\infty, 2]", "204_5", r"1,\!000",
                                  "10,000"])
@pytest.mark.parametrize("sentence", [r"So \boxed{GOLD}.", "The answer is $GOLD$.", "The answer is GOLD.", "**Answer:** GOLD",
                                      "Steps.\n#### GOLD", "GOLD",
                                      "The final answer is: $$GOLD$$", "Réponse : GOLD", "We add them.\n\nAnswer: $GOLD$"])
def test_a_stated_answer_is_read(gold, sentence):
    assert extract(sentence.replace("GOLD", gold)) == gold


@given(PIECES)
@settings(max_examples=150, deadline=None)
def test_no_string_raises(text):
    result = extract(text)
    assert result is None or isinstance(result, str) and result.strip() == result != ""


@given(st.text(max_size=60), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_box_wins_over_whatever_is_before(text, number):
    assert extract(f"{text} \\boxed{{{number}}}") == str(number)


@pytest.mark.parametrize("text", [r"\boxed{" * 20_000, "{" * 100_000, "1" * 100_000, "$" * 50_000, "the answer is " * 5_000,
                                  "\x00" * 10_000,
                                  r"\boxed{" * 5_000 + "5" + "}" * 5_000, "1 " * 200_000])
def test_long_texts_end(text):
    assert extract(text) is None or isinstance(extract(text), str)
