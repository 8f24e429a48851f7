"""The sentence that closes a thought which is cut, in the language of the question."""

import re
import unicodedata
from collections.abc import Sequence

from spoutnik.tasks.language import FUNCTION_WORDS
from spoutnik.text.chat_template import Message

CLOSINGS = {"en": "I have thought long enough; here is my answer.",
            "fr": "J'ai assez réfléchi ; voici ma réponse."}
DEFAULT = "en"
MAX_READ = 2000  # characters of a message: its beginning tells the language
_ASKING = {"en": "calculate compute solve give write explain hello hi thanks times plus minus find much many please tell does "
                 "did",
           "fr": "calcule calculez résous résolvez donne donnez écris écrivez explique expliquez bonjour salut merci fois "
                 "moins trouve trouvez dis dites"}
_WORD = re.compile(r"[^\W\d_]+")
_ELISION = re.compile(r"\b(?:qu|[cdjlmnst])['’](?=\w)", re.IGNORECASE)  # l'aire, qu'il, d'un


def closing_sentence(messages: Sequence[Message]) -> str:
    """In the language of the last question that has one: French or English, which is also for other languages in Latin
    letters. "" where most letters are of another script: there the mark alone ends the thought."""
    for message in reversed(messages):
        content = message.get("content")
        if message.get("role") != "user" or not isinstance(content, str):
            continue
        language = language_of(content[:MAX_READ])
        if language is not None:
            return CLOSINGS.get(language, "")
    return CLOSINGS[DEFAULT]


def language_of(text: str) -> str | None:
    """"en", "fr", "other" for another script; None where nothing tells."""
    letters = [character for character in text if character.isalpha()]
    latin = sum(unicodedata.name(character, "").startswith("LATIN") for character in letters)
    if 2 * latin < len(letters):
        return "other"
    words = [word.lower() for word in _WORD.findall(text)]
    french = sum(word in _WORDS["fr"] for word in words) + len(_ELISION.findall(text))
    english = sum(word in _WORDS["en"] for word in words)
    if french == english:
        return None
    return "fr" if french > english else "en"


def _own_words() -> dict[str, frozenset[str]]:
    """Function words of one language that the other does not have (on, me, an ...)."""
    words = {language: {*FUNCTION_WORDS[language].split(), *_ASKING[language].split()} for language in CLOSINGS}
    return {language: frozenset(own - set().union(*(words[other] for other in words if other != language)))
            for language, own in words.items()}


_WORDS = _own_words()
