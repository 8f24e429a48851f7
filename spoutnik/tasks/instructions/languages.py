"""The language of a response, among those that instructions name."""

from functools import cache, lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

# Those of IFEval's prompts, and those that a response may be in instead.
CANDIDATES = tuple("ar bg bn cs da de el en es fa fi fr gu he hi hu id it ja kn ko mr ne nl no pa pl pt ro ru sv sw ta te th "
                   "tr uk ur vi zh".split())
LONGEST = 5_000  # characters that are looked at; more say nothing new


@lru_cache(maxsize=256)
def language_of(text: str) -> str | None:
    """ISO 639-1; None for a text without a letter."""
    text = text[:LONGEST].lower()  # models of languages have hardly seen capitals
    if not any(character.isalpha() for character in text):
        return None
    return _identifier().classify(text)[0]


@cache
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(CANDIDATES)
    return identifier
