"""How an answer looks, rounds and counts in hundredths: nothing of it makes another answer."""

import time

import pytest

from spoutnik.tasks.maths import answers, equal, extract
from spoutnik.tasks.maths.percent import asks_percent


@pytest.mark.parametrize("looks", [
    r"\color{red}9", r"\color{red}{9}", r"\textcolor{red}{9}", r"\textcolor[rgb]{1,0,0}{9}", r"\mathcolor{blue}{9}",
    r"\colorbox{yellow}{$9$}", r"\fcolorbox{red}{white}{$9$}", r"\bbox[yellow,5px]{9}", r"\Large 9", r"\small{9}", r"{\huge 9}",
    r"\ 9\ ", r"9\ ", r"9\\", r"\mathtt{9}", r"\phantom{0}9", r"\vphantom{\sqrt{2}}9", r"\begin{aligned}x&=9\end{aligned}",
    r"\begin{array}{c}9\end{array}", r"\begin{gathered}9\end{gathered}", r"\text{Total: }9", r"\text{Réponse : } 9",
    r"9^{\text{th}}", "9^{th}"])
def test_how_an_answer_looks_says_nothing(looks):
    assert equal("9", extract(rf"\boxed{{{looks}}}")) and not equal("8", extract(rf"\boxed{{{looks}}}"))


@pytest.mark.parametrize("gold, answer", [
    (r"3\sqrt{13}", "3√13"), (r"\frac{\sqrt{21}}{5}", "√21/5"), (r"\sqrt{2}x", "√2x"), (r"1\pm\sqrt{19}", "1 +/- sqrt(19)"),
    (r"(0,9)\cup(9,36)", "(0,9) U (9,36)"), (r"(-\infty,2)", "(-inf, 2)"), (r"[2,\infty)", "[2, oo)"), (r"-\infty", "-inf")])
def test_what_is_typed_without_latex(gold, answer):
    assert equal(gold, answer) and equal(answer, gold)


@pytest.mark.parametrize("gold, answer", [(r"\sqrt{13}", "√1 3"), ("(0,9)", "(0,9) U (9,36)"), ("A", r"\text{B: }9"),
                                          (r"\begin{pmatrix}9&1\end{pmatrix}", r"\begin{array}{cc}91\end{array}")])
def test_looks_that_hide_another_answer(gold, answer):
    assert not equal(gold, answer)


@pytest.mark.parametrize("gold", [r"2\sqrt{3}", "3.46"])
@pytest.mark.parametrize("answer", [r"2\sqrt{3} \approx 3.46", r"x = 2\sqrt{3} \approx 3.46", "2√3 ≈ 3.46"])
def test_a_rounded_value_beside_the_exact_one_is_no_second_answer(gold, answer):
    assert equal(gold, answer)


@pytest.mark.parametrize("gold, answer", [("3", r"3 \approx 4"), ("4", r"3 \approx 4"), ("3.4", r"2\sqrt3 \approx 3.46"),
                                          ("5", r"x \approx 5 \approx 5"), ("0.5", r"\frac13 \approx 0.5"),
                                          (r"\frac13", "0.333"), ("3.46", r"2\sqrt{3}")])
def test_what_is_no_rounding_is_no_answer(gold, answer):
    assert not equal(gold, answer)


@pytest.mark.parametrize("text, result", [
    ("<answer>9</answer>", "9"), ("So <answer>The answer is 9.</answer>", "9"),
    ("<answer>1</answer> <answer> 2 </answer>", "2"),
    (r"The final answer is **\begin{pmatrix} 1 \\ 2 \end{pmatrix}**.", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}")])
def test_the_marks_around_an_answer_are_no_part_of_it(text, result):
    assert extract(text) == result


ASKING = ["What percent of her socks are red?", "By what percentage did it grow?", "Express your answer as a percent.",
          "Quel est le pourcentage des élèves ?", "Wie viel Prozent der Autos sind es?", "占多少百分比？", "Ni asilimia ngapi?"]
NOT_ASKING = ["Thirty percent of them left. How many stay?", "What is 20 percent of 50?", "How many are left?",
              "Il vend vingt pour cent de plus. Combien ?", "If it rises by 20%, what does it cost?"]


@pytest.mark.parametrize("question", ASKING)
def test_where_a_percentage_is_asked_for_its_sign_may_be_missing(question):
    assert answers(question, "20", r"20\%") and answers(question, r"20\%", "20") and answers(question, r"20\%", "0.2")
    assert answers(question, "20", "20 percent") and not answers(question, "20", r"21\%")
    assert not answers(question, "20", "0.2")


@pytest.mark.parametrize("question", NOT_ASKING)
def test_where_none_is_asked_for_a_percentage_is_its_value(question):
    assert not asks_percent(question)
    assert not answers(question, "20", r"20\%") and answers(question, "0.2", r"20\%")


@pytest.mark.parametrize("piece", [r"\begin{align}", r"\color{", r"\bbox[", "]U(", r"\text{a", "^{", "√1", r"\colorbox{a}",
                                   "<answer>", r"\phantom{{"])
def test_no_repetition_takes_long(piece):
    began = time.perf_counter()
    equal("5", (piece * 12_000)[:11_999])
    extract(piece * 12_000)
    assert time.perf_counter() - began < 8
