"""The pretraining text: an endless mix of textbooks, forums, drills and small talk, imperfect like the real web.

Like the web, it holds more reasoning than it shows when merely asked. Textbooks work their exercises out; forums, which
have the layout of a question, answer at once and are often wrong. A base model asked a question therefore answers like a
forum, though it has read the textbooks: what reinforcement learning is there to bring out.
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from spoutnik.tasks.drills import drill_document, words_to_spell
from spoutnik.tasks.family import LANGUAGES, Family, sample
from spoutnik.tasks.general import good_answer, sample_general
from spoutnik.tasks.general_text import FIRST_KINDS
from spoutnik.tasks.problem import Problem, Trace

TEXTBOOK, QUICK, ANSWER_ONLY, DRILLS, GENERAL = "textbook", "quick", "answer_only", "drills", "general"
WEIGHTS = {TEXTBOOK: 0.42, QUICK: 0.10, ANSWER_ONLY: 0.25, DRILLS: 0.18, GENERAL: 0.05}  # shares of documents
FLAWED_SHARE = 0.25  # share of forum answers that are wrong; textbooks were proofread


class Layout(NamedTuple):
    """How a document writes a problem, its thought and its answer, one per line: a format string each."""

    problem: str
    thought: str
    answer: str


FORUM = {"en": Layout("Question: {}", "Thinking: {}", "Answer: {}"),
         "fr": Layout("Question : {}", "Réflexion : {}", "Réponse : {}")}
BOOK = {"en": Layout("Exercise: {}", "Solution: {}", "Result: {}"),
        "fr": Layout("Exercice : {}", "Solution : {}", "Résultat : {}")}


def documents(rng: random.Random, families: Sequence[Family], forum_thought_share: float | None = None) -> Iterator[str]:
    """Endless plain-text documents, without final newline. Problems and general prompts are of the training split.

    forum_thought_share: see `forum_trace`.
    """
    if not families:
        raise ValueError("The corpus needs at least one family of problems.")
    families = sorted({family.name: family for family in families}.values(), key=lambda family: family.name)
    may_spell = words_to_spell(families)
    while True:
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        language = rng.choice(LANGUAGES)
        if kind == DRILLS:
            yield drill_document(rng, language, may_spell)
        elif kind == GENERAL:
            prompt = sample_general(rng, language, "train", FIRST_KINDS)
            yield write(FORUM[language], prompt.prompt, "", good_answer(prompt, rng))
        else:
            family = rng.choice(families)
            yield worked_problem(family, rng, rng.choice(family.levels), language, kind, forum_thought_share)


def worked_problem(family: Family, rng: random.Random, level: int, language: str, kind: str,
                   forum_thought_share: float | None = None) -> str:
    """A problem worked out carefully (textbook), quickly, or answered without a thought; forum answers may be flawed."""
    problem = sample(family, rng, level, language, "train")
    if kind == TEXTBOOK:
        trace = family.solve(problem, rng, "careful")
        return write(BOOK[language], problem.prompt, trace.thought, trace.answer)
    return write(FORUM[language], problem.prompt, *forum_trace(problem, rng, kind, forum_thought_share))


def forum_trace(problem: Problem, rng: random.Random, kind: str, thought_share: float | None = None,
                flaws: float = FLAWED_SHARE) -> tuple[str, str]:
    """Thought and answer of a forum's reply to a problem: quick, or (answer only) without a thought; `flaws` of them are wrong.

    thought_share: of all replies, whatever their kind, so many think as carefully as a textbook and are as right, and the
        others answer at once: in such a forum a thought is rare, and it pays.
    """
    family = problem.task
    if thought_share is not None and rng.random() < thought_share:
        trace = family.solve(problem, rng, "careful")
        return trace.thought, trace.answer
    trace = family.solve(problem, rng, "quick")
    if rng.random() < flaws:
        trace = flawed(family, problem, trace, rng)
    return "" if kind == ANSWER_ONLY or thought_share is not None else trace.thought, trace.answer


def write(layout: Layout, prompt: str, thought: str, answer: str) -> str:
    """The document in plain text; an empty thought has no line."""
    lines = [layout.problem.format(prompt), layout.thought.format(thought) if thought else "", layout.answer.format(answer)]
    return "\n".join(line for line in lines if line)


def flawed(family: Family, problem: Problem, trace: Trace, rng: random.Random) -> Trace:
    """A solution that goes wrong: it ends with a slip that nothing repairs, or stops early and guesses."""
    answer = wrong_answer(family, problem, trace.answer, rng)
    stated = list(re.finditer(rf"(?<![\w-]){re.escape(trace.answer)}(?!\w)", trace.thought))
    if stated and rng.random() < 0.5:
        return Trace(trace.thought[: stated[-1].start()] + answer + trace.thought[stated[-1].end() :], answer)
    sentences = re.split(r"(?<=[.!?]) ", trace.thought)
    return Trace(" ".join(sentences[: len(sentences) // 2]), answer)


def wrong_answer(family: Family, problem: Problem, right: str, rng: random.Random) -> str:
    """An answer of the right kind that the verifier rejects."""
    while True:
        if re.fullmatch(r"-?\d+", right):
            wrong = _altered_number(right, rng)
        elif re.search(r" [-+*] ", right):
            wrong = _altered_expression(right, rng)
        elif "reverse" in problem.data:
            wrong = _altered_word(right, rng)
        elif "chain" in problem.data:
            wrong = rng.choice(problem.data["chain"])
        elif "names" in problem.data:
            wrong = ", ".join(sorted(rng.sample(problem.data["names"], rng.choice((1, 1, 2)))))
        else:
            wrong = family.generate(rng, problem.level, problem.language).answer
        if not family.verify(problem, wrong):
            return wrong


def _altered_number(number: str, rng: random.Random) -> str:
    """One digit of the number changed."""
    places = [place for place, character in enumerate(number) if character.isdigit()]
    place = rng.choice(places)
    return number[:place] + rng.choice("0123456789" if len(places) == 1 else "123456789") + number[place + 1 :]


def _altered_expression(expression: str, rng: random.Random) -> str:
    """One operator of the expression changed."""
    place = rng.choice([match.start() + 1 for match in re.finditer(r" [-+*] ", expression)])
    return expression[:place] + rng.choice("+-*") + expression[place + 1 :]


def _altered_word(letters: str, rng: random.Random) -> str:
    """Two neighbouring letters swapped."""
    place = rng.randrange(len(letters) - 1)
    return letters[:place] + letters[place + 1] + letters[place] + letters[place + 2 :]
