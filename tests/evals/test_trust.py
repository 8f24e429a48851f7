"""Trust: calibration of votes, abstention, rewordings."""

import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_samples import row

from spoutnik.errors import UserError
from spoutnik.evals.protocol import held_out_problems
from spoutnik.evals.rewording import REWORDINGS, reword
from spoutnik.evals.trust import abstention, calibration, sensitivity
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.abstention import INVITATIONS, Abstention, abstains
from spoutnik.tasks.benchmarks.benchmark import Benchmark


def votes(problem: str, right: int, wrong: int, silent: int = 0) -> list[dict]:
    """Samples of a problem: so many with the answer 5, with 6, and without one."""
    texts = ["5"] * right + ["6"] * wrong + [None] * silent
    return [row(problem, number, float(text == "5"), text or "", extracted=text, answered=text is not None)
            for number, text in enumerate(texts)]


def test_agreement_that_tells_nothing_and_agreement_that_tells_all():
    sure = [each for number in range(40) for each in votes(f"p{number}", 10, 0)]
    perfect = calibration(sure)
    assert perfect.brier["mean"] == perfect.ece["mean"] == 0
    wrong = calibration([each for number in range(40) for each in votes(f"p{number}", 0, 10)])
    assert wrong.brier["mean"] == wrong.ece["mean"] == 1


def test_bins_hold_equally_many_problems_and_the_numbers_follow_from_them():
    rows = [each for number in range(10) for each in votes(f"a{number}", 6, 4)]  # confidence 0.6, right
    rows += [each for number in range(10) for each in votes(f"b{number}", 0, 8, 2)]  # confidence 0.8, wrong
    result = calibration(rows)
    assert [each.problems for each in result.bins] == [4] * 5
    assert result.bins[0].confidence == pytest.approx(0.6) and result.bins[0].accuracy == 1.0
    assert result.bins[-1].confidence == pytest.approx(0.8) and result.bins[-1].accuracy == 0.0
    assert result.brier["mean"] == pytest.approx((0.16 + 0.64) / 2)
    assert result.ece["mean"] == pytest.approx((8 * 0.4 + 4 * abs(0.7 - 0.5) + 8 * 0.8) / 20)
    assert result.ece["low"] <= result.ece["mean"] and result.brier["problems"] == 20


def test_calibration_needs_votes():
    with pytest.raises(UserError, match="at least 2 samples"):
        calibration(votes("p", 1, 0))


@pytest.mark.parametrize("answer", [
    "I don't know.", "I don\u2019t know the answer.", "\\boxed{\\text{I don't know}}", "Sorry, I do not know.", "I'm not sure.",
    "Je ne sais pas.", "Désolé, je ne suis pas certain.", "je sais pas", "Ich weiß es nicht.", "No lo sé.", "Я не знаю",
    "我不知道。"])
def test_answers_that_abstain(answer):
    assert abstains(answer)


@pytest.mark.parametrize("answer", [
    "", "5", "The answer is 5; I don't know why.", "I don't know, so the answer is B.", "I don't know. 12", "\\boxed{5}",
    "I know.", "He said: I don't know. " * 20, "Tu ne sais pas ?", "Je ne sais pas, mais la réponse est rouge."])
def test_answers_that_do_not(answer):
    assert not abstains(answer)


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_is_decided(text):
    assert abstains(text) in (True, False)


def test_abstaining_is_rewarded_between_wrong_and_right():
    task = Abstention(FAMILIES["arithmetic"], 0.3)
    for problem in (task.sample(random.Random(1)), task.sample(random.Random(2), "held_out")):
        assert problem.task is task and problem.prompt.endswith(INVITATIONS[problem.language])
        assert task.verify(problem, problem.answer) == 1.0 and task.verify(problem, "999999") == 0.0
        assert task.verify(problem, "I don't know.") == 0.3 and task.verify(problem, f"{problem.answer}, I don't know") == 0.0
        assert task.solve(problem, random.Random(0)).answer == problem.answer
        assert task.extract(problem, "Je ne sais pas") is None and task.extract(problem, " 5 ") == "5"
    assert task.problems() is None


