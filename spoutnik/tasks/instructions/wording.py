"""Instructions on the words of a response: keywords, letters, lengths, case and language."""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from spoutnik.tasks.instructions.instruction import Instruction, Relation, stands_in
from spoutnik.tasks.instructions.languages import CANDIDATES, language_of
from spoutnik.tasks.instructions.sentences import sentences, words

Count = Annotated[int, Field(ge=0)]
Phrase = Annotated[str, StringConstraints(min_length=1)]
Phrases = Annotated[list[Phrase], Field(min_length=1)]

# What separates words that are written together; an apostrophe separates only the short forms below.
_SEPARATORS = re.compile(r"[\s,:;@#$%&?!\[\](){}<>\"“”«»]+|--+|\.{3,}")
_SHORT_FORM = re.compile(r"(?<=[^\W\d_])(?:N'T|'(?:S|M|D|LL|RE|VE))$")


def _known_language(code: str) -> str:
    """The code without a region ("zh-cn"). Raises ValueError for a language that is not told from others."""
    language = code.lower().split("-")[0]
    if language not in CANDIDATES:
        raise ValueError(f"must be one of {', '.join(CANDIDATES)}")
    return language


class Keywords(Instruction):
    """All keywords occur, also within words; case does not count."""

    id: ClassVar[str] = "keywords:existence"
    keywords: Phrases

    def follows(self, response: str) -> bool:
        return all(_occurs(keyword, response) for keyword in self.keywords)


class KeywordFrequency(Instruction):
    """A keyword occurs so often."""

    id: ClassVar[str] = "keywords:frequency"
    relation: Relation
    keyword: Phrase
    frequency: Count

    def follows(self, response: str) -> bool:
        occurrences = re.findall(re.escape(self.keyword.strip()), response, re.IGNORECASE)
        return stands_in(self.relation, len(occurrences), self.frequency)


class ForbiddenWords(Instruction):
    """None of the words occurs as a word of its own."""

    id: ClassVar[str] = "keywords:forbidden_words"
    forbidden_words: Phrases

    def follows(self, response: str) -> bool:
        return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", response, re.IGNORECASE)
                       for word in self.forbidden_words)


class LetterFrequency(Instruction):
    """A letter, or another character, occurs so often; case does not count."""

    id: ClassVar[str] = "keywords:letter_frequency"
    let_relation: Relation
    letter: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1)]
    let_frequency: Count

    def follows(self, response: str) -> bool:
        return stands_in(self.let_relation, response.lower().count(self.letter.lower()), self.let_frequency)


class NumberOfWords(Instruction):
    """A response of so many words."""

    id: ClassVar[str] = "length_constraints:number_words"
    relation: Relation
    num_words: Count

    def follows(self, response: str) -> bool:
        return stands_in(self.relation, len(words(response)), self.num_words)


class NumberOfSentences(Instruction):
    """A response of so many sentences."""

    id: ClassVar[str] = "length_constraints:number_sentences"
    relation: Relation
    num_sentences: Count

    def follows(self, response: str) -> bool:
        return stands_in(self.relation, len(sentences(response)), self.num_sentences)


class ResponseLanguage(Instruction):
    """The response is in one language (ISO 639-1). A response without a letter is in none: the official check lets it pass,
    and a model in training would find that out."""

    id: ClassVar[str] = "language:response_language"
    language: Annotated[str, AfterValidator(_known_language)]

    def follows(self, response: str) -> bool:
        return language_of(response) == self.language


class EnglishCapital(Instruction):
    """English, all capitals."""

    id: ClassVar[str] = "change_case:english_capital"

    def follows(self, response: str) -> bool:
        return response.isupper() and language_of(response) == "en"


class EnglishLowercase(Instruction):
    """English, no capitals."""

    id: ClassVar[str] = "change_case:english_lowercase"

    def follows(self, response: str) -> bool:
        return response.islower() and language_of(response) == "en"


class CapitalWordFrequency(Instruction):
    """So many words are written in capitals. I'M counts as two, as it does for the official check."""

    id: ClassVar[str] = "change_case:capital_word_frequency"
    capital_relation: Relation
    capital_frequency: Count

    def follows(self, response: str) -> bool:
        capitals = [word for word in _SEPARATORS.split(response) if word.isupper()]
        short_forms = sum(_SHORT_FORM.search(word.rstrip(".'*_")) is not None for word in capitals)
        return stands_in(self.capital_relation, len(capitals) + short_forms, self.capital_frequency)


def _occurs(keyword: str, response: str) -> bool:
    return re.search(re.escape(keyword), response, re.IGNORECASE) is not None
