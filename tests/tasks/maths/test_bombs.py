"""What would take hours or gigabytes, and what would run code."""

import os

import pytest

from spoutnik.tasks.maths import equal, extract, statistics

NESTED = "1"
for _ in range(300):
    NESTED = rf"\frac{{1}}{{1+{NESTED}}}"
BOMBS = ["99^{99^{99}}", "10^6!", "(10^6)!", "1000000!", NESTED, "1+" * 5_000 + "1", r"\sum_{k=1}^{10^9} k",
         r"\prod_{k=1}^{99999999} k",
         "(a+b+c+d)^{100000}", "(x+1)" * 2_000, "2^{2^{2^{2^{2^{2}}}}}", "1e999999999", "(" * 5_000 + "1" + ")" * 5_000,
         r"\sqrt" * 2_000 + "2",
         "-" * 5_000 + "1", "1," * 5_000 + "1", r"\binom{10^9}{5\cdot10^8}", "9" * 9_000 + "^{1/2}", "e^{e^{e^{e^{10}}}}",
         r"\sin(10^{10^{10}})",
         "+".join(rf"\frac{{1}}{{x+{k}}}" for k in range(700)), r"\pm1" * 200, "1/" * 4_000 + "1", "=".join("1" * 3_000),
         "a" * 1_000_000,
         r"\text{" * 3_000 + "a" + "}" * 3_000, "1" + " " * 100_000 + "2", "|" * 5_000, r"\sqrt[1000000000]{2}", "3!!!!!!"]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:20])
def test_a_bomb_is_refused_before_it_is_computed(bomb):
    asked = statistics().asked
    assert not equal("5", bomb) and not equal(bomb, "5") and not equal("x+7", bomb)
    extract(bomb), extract(f"The answer is {bomb}.")
    assert statistics().asked == asked


@pytest.mark.parametrize("digits", [5_000, 11_000, 100_000])
def test_many_digits_are_compared_to_the_last(digits):
    assert equal("7" * digits, "7" * digits) and not equal("7" * digits, "7" * (digits - 1) + "8")


def test_powers_beyond_computing_equal_only_themselves():
    assert equal("99^{99^{99}}", "99^{99^{99}} ") and not equal("99^{99^{99}}", "99^{99^{98}}")


@pytest.mark.parametrize("answer", ["{0}", r"\text{{{0}}}", "${0}$", "x = {0}", r"\int {0} dx", r"\sum_{{k}} {0}",
                                    r"\operatorname{{{0}}}", "({0}, 1)"])
@pytest.mark.parametrize("code", ["__import__('os').system('touch {path}')", "open('{path}', 'w')",
                                  "exec(\"open('{path}','w')\")",
                                  "().__class__.__base__.__subclasses__()", "lambda: open('{path}', 'w')"])
def test_no_answer_is_executed(answer, code, tmp_path):
    path = tmp_path / "executed"
    text = answer.format(code.replace("{path}", str(path)))
    assert not equal("0", text) and not equal(text, "1") and not equal(r"\int x dx", text)
    extract(text)
    assert not os.path.exists(path)
