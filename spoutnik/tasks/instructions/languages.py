"""The language of a response, among those that instructions name."""

from functools import lru_cache

from spoutnik.tasks.identification import UNDETERMINED, identify

# Those of IFEval's prompts, and those that a response may be in instead.
CANDIDATES = tuple("ar bg bn cs da de el en es fa fi fr gu he hi hu id it ja kn ko mr ne nl no pa pl pt ro ru sv sw ta te th "
                   "tr uk ur vi zh".split())
LONGEST = 5_000  # characters that are looked at; more say nothing new


@lru_cache(maxsize=256)
def language_of(text: str) -> str | None:
    """ISO 639-1; None for a text without a letter, or in another script."""
    language = identify(text[:LONGEST].lower(), CANDIDATES)
    return None if language == UNDETERMINED else language