def test_a_listed_task_may_be_left_unanswered_too():
    class Listed(Benchmark):
        def verify(self, problem, answer):
            assert problem.task is self and problem.prompt == "Who?"
            return float(answer == problem.answer)

    inner = Listed("who", "names")
    inner.held_out = [inner.problem("Who?", "Ann", 1)]
    task = Abstention(inner, 0.5)
    (problem,) = task.problems()
    assert [task.verify(problem, answer) for answer in ("Ann", "Bob", "I have no idea")] == [1.0, 0.0, 0.5]
    assert task.problems("train") == []


@pytest.mark.parametrize("reward", [0, 1, -1, 2])
def test_a_reward_that_pays_as_much_as_the_truth_is_refused(reward):
    with pytest.raises(UserError, match="must lie between 0"):
        Abstention(FAMILIES["arithmetic"], reward)


def test_accuracy_where_an_answer_was_given():
    rows = [row("a", 0, 1.0), row("a", 1, 0.0, "I don't know"), row("b", 0, 0.0, "6"), row("b", 1, 0.3, "Je ne sais pas.")]
    result = abstention(rows)
    assert result.share["mean"] == 0.5 and result.accuracy["mean"] == 0.5 and result.accuracy_overall["mean"] == 0.25
    assert result.accuracy["samples"] == 2
    never = abstention([row("a", 0, 0.3, "I don't know")])
    assert math.isnan(never.accuracy["mean"]) and never.accuracy_overall["mean"] == 0
    always = abstention([row("a", 0, 1.0), row("b", 0, 1.0), row("c", 0, 0.0, "I don't know")])
    assert always.accuracy["mean"] == 1.0 and always.accuracy["low"] < 0.5


@pytest.mark.parametrize("name", sorted(REWORDINGS))
def test_rewordings_keep_the_question_s_numbers_and_are_the_same_every_time(name):
    problems = held_out_problems(list(FAMILIES.values()), 6)
    pairs = reword(problems, name)
    assert pairs == reword(problems, name) and len(pairs) > len(problems) / 3
    for before, after in pairs:
        assert before.prompt != after.prompt and before.answer == after.answer and before.key == after.key
        assert re.findall(r"\d+", before.prompt) == re.findall(r"\d+", after.prompt)
        assert before.task.verify(after, after.answer) == 1.0


@pytest.mark.parametrize("name", ["spaces", "courtesy", "frame"])
def test_what_says_how_to_answer_stays_the_last_line(name):
    task = Benchmark("q", "questions")
    prompt = "How many {x}? Tell me.\nPlease reason step by step, and put your final answer within \\boxed{}."
    ((_, after),) = reword([task.problem(prompt, "5", 1)], name)
    assert after.prompt.splitlines()[-1] == prompt.splitlines()[-1] and "{x}" in after.prompt and after.prompt != prompt


def test_unknown_and_unsuited_rewordings_are_sentences():
    problem = Benchmark("q", "questions", ("xx",)).problem("q?", "5", 1)
    with pytest.raises(UserError, match="Did you mean 'courtesy'"):
        reword([problem], "courtesi")
    with pytest.raises(UserError, match="suits none of the 1 problems"):
        reword([problem], "frame")


def test_a_rewording_s_effect_is_paired():
    original = [row(f"p{number}", 0, 1.0) for number in range(20)]
    reworded = [row(f"q{number}", 0, float(number >= 8)) for number in range(20)]
    pairs = [(f"p{number}", f"q{number}") for number in range(20)]
    result = sensitivity(original, reworded, pairs, 0.05)
    assert result.comparison.difference == pytest.approx(-0.4) and result.comparison.differs
    assert result.changed["mean"] == 0.4 and not result.comparison.not_worse
    with pytest.raises(UserError, match="1 of 21 problems have no samples .q99."):
        sensitivity(original, reworded, [*pairs, ("p0", "q99")])
