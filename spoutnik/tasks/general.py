"""The non-reasoning data of R1's last stages: small talk, self-cognition, tiny facts and simple instructions."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from spoutnik.tasks.general_text import ROWS, TEXT
from spoutnik.tasks.language import language_consistency
from spoutnik.tasks.problem import LANGUAGES, SPLITS, held_out_by_hash

KINDS = tuple(ROWS)
FLAWS = ("curt", "off_topic", "wrong_language", "rambling", "wrong_fact")
MAX_WORDS = 40  # a longer answer rambles: these questions need one or two short sentences


@dataclass(frozen=True)
class GeneralPrompt:
    """A prompt without a verifier; `data["row"]` points to its subject and its answer in both languages."""

    kind: str
    language: str
    prompt: str
    data: dict


def is_held_out_general(kind: str, row: int) -> bool:
    """Whether a subject is held out for evaluation, in both languages and in all its wordings."""
    return held_out_by_hash(f"general {kind} {ROWS[kind][row][0]}")


def sample_general(rng: random.Random, language: str, split: str) -> GeneralPrompt:
    """Draw a prompt of the split: a kind, then a subject. Some kinds have no held-out subject."""
    if language not in LANGUAGES or split not in SPLITS:
        raise ValueError(f"A general prompt is in {' or '.join(LANGUAGES)} and in the split {' or '.join(SPLITS)}.")
    while True:
        kind = rng.choice(KINDS)
        row = rng.randrange(len(ROWS[kind]))
        if is_held_out_general(kind, row) == (split == "held_out"):
            break
    subject, _ = _subject_and_content(kind, row, language)
    prompt = rng.choice(TEXT[language][kind][0]).format(q=subject)
    return GeneralPrompt(kind, language, prompt, {"row": row})


def good_answer(p: GeneralPrompt, rng: random.Random) -> str:
    """A complete and polite answer, in the language, of one or two short sentences."""
    return _answer(p.kind, p.data["row"], p.language, rng)


def flawed_answer(p: GeneralPrompt, rng: random.Random) -> str:
    """An answer with one of the FLAWS."""
    flaw = rng.choice(FLAWS)
    if flaw == "wrong_fact" and p.kind in ("greeting", "goodbye", "identity", "privacy", "feeling"):
        flaw = "off_topic"  # these have no fact to get wrong
    if flaw == "curt":
        content = _content(p.kind, p.data["row"], p.language, rng)
        return content[0].upper() + content[1:] + "."
    if flaw == "rambling":
        return " ".join([good_answer(p, rng)] * rng.randint(3, 5))
    if flaw == "wrong_language":
        return _answer(p.kind, p.data["row"], next(other for other in LANGUAGES if other != p.language), rng)
    if flaw == "wrong_fact":
        subject, right = _subject_and_content(p.kind, p.data["row"], p.language)
        while True:
            wrong = _content(p.kind, rng.randrange(len(ROWS[p.kind])), p.language, rng)
            if not _has_content(p, wrong) and wrong != right:
                return _sentence(p.kind, p.language, subject, wrong, rng)
    while True:  # off topic: a good answer to another question
        kind = rng.choice(KINDS)
        other = _answer(kind, rng.randrange(len(ROWS[kind])), p.language, rng)
        if kind != p.kind and not _has_content(p, other):
            return other


def preference_pairs(rng: random.Random, split: str) -> Iterator[tuple[GeneralPrompt, str, str]]:
    """Endless (prompt, chosen answer, rejected answer), half in each language."""
    while True:
        p = sample_general(rng, rng.choice(LANGUAGES), split)
        yield p, good_answer(p, rng), flawed_answer(p, rng)


def helpfulness(p: GeneralPrompt, answer: str) -> float:
    """A rubric in [0, 1], to measure and never to train: content 0.5, language 0.2, full sentence 0.15, concision 0.15.

    An answer without a word earns nothing: it must not collect the points for what it does not do wrong.
    """
    words = re.findall(r"\w+", answer)
    if not words:
        return 0.0
    # Not 1.0: a translation quotes a word of the other language.
    in_language = language_consistency(answer, p.language) >= 0.8
    text = answer.strip()
    sentence = text[0].isupper() and text[-1] in ".!?" and len(words) >= _shortest(p)
    sentences = [part.strip() for part in re.split(r"[.!?]+", text) if part.strip()]
    concise = len(words) <= MAX_WORDS and len(set(sentences)) == len(sentences)
    return 0.5 * _has_content(p, answer) + 0.2 * in_language + 0.15 * sentence + 0.15 * concise


def _shortest(p: GeneralPrompt) -> int:
    """Words of a full sentence: the bare content is curt, two words around it are not."""
    content = _subject_and_content(p.kind, p.data["row"], p.language)[1]
    return 2 + (4 if p.kind == "list" else len(re.findall(r"\w+", content)))  # a list: three members and "and"


def _subject_and_content(kind: str, row: int, language: str) -> tuple[str, str]:
    cells = ROWS[kind][row]
    return (cells[0], cells[1]) if language == "en" else (cells[2], cells[3])


def _content(kind: str, row: int, language: str, rng: random.Random) -> str:
    """What the answer must contain; for a list, three members drawn among those known."""
    content = _subject_and_content(kind, row, language)[1]
    if kind != "list":
        return content
    first, second, third = rng.sample(content.split(), 3)
    return f"{first}, {second} {'and' if language == 'en' else 'et'} {third}"


def _sentence(kind: str, language: str, subject: str, content: str, rng: random.Random) -> str:
    """A full sentence around the content."""
    text = rng.choice(TEXT[language][kind][1]).format(q=subject, a=content)
    return text[0].upper() + text[1:]


def _answer(kind: str, row: int, language: str, rng: random.Random) -> str:
    subject, _ = _subject_and_content(kind, row, language)
    return _sentence(kind, language, subject, _content(kind, row, language, rng), rng)


def _has_content(p: GeneralPrompt, answer: str) -> bool:
    """Whether the answer holds its content: as whole words, or three members of a list."""
    content = _subject_and_content(p.kind, p.data["row"], p.language)[1].lower()
    answer = answer.lower()
    if p.kind == "list":
        return len(set(re.findall(r"\w+", answer)) & set(content.split())) >= 3
    return re.search(rf"(?<!\w){re.escape(content)}(?!\w)", answer) is not None
