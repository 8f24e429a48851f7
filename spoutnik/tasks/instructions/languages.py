"""The language of a response: by its script where only one of the asked-for languages is written in it, else by letters."""

from functools import lru_cache

LONGEST = 5_000  # characters that are looked at; more say nothing new


@lru_cache(maxsize=256)
def language_of(text: str) -> str | None:
    """ISO 639-1; None for a text without a letter."""
    text = text[:LONGEST].lower()  # models of languages have hardly seen capitals
    if not any(character.isalpha() for character in text):
        return None
    import py3langid  # takes a second

    return py3langid.classify(text)[0]
