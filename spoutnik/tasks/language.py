"""Which language a text is in, word by word, and how much it reflects.

The word lists are those of this package's own wordings plus the commonest function words. Words of both languages
or of neither (names, spelled words, numbers) are neutral.
"""

import re
from collections.abc import Iterable

from spoutnik.tasks import general_text, names, phrases, word_list
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

FUNCTION_WORDS = {
    "en": """the of and to in is it you that he was for on are with as his they at be this have from or had by but not
        what all were we when your can said there use an each which she do how their if will up other about out many
        then them these so some her would make like him into time has look two more write go see no way could my than
        first been who its now find down did get come made may after before yes right because equal number answer
        question thinking three four five again also only must very here where why""",
    "fr": """le la les un une des du de et est il elle que qui dans pour pas sur au aux avec ce cette ces se sa son ses
        ne plus par je tu nous vous ils elles mais ou où donc car si tout tous toute fait faire peut été être avoir
        ont sont était comme on y en leur lui bien aussi même sans deux trois quatre cinq encore puis alors ainsi
        oui non quel quelle quels quelles combien comment pourquoi quand réponse réflexion nombre égal parce très""",
}
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


def language_consistency(text: str, language: str) -> float:
    """Share, in [0, 1], of the countable words of a text that belong to the language; 1.0 when there is none."""
    if language not in VOCABULARY:
        raise ValueError(f"There is no language {language!r}: the languages are {', '.join(LANGUAGES)}.")
    words = [word.lower() for word in _WORD.findall(text)]
    target = sum(word in VOCABULARY[language] for word in words)
    other = sum(word in VOCABULARY[each] for word in words for each in LANGUAGES if each != language)
    return target / (target + other) if target + other else 1.0


def reflection_count(text: str) -> int:
    """How many of the paper's reflection words (wait, mistake, however...) or of their French twins a text has."""
    return sum(word.lower() in REFLECTION_WORDS for word in _WORD.findall(text))
