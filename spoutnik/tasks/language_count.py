"""How much of a text is in a language: sentence by sentence, weighted by words (by letters where no spaces are written)."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from spoutnik.tasks.identification import (
    SCRIPT_OF,
    UNSPACED,
    check_language,
    function_words,
    most_likely,
    runs,
    weight,
)
from spoutnik.tasks.prose import prose, sentences

MOST_SENTENCES = 4_000  # of a longer text, as many at even distances are looked at; 32,768 tokens are some 1,500
MOST_REPETITIONS = 4  # of one word in a sentence: a word said again and again makes no language
_STRETCHED = re.compile(rf"([^\W\d_])\1{{{MOST_REPETITIONS},}}")  # one letter said again and again
_FREQUENT = ("en", "fr", "de", "es", "it", "pt", "nl", "pl", "sv", "da", "fi", "cs", "ro", "hu", "tr", "vi", "id", "sw",
             "ru", "uk", "bg", "sr", "ar", "fa", "ur", "hi", "mr", "ne", "bn", "he", "el")
_KIN = ("no nn da sv", "id ms jv", "hr bs sl", "cs sk", "es gl an ca", "pt gl", "nl af fy", "de lb", "fr wa oc", "it vec lij",
        "tr az tk", "sr mk bg", "ru ba tt be kk ky mn tg", "uk be", "hi sa", "ro la", "sw rw ln lg")
_BENEFIT = 0.5  # by how much another language has to lead over the one in question, in the unit of the scores
_NAMES = 3  # different ones in Latin letters, within a sentence in another script
_CLEAR_WORDS = 2  # function words, where all that there are may be the language's
_FEWEST_WORDS = 3  # of a sentence without a function word; shorter ones are judged together


@dataclass(frozen=True)
class LanguageCount:
    """What was counted of a text: words, or letters in scripts without spaces.

    target: of them in the language. counted: all; 0 where there was nothing but names, formulas, code and digits.
    """

    target: float
    counted: int

    @property
    def share(self) -> float:
        """In [0, 1]; 1.0 when nothing was counted."""
        return self.target / self.counted if self.counted else 1.0


def count_language(text: str, language: str) -> LanguageCount:
    """How much of a text is in a language. A sentence that repeats is counted once.

    Raises:
        ValueError: the code is unknown.
    """
    check_language(language)
    target, counted, undecided = 0.0, 0, []
    for sentence in _spread(list(dict.fromkeys(sentences(_STRETCHED.sub(r"\1" * MOST_REPETITIONS, prose(text)))))):
        own, other = _split(_capped(runs(sentence)), SCRIPT_OF[language])
        counted += other
        amount = sum(weight(script, word) for script, word in own)
        words = [word for _, word in own]
        share = _share(words, language) if amount else None
        if share is None:
            undecided += [word for word in words if not word.istitle() and len(word) > 1]
        else:
            target, counted = target + share * amount, counted + amount
    if len(undecided) > _FEWEST_WORDS:  # words of sentences too short to be judged alone
        target += len(undecided) * (_likely(undecided, language) == language)
        counted += len(undecided)
    return LanguageCount(target, counted)


def _spread(parts: list[str]) -> list[str]:
    step = -(-len(parts) // MOST_SENTENCES) or 1
    return parts[::step]


def _capped(words: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the further repetitions of a word."""
    if len(words) <= MOST_REPETITIONS or max(Counter(words).values()) <= MOST_REPETITIONS:
        return words
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for pair in words:
        seen[pair] += 1
        if seen[pair] <= MOST_REPETITIONS:
            kept.append(pair)
    return kept


def _split(words: list[tuple[str, str]], script: str) -> tuple[list[tuple[str, str]], int]:
    """The words of a sentence in a language's script, and the weight of those in others.

    Han letters beside kana are Japanese. Up to three names or units in Latin letters say nothing beside another script.
    """
    scripts = {each for each, _ in words}
    if scripts == {script}:
        return words, 0
    if "Japanese" in scripts or script == "Japanese" and sum(len(word) for each, word in words if each == "Han") < 8:
        words = [("Japanese" if each == "Han" else each, word) for each, word in words]
    own = [pair for pair in words if pair[0] == script]
    foreign = [pair for pair in words if pair[0] != script and weight(*pair)]
    latin = [word for each, word in foreign if each == "Latin"]
    if script != "Latin" and len(set(latin)) <= _NAMES and all(not word.islower() or len(word) <= 3 for word in latin):
        foreign = [pair for pair in foreign if pair[0] != "Latin"]
    return own, sum(weight(*pair) for pair in foreign)


def _share(words: Sequence[str], language: str) -> float | None:
    """The share of a sentence's words in a language of their script; None where so few words tell nothing."""
    candidates = _candidates(language)
    if len(candidates) == 1:
        return 1.0
    owners = function_words(words, candidates)
    if len(owners) < (_FEWEST_WORDS if all(map(str.istitle, words)) else 1):  # Dan and Ben are function words elsewhere
        words = [word for word in words if not word.istitle() and len(word) > 1]  # names say nothing
        if len(words) < _FEWEST_WORDS:
            return None
    own = {word for word, languages in owners.items() if language in languages}
    if len(own) == len(owners) and len(own) > _CLEAR_WORDS:
        return 1.0
    best = _likely(words, language)
    rivals = Counter(each for languages in owners.values() for each in languages if each != language)
    rival = best if best != language else max(rivals, key=rivals.get, default="")
    others = {word for word, languages in owners.items() if rival in languages}
    parts = [sum(len(word) > 1 and word in only for word in words) for only in (own - others, others - own)]
    if min(parts) >= _FEWEST_WORDS and 4 * min(parts) >= sum(parts):
        return parts[0] / sum(parts)  # both languages in one sentence
    return float(best == language)


def _likely(words: Sequence[str], language: str) -> str:
    best, lead = most_likely(words, _candidates(language), language)
    return best if best == language or lead > _BENEFIT else language


@cache
def _candidates(language: str) -> tuple[str, ...]:
    """A language and the frequent ones of its script, without those so near that a sentence hardly tells them apart."""
    near = {other for kin in _KIN if language in kin.split() for other in kin.split()}
    script = SCRIPT_OF[language]
    if script in UNSPACED:
        return (language,)
    return tuple(sorted({language} | {each for each in _FREQUENT if SCRIPT_OF[each] == script and each not in near}))
