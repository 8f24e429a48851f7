"""Which of a few languages a sentence is in: by its script first, then by function words, then by a small statistical model.

The model is py3langid's naive Bayes classifier over byte n-grams (BSD licence, 5 MB), restricted to the languages in question
and loaded when a sentence first needs it. Formulas and code should be gone before (`spoutnik.tasks.prose`): they read as
English.
"""

import copy
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache

import regex
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from spoutnik.tasks.function_words import FUNCTION_WORDS, TELLING_LETTERS

UNDETERMINED = "und"  # BCP 47: a text in none of the languages, or without a letter
_SCRIPTS = {  # script -> the ISO 639-1 codes of the languages written in it
    "Latin": """af az bs br ca cs cy da de en eo es et eu fi fr fy ga gd gl ha hr ht hu id ig is it jv ku la lb lg ln lt lv mg
        ms mt nl nn no oc om pl pt qu ro rw se sk sl sn so sq st sv sw tk tl tr uz vi vo wa xh yo zu""",
    "Cyrillic": "ba be bg kk ky mk mn ru sr tg tt uk", "Arabic": "ar fa ps ug ur", "Devanagari": "hi mr ne sa",
    "Han": "zh", "Japanese": "ja", "Hangul": "ko", "Thai": "th", "Bengali": "bn as", "Telugu": "te", "Tamil": "ta",
    "Hebrew": "he", "Greek": "el", "Gujarati": "gu", "Kannada": "kn", "Malayalam": "ml", "Gurmukhi": "pa", "Oriya": "or",
    "Sinhala": "si", "Georgian": "ka", "Armenian": "hy", "Ethiopic": "am", "Khmer": "km", "Lao": "lo", "Myanmar": "my",
    "Tibetan": "dz",
}
SCRIPT_OF = {language: script for script, languages in _SCRIPTS.items() for language in languages.split()}
SUPPORTED = tuple(sorted(SCRIPT_OF))
UNSPACED = frozenset({"Han", "Japanese", "Thai", "Khmer", "Lao", "Myanmar", "Tibetan"})  # written without spaces
MIXED = "mixed"  # letters of two alphabets in one word: look-alikes
_ALPHABETS = ("Latin", "Cyrillic", "Greek")  # the look-alikes
_KANA = r"\p{Hiragana}\p{Katakana}ー"
_RUN = regex.compile("|".join([
    r"(?P<alphabet>[\p{Latin}\p{Cyrillic}\p{Greek}][\p{Latin}\p{Cyrillic}\p{Greek}\p{M}]*+)",
    rf"(?P<Japanese>[{_KANA}]++)", r"(?P<Han>[\p{Han}]++)",
    *(rf"(?P<{script}>\p{{{script}}}[\p{{{script}}}\p{{M}}]*+)" for script in _SCRIPTS
      if script not in (*_ALPHABETS, "Japanese", "Han")),
    r"(?P<other>\p{L}[\p{L}\p{M}]*+)"]))
_LATIN_TEXT = re.compile("[\x00-\u024f\u1e00-\u1eff\u2010-\u2027\u2030-\u205e]*")
_LATIN_WORD = re.compile(r"[^\W\d_]+")
_OF_ONE_ALPHABET = {script: regex.compile(rf"[\p{{{script}}}\p{{M}}]++") for script in _ALPHABETS}
_LETTERS = regex.compile(r"\p{L}")
_LANGUAGES_OF: dict[str, tuple[str, ...]] = {}
for _language, _words in FUNCTION_WORDS.items():
    for _word in dict.fromkeys(_words.split()):
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)
_OWNERS_OF_LETTER = {letter: tuple(language for language, letters in TELLING_LETTERS.items() if letter in letters)
                     for letters in TELLING_LETTERS.values() for letter in letters}
_LONGEST_WORD = 64  # letters that are looked at, and kept in memory
_WEIGHT = 1.5  # of one function word, in the unit of the model's scores: nats by the square root of the text's bytes
_CLEAR_HITS, _CLEAR_RATIO = 2.0, 2.5  # function words that decide alone, and how many times more of them than of any other


def runs(text: str) -> list[tuple[str, str]]:
    """(script, word) of a text's words, in order; of scripts without spaces, whole runs of letters.

    A script is one of SCRIPT_OF's, or MIXED, or "other". Kana is Japanese, Han letters are Han wherever they stand.
    """
    if text.isascii() or _LATIN_TEXT.fullmatch(text):  # the same, many times faster
        return [("Latin", word) for word in _LATIN_WORD.findall(text)]
    return [(_alphabet_of(match[0][:_LONGEST_WORD]) if match.lastgroup == "alphabet" else match.lastgroup, match[0])
            for match in _RUN.finditer(text)]


