"""Conversations: every turn has its own right answer and leans on nothing but the questions and answers before it."""

import random
import re
from collections import Counter
from itertools import islice

import pytest

from spoutnik.tasks import FAMILIES, LANGUAGES, accuracy_reward, is_held_out, sample
from spoutnik.tasks.catalog import find_tasks
from spoutnik.tasks.dialogues import conversation, follow_up, general_question, in_conversation
from spoutnik.tasks.general import GeneralPrompt
from spoutnik.tasks.midtraining import midtraining_documents
from spoutnik.tasks.wording import as_typed
from spoutnik.train.rollouts import sample_problems

FAMILY_NAMES = ["countdown", "arithmetic", "equations", "ordering", "liars", "calendar", "operations", "spell"]
TASKS = find_tasks(FAMILY_NAMES)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_turn_is_of_the_split_and_has_a_right_answer(split):
    rng, followed = random.Random(0), 0
    for _ in range(60):
        questions = conversation(rng, TASKS, 6, rng.choice(LANGUAGES), split)
        assert len({question.language for question in questions}) == 1
        for question in questions:
            if not isinstance(question, GeneralPrompt):
                assert is_held_out(question) == (split == "held_out") and accuracy_reward(question, question.answer)
        followed += sum(question.prompt.startswith(("And ", "Et ", "What about", "Add", "Ajoute")) for question in questions)
    assert followed > 30


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_question_on_the_last_result_goes_on_from_it(language):
    """ "Add 3." names one number: the other is the last answer, which the history shows."""
    family, rng, leaning = FAMILIES["operations"], random.Random(1), 0
    for _ in range(200):
        previous = sample(family, rng, rng.choice(family.levels), language, "train")
        question = follow_up(previous, rng, "train")
        a, _, b = question.data["operation"]
        if str(a) not in question.prompt and str(b) in question.prompt:
            assert str(a) == previous.answer
            leaning += 1
    assert leaning > 20


def test_a_word_follow_up_keeps_the_letter_and_a_letter_follow_up_the_word():
    family, rng = FAMILIES["spell"], random.Random(2)
    for _ in range(200):
        previous = sample(family, rng, rng.choice((1, 2)), "en", "train")
        question = family.follow_up(previous, rng)
        same_word = question.data["word"] == previous.data["word"]
        assert same_word or question.data["shown_letter"] == previous.data["shown_letter"]
        assert family.verify(question, question.answer)


def test_a_question_in_a_conversation_stays_of_its_family_and_has_a_past():
    rng = random.Random(3)
    for name in FAMILY_NAMES * 5:
        family = FAMILIES[name]
        problem = in_conversation(sample(family, rng, 1, "fr", "train"), rng, TASKS, "train")
        assert problem.family == name and 1 <= len(problem.history) <= 8 and not is_held_out(problem)
        assert all(question and answer for question, answer in problem.history)
    general = general_question(rng, TASKS, 1.0)
    assert general.history and not general_question(rng, TASKS, 0.0).history


def test_a_share_of_sampled_problems_has_earlier_turns():
    problems = sample_problems(random.Random(4), list(FAMILIES.values()), 400, "train", dialogue_share=0.25)
    assert 0.15 < sum(bool(problem.history) for problem in problems) / 400 < 0.35
    assert not any(problem.history for problem in sample_problems(random.Random(4), list(FAMILIES.values()), 100, "train"))


def test_as_typed_keeps_every_number_and_name():
    rng = random.Random(5)
    shapes = set()
    for _ in range(300):
        typed = as_typed("What is 17 + 26 ?", "en", rng)
        assert "17" in typed and "26" in typed and "+" in typed
        shapes.add(typed)
    assert {"What is 17 + 26?", "What is 17 + 26 ?", "what is 17 + 26?"} < shapes and len(shapes) > 15


def test_mid_training_never_shows_strawberry_nor_asks_what_is_held_out():
    text = "\n".join(islice(midtraining_documents(random.Random(6), TASKS), 3000))
    assert "strawberry" not in text.lower()
    rng = random.Random(7)
    for _ in range(300):
        held_out = sample(FAMILIES["spell"], rng, 1, "en", "held_out")
        assert f'in "{held_out.data["word"]}"' not in text
    assert "Exercise: And" in text and "Exercice : Et" in text


def test_mid_training_depends_on_the_seed_alone_and_has_long_documents():
    first, second = (list(islice(midtraining_documents(random.Random(8), TASKS), 400)) for _ in range(2))
    assert first == second and max(map(len, first)) > 2500


def test_echoes_are_the_share_that_is_wanted_and_say_again_what_was_said():
    texts = list(islice(midtraining_documents(random.Random(9), TASKS, echo_share=0.2, wishes="any"), 1500))
    asked = re.compile(r"(?:[Ww]ish me|[Ss]ay|I am|My name is) (.+?)[.!]?(?: Thanks!)?$")
    echoes, copied = 0, 0
    for text in texts:
        lines = text.split("\n")
        pairs = list(zip(lines[::2], lines[1::2], strict=False))
        if all(question.startswith("Question: ") and answer.startswith("Answer: ") and asked.search(question)
               for question, answer in pairs) and len(lines) > 3:
            echoes += 1
            copied += all(asked.search(question)[1].lower() in answer.lower() for question, answer in pairs)
    assert 0.06 < echoes / len(texts) < 0.14 and copied > 0.95 * echoes  # the English half of them
    assert "strawberry" not in "\n".join(texts).lower()


def test_wishes_of_any_words_are_asked_where_they_are_wanted():
    rng = random.Random(10)
    kinds = Counter(general_question(rng, TASKS, 0.0, "any").kind for _ in range(1500))
    assert 0.04 < kinds["any_wish"] / 1500 < 0.12
    assert not any(general_question(rng, TASKS, 0.0).kind == "any_wish" for _ in range(500))
