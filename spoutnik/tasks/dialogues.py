"""Conversations of several turns: the next question has numbers, words and people of its own, or says few words and leans
on the last one ("And 5 + 9?", "Add 3.", "And in banana?").

The past is questions and answers: the chat template drops earlier thoughts, so no turn may lean on one.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from spoutnik.tasks.family import LANGUAGES, Family, sample
from spoutnik.tasks.general import GeneralPrompt, follow_up_general, good_answer, sample_general
from spoutnik.tasks.general_text import Wishes, taught_kinds
from spoutnik.tasks.problem import History, Problem, Task, is_held_out
from spoutnik.tasks.wording import as_typed

Question = Problem | GeneralPrompt
GENERAL_SHARE = 0.25  # of the earlier turns
FOLLOW_UP_SHARE = 0.5  # of the turns that may follow up on the last one


def random_question(rng: random.Random, tasks: Sequence[Task], language: str, split: str) -> Question:
    """A general prompt, or a problem of one of the families among the tasks: other tasks' are asked alone."""
    families = [task for task in tasks if isinstance(task, Family)]
    if not families or rng.random() < GENERAL_SHARE:
        return sample_general(rng, language, split)
    family = rng.choice(families)
    return sample(family, rng, rng.choice(family.levels), language, split)


def follow_up(previous: Question, rng: random.Random, split: str) -> Question | None:
    """A question that leans on the last one, of the split; None where its kind has no such question."""
    if isinstance(previous, GeneralPrompt):
        return follow_up_general(previous, rng, split)
    while hasattr(previous.task, "follow_up"):
        question = previous.task.follow_up(previous, rng)
        if is_held_out(question) == (split == "held_out"):
            return question
    return None


def answer_of(question: Question, rng: random.Random) -> str:
    return good_answer(question, rng) if isinstance(question, GeneralPrompt) else question.answer


def general_question(rng: random.Random, tasks: Sequence[Task], dialogue_share: float,
                     wishes: Wishes = "listed") -> GeneralPrompt:
    """A general prompt of the training split as people type it, with earlier turns in `dialogue_share` of the cases."""
    prompt = typed(sample_general(rng, rng.choice(LANGUAGES), "train", taught_kinds(wishes)), rng)
    return perhaps_in_conversation(prompt, rng, tasks, "train", dialogue_share)


def typed(question: Question, rng: random.Random) -> Question:
    return replace(question, prompt=as_typed(question.prompt, question.language, rng))


def conversation(rng: random.Random, tasks: Sequence[Task], turns: int, language: str, split: str) -> list[Question]:
    """Questions in a row, each of the split; half of those that may follow up on the last one do."""
    questions: list[Question] = []
    for _ in range(turns):
        leaning = follow_up(questions[-1], rng, split) if questions and rng.random() < FOLLOW_UP_SHARE else None
        questions.append(typed(leaning or random_question(rng, tasks, language, split), rng))
    return questions


def history_of(questions: Sequence[Question], rng: random.Random) -> History:
    return tuple((question.prompt, answer_of(question, rng)) for question in questions)


def number_of_turns(rng: random.Random) -> int:
    """Earlier turns: one in half of the conversations, seldom more than four, never more than eight."""
    turns = 1
    while turns < 8 and rng.random() < 0.5:
        turns += 1
    return turns


def in_conversation(question: Question, rng: random.Random, tasks: Sequence[Task], split: str) -> Question:
    """A question of the same family with earlier turns before it: itself, or one that follows up on it."""
    earlier = conversation(rng, tasks, number_of_turns(rng), question.language, split)
    leaning = follow_up(question, rng, split) if rng.random() < FOLLOW_UP_SHARE else None
    if leaning is not None:
        earlier, question = [*earlier[1:], question], leaning
    return replace(question, history=history_of(earlier, rng))


def perhaps_in_conversation(question: Question, rng: random.Random, tasks: Sequence[Task], split: str,
                            share: float) -> Question:
    """The question, with earlier turns in `share` of the cases; that of another task than a family is asked alone."""
    if isinstance(question, Problem) and not isinstance(question.task, Family):
        return question
    return in_conversation(question, rng, tasks, split) if share and rng.random() < share else question
