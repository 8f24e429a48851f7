"""Pairs of a better and a worse answer to a general prompt, which a reward model learns from.

Pairs of form alone leave it blind to the question: a polite sentence that answers nothing then scores as a right answer does.
Pairs of relevance show each good answer as the worse one too, below another question.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

from spoutnik.tasks.family import LANGUAGES
from spoutnik.tasks.general import (
    GeneralPrompt,
    content_to_say,
    good_answer,
    has_content,
    sample_general,
    sentence_around,
)
from spoutnik.tasks.general_text import KINDS, ROWS

FLAWS = ("curt", "off_topic", "wrong_language", "rambling", "wrong_fact")
Pairs = Literal["form", "relevance"]
Difference = Literal["form", "relevance", "truth"]
DIFFERENCES: tuple[Difference, ...] = get_args(Difference)
SHARES = {"form": 0.25, "relevance": 0.5, "truth": 0.25}  # of pairs of relevance, by what makes the worse answer worse
COPIED = ("greeting", "goodbye", "wish", "repeat")  # kinds whose answer says again what was said


def preference_pairs(rng: random.Random, split: str, kinds: Sequence[str] = KINDS,
                     pairs: Pairs = "form") -> Iterator[tuple[GeneralPrompt, str, str]]:
    """Endless (prompt, chosen answer, rejected answer), half in each language."""
    while True:
        p = sample_general(rng, rng.choice(LANGUAGES), split, kinds)
        if pairs == "form":
            yield p, good_answer(p, rng), flawed_answer(p, rng)
        else:
            difference = rng.choices(DIFFERENCES, [SHARES[each] for each in DIFFERENCES])[0]
            yield p, good_answer(p, rng), worse_answer(p, rng, difference)


def pairs_that_differ(rng: random.Random, split: str, by: Difference) -> Iterator[tuple[GeneralPrompt, str, str]]:
    """Pairs as above whose answers differ in one way alone; of truth, of those kinds alone that can be answered falsely."""
    while True:
        p = sample_general(rng, rng.choice(LANGUAGES), split)
        if by != "truth" or _has_falsehoods(p):
            yield p, good_answer(p, rng), worse_answer(p, rng, by)


def worse_answer(p: GeneralPrompt, rng: random.Random, by: Difference) -> str:
    """An answer that is worse than a good one by its form, by what it answers or, where that can be, by what is false."""
    if by == "form":
        return rng.choice(tuple(_OF_FORM.values()))(p, rng)
    if by == "truth" and _has_falsehoods(p):
        return sentence_around(p, _falsehood(p, rng), rng)
    return answer_to_another(p, rng)


def curt(p: GeneralPrompt, rng: random.Random) -> str:
    content = content_to_say(p, rng)
    return content[0].upper() + content[1:] + "."


def rambling(p: GeneralPrompt, rng: random.Random) -> str:
    return " ".join([good_answer(p, rng)] * rng.randint(3, 5))


def in_the_wrong_language(p: GeneralPrompt, rng: random.Random) -> str:
    return good_answer(replace(p, language=next(other for other in LANGUAGES if other != p.language)), rng)


_OF_FORM = {"curt": curt, "rambling": rambling, "wrong_language": in_the_wrong_language}


def answer_to_another(p: GeneralPrompt, rng: random.Random) -> str:
    """A good answer to another question, half of the time of the same kind, where that has other answers."""
    while True:
        kind = p.kind if rng.random() < 0.5 else rng.choice(KINDS)
        answer = good_answer(GeneralPrompt(kind, p.language, "", {"row": rng.randrange(len(ROWS[kind]))}), rng)
        if not has_content(p, answer):
            return answer


def _has_falsehoods(p: GeneralPrompt) -> bool:
    return len({row[1 if p.language == "en" else 3] for row in ROWS[p.kind]}) > 1


def _falsehood(p: GeneralPrompt, rng: random.Random) -> str:
    """What another question of the kind is answered with; or, half of the time, what was to be said again with a mistake."""
    copied = p.kind.split("_")[-1] in COPIED
    while True:
        wrong = _miscopied(p.content, rng) if copied and rng.random() < 0.5 else \
            content_to_say(replace(p, data={"row": rng.randrange(len(ROWS[p.kind]))}), rng)
        if not has_content(p, wrong):
            return wrong


def _miscopied(content: str, rng: random.Random) -> str:
    """Without its last word, with a letter lost, or with one twice."""
    words = content.split()
    if len(words) > 1 and rng.random() < 0.5:
        return " ".join(words[:-1]).removesuffix(",")
    place = rng.choice([place for place, character in enumerate(content) if character.isalpha()])
    lost = len(content) > 1 and rng.random() < 0.5
    return content[:place] + ("" if lost else content[place] * 2) + content[place + 1:]


def flawed_answer(p: GeneralPrompt, rng: random.Random) -> str:
    """An answer with one of the FLAWS."""
    flaw = rng.choice(FLAWS)
    # Some kinds have no fact to get wrong; a greeting by name is always answered off topic. (Not what was meant, but the
    # shipped models' reward model learned from these very pairs.)
    if p.kind in ("greeting", "goodbye") or flaw == "wrong_fact" and not _has_falsehoods(p):
        flaw = "off_topic"
    if flaw in _OF_FORM:
        return _OF_FORM[flaw](p, rng)
    if flaw == "wrong_fact":
        while True:
            wrong = content_to_say(replace(p, data={"row": rng.randrange(len(ROWS[p.kind]))}), rng)
            if not has_content(p, wrong) and wrong != p.content:
                return sentence_around(p, wrong, rng)
    while True:  # off topic: a good answer to another question
        kind = rng.choice(KINDS)
        other = good_answer(GeneralPrompt(kind, p.language, "", {"row": rng.randrange(len(ROWS[kind]))}), rng)
        if kind != p.kind and not has_content(p, other):
            return other
