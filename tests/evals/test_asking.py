"""How a problem is put, and how a reply to plain text is read."""

import asked
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.evals.asking import worked_examples
from spoutnik.tasks import FAMILIES, Problem
from spoutnik.tasks.problem import Task
from spoutnik.tasks.prompt_styles import STYLES, Chat, style_of

PROBLEM = asked.SUMS.problem(3, 4)


def test_a_conversation_is_the_question_alone():
    prompt = style_of("chat").prompt(PROBLEM)
    assert prompt.messages == (("user", "What is 3 + 4?"),) and prompt.text is None
    assert prompt.conversation() == [{"role": "user", "content": "What is 3 + 4?"}]


@pytest.mark.parametrize("name, text", [
    ("forum", "Question: What is 3 + 4?\n"), ("textbook", "Exercise: What is 3 + 4?\n"),
    ("few-shot", "Question: What is 1 + 2?\nAnswer: 3\n\nQuestion: What is 3 + 4?\nAnswer:")])
def test_plain_styles_write_plain_text(name, text):
    prompt = style_of(name, [("What is 1 + 2?", "3")]).prompt(PROBLEM)
    assert prompt.text == text and prompt.stop and all(stop.startswith("\n") for stop in prompt.stop)


def test_r1_zero_is_the_papers_template():
    prompt = style_of("r1-zero").prompt(PROBLEM)
    assert prompt.text.startswith("A conversation between User and Assistant.")
    assert prompt.text.endswith("User: What is 3 + 4?. Assistant:")
    assert "</answer>" in prompt.stop and prompt.keep_stop


@pytest.mark.parametrize("text, answer", [
    (" <think> 3 and 4 </think> <answer> 7 </answer>", "7"), ("<think></think><answer>7</answer>", "7"),
    ("<think> 7 </think> <answer> 7", ""), ("<answer>7</answer>", ""), ("<think> a <think> b </think><answer>7</answer>", ""),
    ("7", ""), ("<think> 7 </think> <answer> <answer> 7 </answer>", "")])
def test_r1_zero_takes_the_answer_between_its_tags_alone(text, answer):
    read = style_of("r1-zero").read(text, True)
    assert (read.answer, read.well_formed) == (answer, bool(answer))
    assert not style_of("r1-zero").read(text, False).well_formed


@pytest.mark.parametrize("name, text, answer", [
    ("forum", "Thinking: hm\nAnswer: 7", "7"), ("forum", "Réponse : 7", "7"), ("forum", "It is 7", ""),
    ("textbook", "Solution: 3 and 4.\nResult: 7", "7"), ("textbook", "Answer: 7", ""), ("few-shot", " 7\n", "7"),
    ("few-shot", " \n", "")])
def test_plain_replies_are_read_in_their_layout(name, text, answer):
    read = style_of(name).read(text, True)
    assert (read.answer, read.well_formed) == (answer, bool(answer))


@pytest.mark.parametrize("text, thought, answer, well_formed", [
    ("7", "", "7", True), ("<think>3 and 4</think>\n7", "3 and 4", "7", True), ("so</think>7", "so", "7", True),
    ("<think>on and on", "on and on", "", False), ("<think>a</think>b</think>7", "a</think>b", "7", False),
    ("<think>so</think>", "so", "", False), ("", "", "", False)])
def test_marks_of_thought_in_an_endpoints_text(text, thought, answer, well_formed):
    read = Chat().read(text, True)
    assert (read.thought, read.answer, read.well_formed) == (thought, answer, well_formed)


@given(st.sampled_from(STYLES), st.text(max_size=80) | st.lists(st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "Answer: ", "\n", "7"])).map("".join), st.booleans())
def test_no_reply_is_beyond_reading(name, text, finished):
    read = style_of(name).read(text, finished)
    assert read.well_formed <= (finished and bool(read.answer))


def test_examples_show_the_form_that_the_task_takes():
    class Boxed(Task):
        name = "boxed"

        def verify(self, problem, answer):
            return answer == f"\\boxed{{{problem.answer}}}"

    boxed = Boxed()
    problems = [Problem(boxed, 1, "en", f"{n}?", str(n), {}) for n in range(3)]
    assert worked_examples(problems, 2) == [("0?", "\\boxed{0}"), ("1?", "\\boxed{1}")]
    assert worked_examples([Problem(boxed, 1, "en", "?", "", {})], 2) == []


def test_an_unknown_style_is_a_sentence():
    with pytest.raises(UserError, match="--style haiku"):
        style_of("haiku")


def test_a_language_without_a_layout_is_asked_in_english():
    problem = Problem(FAMILIES["arithmetic"], 1, "de", "Was ist 3 + 4?", "7", {})
    assert style_of("forum").prompt(problem).text.startswith("Question: ")
