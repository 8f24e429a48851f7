"""The non-reasoning data of R1's last stages: small talk, self-cognition, tiny facts and simple instructions."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spoutnik.tasks.family import LANGUAGES
from spoutnik.tasks.general_text import KINDS, ROWS, TEXT
from spoutnik.tasks.language import language_consistency
from spoutnik.tasks.problem import SPLITS, History, held_out_by_hash

MAX_WORDS = 40  # a longer answer rambles: these questions need one or two short sentences


@dataclass(frozen=True)
class GeneralPrompt:
    """A prompt without a verifier; `data["row"]` points to its subject and its answer in both languages."""

    kind: str
    language: str
    prompt: str
    data: dict
    history: History = ()

    @property
    def subject(self) -> str:
        return ROWS[self.kind][self.data["row"]][0 if self.language == "en" else 2]

    @property
    def content(self) -> str:
        """What an answer must say; of a list, all members that count."""
        return ROWS[self.kind][self.data["row"]][1 if self.language == "en" else 3]


def is_held_out_general(kind: str, row: int) -> bool:
    """Whether a subject is held out for evaluation, in both languages and in all its wordings."""
    return held_out_by_hash(f"general {kind} {ROWS[kind][row][0]}")


def sample_general(rng: random.Random, language: str, split: str, kinds: Sequence[str] = KINDS) -> GeneralPrompt:
    """Draw a prompt of the split: a kind, then a subject. Some kinds have no held-out subject."""
    if language not in LANGUAGES or split not in SPLITS:
        raise ValueError(f"A general prompt is in {' or '.join(LANGUAGES)} and in the split {' or '.join(SPLITS)}.")
    while True:
        kind = rng.choice(kinds)
        row = rng.randrange(len(ROWS[kind]))
        if is_held_out_general(kind, row) == (split == "held_out"):
            break
    p = GeneralPrompt(kind, language, "", {"row": row})
    return replace(p, prompt=rng.choice(TEXT[language][kind][0]).format(q=p.subject))


FOLLOW_UPS = {  # kinds whose next question may be its subject alone: "And Italy?"
    "en": {"capital": ("And of {q} ?", "And {q} ?", "What about {q} ?"), "opposite": ('And of "{q}" ?', 'And "{q}" ?'),
           "colour": ("And {q} ?", "What about {q} ?"), "translate": ('And "{q}" ?', 'What about "{q}" ?')},
    "fr": {"capital": ("Et {q} ?", "Et celle {q} ?"), "opposite": ('Et de "{q}" ?', 'Et "{q}" ?'),
           "colour": ("Et {q} ?",), "translate": ('Et "{q}" ?',)},
}


def follow_up_general(previous: GeneralPrompt, rng: random.Random, split: str) -> GeneralPrompt | None:
    """The next question of a conversation, of the same kind in few words; None for kinds without one."""
    wordings = FOLLOW_UPS[previous.language].get(previous.kind)
    if wordings is None:
        return None
    rows = [row for row in range(len(ROWS[previous.kind]))
            if is_held_out_general(previous.kind, row) == (split == "held_out") and row != previous.data["row"]]
    if not rows:
        return None
    p = GeneralPrompt(previous.kind, previous.language, "", {"row": rng.choice(rows)})
    return replace(p, prompt=rng.choice(wordings).format(q=p.subject))


def statement(kind: str, row: int, language: str, rng: random.Random) -> str:
    """A fact as an encyclopedia states it, of any split: what is held out is the question."""
    return good_answer(GeneralPrompt(kind, language, "", {"row": row}), rng)


def good_answer(p: GeneralPrompt, rng: random.Random) -> str:
    """A complete and polite answer, in the language, of one or two short sentences."""
    return sentence_around(p, content_to_say(p, rng), rng)


def helpfulness(p: GeneralPrompt, answer: str) -> float:
    """A rubric in [0, 1], to measure and never to train: half of it content, half form."""
    return sum(content_and_form(p, answer)) / 2


def content_and_form(p: GeneralPrompt, answer: str) -> tuple[float, float]:
    """What an answer says, 0 or 1, and how it says it, in [0, 1]: language 0.4, full sentence 0.3, concision 0.3.

    An answer without a word earns nothing: it must not collect the points for what it does not do wrong.
    """
    words = re.findall(r"\w+", answer)
    if not words:
        return 0.0, 0.0
    # Not 1.0: a translation quotes a word of the other language.
    in_language = language_consistency(answer, p.language) >= 0.8
    text = answer.strip()
    sentence = text[0].isupper() and text[-1] in ".!?" and len(words) >= _shortest(p)
    sentences = [part.strip() for part in re.split(r"[.!?]+", text) if part.strip()]
    concise = len(words) <= MAX_WORDS and len(set(sentences)) == len(sentences)
    return float(has_content(p, answer)), 0.4 * in_language + 0.3 * sentence + 0.3 * concise


def _shortest(p: GeneralPrompt) -> int:
    """Words of a full sentence: the bare content is curt, two words around it are not."""
    return 2 + (4 if p.kind.endswith("list") else len(re.findall(r"\w+", p.content)))  # a list: three members and "and"


def content_to_say(p: GeneralPrompt, rng: random.Random) -> str:
    """What the answer must contain; for a list, three members drawn among those in the row."""
    if not p.kind.endswith("list"):
        return p.content
    first, second, third = rng.sample(p.content.split(), 3)
    return f"{first}, {second} {'and' if p.language == 'en' else 'et'} {third}"


def sentence_around(p: GeneralPrompt, content: str, rng: random.Random) -> str:
    """A full sentence around the content."""
    text = rng.choice(TEXT[p.language][p.kind][1]).format(q=p.subject, a=content)
    return text[0].upper() + text[1:]


def has_content(p: GeneralPrompt, answer: str) -> bool:
    """Whether the answer holds its content: as whole words, or three members of a list."""
    content, answer = p.content.lower(), answer.lower()
    if p.kind.endswith("list"):
        return len(set(re.findall(r"\w+", answer)) & set(content.split())) >= 3
    return re.search(rf"(?<!\w){re.escape(content)}(?!\w)", answer) is not None
