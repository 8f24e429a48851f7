"""Which of a few languages a sentence is in: by its script first, then by function words, then by a small statistical model.

The model is py3langid's naive Bayes classifier over byte n-grams (BSD licence, 5 MB), restricted to the languages in question and
loaded when a sentence first needs it. Formulas and code should be gone before (`spoutnik.tasks.prose`): they read as English.
"""

import copy
import math
from collections import Counter
from collections.abc import Collection, Iterable
from functools import cache, lru_cache

import regex
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from spoutnik.tasks.function_words import FUNCTION_WORDS

UNDETERMINED = "und"  # BCP 47: there is a language, and which one cannot be told
_SCRIPTS = {  # script -> the ISO 639-1 codes of the languages written in it
    "Latin": """af az bs br ca cs cy da de en eo es et eu fi fr fy ga gd gl ha hr ht hu id ig is it jv ku la lb lg ln lt lv mg ms
        mt nl nn no oc om pl pt qu ro rw se sk sl sn so sq st sv sw tk tl tr uz vi vo wa xh yo zu""",
    "Cyrillic": "ba be bg kk ky mk mn ru sr tg tt uk", "Arabic": "ar fa ps ug ur", "Devanagari": "hi mr ne sa",
    "Han": "zh", "Japanese": "ja", "Hangul": "ko", "Thai": "th", "Bengali": "bn as", "Telugu": "te", "Tamil": "ta",
    "Hebrew": "he", "Greek": "el", "Gujarati": "gu", "Kannada": "kn", "Malayalam": "ml", "Gurmukhi": "pa", "Oriya": "or",
    "Sinhala": "si", "Georgian": "ka", "Armenian": "hy", "Ethiopic": "am", "Khmer": "km", "Lao": "lo", "Myanmar": "my",
    "Tibetan": "dz",
}
SCRIPT_OF = {language: script for script, languages in _SCRIPTS.items() for language in languages.split()}
SUPPORTED = tuple(sorted(SCRIPT_OF))
UNSPACED = ("Han", "Japanese", "Thai", "Khmer", "Lao", "Myanmar", "Tibetan")  # written without spaces: letters are counted

_KANA = r"\p{Hiragana}\p{Katakana}ー"
_CLASSES = {script: _KANA if script == "Japanese" else rf"\p{{{script}}}" for script in _SCRIPTS}
_LETTER = {script: regex.compile(rf"[[{letters}]&&\p{{L}}]", regex.V1) for script, letters in _CLASSES.items()}
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*")
_LANGUAGES_OF: dict[str, tuple[str, ...]] = {}
for _language, _words in FUNCTION_WORDS.items():
    for _word in set(_words.split()):
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)
