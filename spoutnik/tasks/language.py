"""How far a text is in its language, and how much it reflects.

Texts in the words of this package's own tasks, English or French, are counted word by word; the word lists are those of its
wordings plus the commonest function words, and words of both languages or of neither (names, spelled words, numbers) are
neutral. All other texts, in any language, go to `count_language`.
"""

import re
from collections.abc import Iterable

from spoutnik.tasks import general_text, names, phrases, vocabulary, word_list
from spoutnik.tasks.families import (
    arithmetic,
    bases,
    calendar,
    countdown,
    equations,
    letters,
    liars,
    operations,
    ordering,
    spell,
)
from spoutnik.tasks.family import LANGUAGES
from spoutnik.tasks.function_words import FUNCTION_WORDS
from spoutnik.tasks.identification import word_owners
from spoutnik.tasks.language_count import LanguageCount, count_language

REFLECTION_WORDS = frozenset("""
    wait mistake however but retry error verify wrong evaluate check
    attends attendez erreur cependant pourtant mais essaie réessaie vérifie vérifier vérifions vérification faux
    évalue évaluons
""".split())
_WORD = re.compile(r"[^\W\d_]+")
_FIELD = re.compile(r"\{[^}]*\}")


def _words_in(value: str | dict | Iterable) -> Iterable[str]:
    """All the words of nested wordings, without the names of their fields."""
    if isinstance(value, str):
        yield from _WORD.findall(_FIELD.sub(" ", value).lower())
    else:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _words_in(inner)


def _vocabulary(language: str) -> frozenset[str]:
    families = (arithmetic, bases, calendar, countdown, equations, letters, liars, operations, ordering, spell)
    wordings = [family.TEXT for family in families]
    wordings += [phrases.TEXT, ordering.RELATIONS, calendar.WEEKDAYS, calendar.MONTHS, general_text.TEXT]
    words = set(_words_in([wording[language] for wording in wordings])) | set(FUNCTION_WORDS[language].split())
    neutral = {name.lower() for name in names.NAMES} | set(word_list.COMMON)
    return frozenset(word for word in words - neutral if len(word) > 1)


_EVERY = {language: _vocabulary(language) for language in LANGUAGES}
_SHARED = frozenset.intersection(*_EVERY.values())
VOCABULARY = {language: _EVERY[language] - _SHARED for language in LANGUAGES}
_NEUTRAL = "neutral"
_WORDS = dict.fromkeys([*_SHARED, *map(str.lower, names.NAMES), *word_list.COMMON, *vocabulary.WORDS], _NEUTRAL)
_WORDS |= {word: language for language in LANGUAGES for word in VOCABULARY[language]}
# $, \ and `; letters of other scripts, invisible characters, and the capital letter that has two small characters.
_UNFAMILIAR = re.compile(r"[^\x09-\x23\x25-\x5b\x5d-\x5f\x61-\xac\xae-\u012f\u0131-\u024f\u1e00-\u1eff\u2010-\u2027"
                         r"\u2030-\u205f\u2070-\u27ff\ufffd]")
_CODE = ("://", "):")
_MOST_UNKNOWN = 0.1  # of the words, whichever they are
_FEW_UNKNOWN, _BUT_FOR_FEW = 4, 0.75  # different ones (spelled words, a slip), and their most of the words
_FOREIGN = 3  # different ones that are function words of other languages
_REPEATED = re.compile(r"\b([^\W\d_]{2,20})(?:[^\w]+\1\b){7}")


def language_consistency(text: str, language: str) -> float:
    """Share, in [0, 1], of the countable words of a text that belong to a language; 1.0 when there is none.

    Args:
        text: a thought or an answer; formulas and code count nothing.
        language: an ISO 639-1 code.

    Raises:
        ValueError: the code is unknown.
    """
    return language_words(text, language).share


def language_words(text: str, language: str) -> LanguageCount:
    """What `language_consistency` is the share of: its `counted` tells a text in the language from one without words."""
    if language in VOCABULARY and not _UNFAMILIAR.search(text) and not any(mark in text for mark in _CODE):
        count = _familiar_words(text.lower(), language)
        if count is not None:
            return count
    return count_language(text, language)


def _familiar_words(text: str, language: str) -> LanguageCount | None:
    """The count by the word lists; None for a text that is not in the words of our tasks, or repeats one to be counted."""
    words = _WORD.findall(text)
    languages = [_WORDS.get(word) for word in words]
    target = languages.count(language)
    counted = len(words) - languages.count(None) - languages.count(_NEUTRAL)
    if None in languages and _is_foreign([word for word in words if len(word) > 1], bool(counted)):
        return None
    if (None in languages or 0 < target < counted) and _REPEATED.search(text):
        return None
    return LanguageCount(target, counted)


def _is_foreign(words: list[str], has_known: bool) -> bool:
    """Whether the unknown ones among the words are more than spelled words and slips."""
    unknown = [word for word in words if word not in _WORDS]
    different = set(unknown)
    if sum(bool(word_owners(word)) for word in different) >= _FOREIGN:
        return True
    if len(unknown) <= _MOST_UNKNOWN * len(words) or not has_known and len(different) < _FOREIGN:
        return False
    return not has_known or len(different) > _FEW_UNKNOWN or len(unknown) > _BUT_FOR_FEW * len(words)


def reflection_count(text: str) -> int:
    """How many of the paper's reflection words (wait, mistake, however...) or of their French twins a text has."""
    return sum(word.lower() in REFLECTION_WORDS for word in _WORD.findall(text))