def weight(script: str, word: str) -> int:
    """What a run counts: one as a word, its letters where no spaces are written, nothing as one letter of a formula."""
    if script in UNSPACED:
        return len(_LETTERS.findall(word))
    return int(len(word) > 1 or script not in ("Latin", "Greek"))


def check_language(language: str) -> None:
    """Raise ValueError for a code that is none of SUPPORTED."""
    if language not in SCRIPT_OF:
        raise ValueError(f"There is no language {language!r}: give an ISO 639-1 code, one of {', '.join(SUPPORTED)}.")


def identify(sentence: str, languages: Sequence[str]) -> str:
    """The language, of those given, that a sentence is most likely in; UNDETERMINED where none is written in its script.

    Args:
        sentence: some words, without formulas and code.
        languages: ISO 639-1 codes.

    Raises:
        ValueError: a code is unknown.
    """
    for language in languages:
        check_language(language)
    words = runs(sentence)
    amounts: Counter[str] = Counter()
    for script, word in words:
        amounts[script] += weight(script, word)
    if amounts["Japanese"]:  # kana; their Han letters are Japanese too
        amounts["Japanese"] += amounts.pop("Han", 0)
    scripts = [script for script, _ in amounts.most_common()]
    for script in scripts:
        candidates = tuple(sorted({language for language in languages if SCRIPT_OF[language] == script}))
        if not candidates and script == "Han":
            candidates = tuple(language for language in ("ja",) if language in languages)
        if candidates:
            return most_likely([word for other, word in words if other == script], candidates)[0]
    return UNDETERMINED


def most_likely(words: Sequence[str], candidates: tuple[str, ...], over: str | None = None) -> tuple[str, float]:
    """The likeliest of candidates of one script, and its lead over the next, in nats by the square root of the bytes.

    over: the candidate that the lead is over, in place of the next.
    """
    if len(candidates) == 1:
        return candidates[0], math.inf
    hits = dict.fromkeys(candidates, 0.0)
    for owners in function_words(words, candidates).values():
        for language in owners:
            hits[language] += 1 / len(owners)
    ordered = sorted(candidates, key=hits.__getitem__, reverse=True)
    if hits[ordered[0]] >= max(_CLEAR_HITS, _CLEAR_RATIO * hits[ordered[1]]):
        scores = {language: _WEIGHT * value for language, value in hits.items()}
    else:
        text = " ".join(words)
        scale = 1 / math.sqrt(len(text.encode()) or 1)
        scores = {language: score * scale + _WEIGHT * hits[language] for language, score in _model_of(candidates).rank(text)}
        ordered = sorted(candidates, key=scores.__getitem__, reverse=True)
    return ordered[0], scores[ordered[0]] - scores[over if over in candidates else ordered[1]]


def function_words(words: Iterable[str], candidates: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Word -> those of the candidates that it is a function word of; words of none are left out."""
    owners_of = _owners_among(candidates)
    owners = {word: owners_of(word) for word in words if len(word) <= _LONGEST_WORD}
    return {word: languages for word, languages in owners.items() if languages}


@cache
def _owners_among(candidates: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    wanted = frozenset(candidates)
    return lru_cache(maxsize=1 << 14)(lambda word: tuple(each for each in word_owners(word.lower()) if each in wanted))


def word_owners(word: str) -> tuple[str, ...]:
    """The languages that a word in small letters speaks for, as a function word or by its letters."""
    owners = _LANGUAGES_OF.get(word, ())
    return owners if owners or word.isascii() else next(
        (_OWNERS_OF_LETTER[letter] for letter in word if letter in _OWNERS_OF_LETTER), ())


@lru_cache(maxsize=4096)
def _alphabet_of(word: str) -> str:
    return next((script for script, pattern in _OF_ONE_ALPHABET.items() if pattern.fullmatch(word)), MIXED)


@cache
def _whole_model() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE)


@lru_cache(maxsize=16)  # some 10 MB each
def _model_of(candidates: tuple[str, ...]) -> LanguageIdentifier:
    model = copy.copy(_whole_model())
    model.set_languages(candidates)
    return model
