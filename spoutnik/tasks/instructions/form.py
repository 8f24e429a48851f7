"""Instructions on the form of a response: lists, sections, paragraphs, marks, beginnings and ends."""

import json
import re
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from spoutnik.tasks.instructions.instruction import Instruction

Number = Annotated[int, Field(ge=1)]
Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
ALLOWED_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")  # those of IFEval's prompts
_FENCES = ("```json", "```Json", "```JSON", "```")


class NumberOfPlaceholders(Instruction):
    """At least so many [placeholders]."""

    id: ClassVar[str] = "detectable_content:number_placeholders"
    num_placeholders: Number

    def follows(self, response: str) -> bool:
        return sum(map(_placeholders, response.split("\n"))) >= self.num_placeholders


class Postscript(Instruction):
    """There is a postscript, behind its marker."""

    id: ClassVar[str] = "detectable_content:postscript"
    postscript_marker: Phrase

    def follows(self, response: str) -> bool:
        forms = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
        pattern = forms.get(self.postscript_marker, re.escape(self.postscript_marker.lower()))
        return re.search(pattern, response.lower()) is not None


class ConstrainedResponse(Instruction):
    """One of three fixed answers is in it."""

    id: ClassVar[str] = "detectable_format:constrained_response"

    def follows(self, response: str) -> bool:
        return any(answer in response for answer in ALLOWED_ANSWERS)


class JsonFormat(Instruction):
    """The whole response is JSON, in a code block or not."""

    id: ClassVar[str] = "detectable_format:json_format"

    def follows(self, response: str) -> bool:
        text = response.strip()
        for fence in _FENCES:
            text = text.removeprefix(fence)
        try:
            json.loads(text.removesuffix("```").strip())
        except (ValueError, RecursionError):
            return False
        return True


class MultipleSections(Instruction):
    """At least so many sections, each headed by a word and a number."""

    id: ClassVar[str] = "detectable_format:multiple_sections"
    section_spliter: Phrase  # so spelled in IFEval's files
    num_sections: Number

    def follows(self, response: str) -> bool:
        return len(re.findall(rf"{re.escape(self.section_spliter)}\s?\d+", response)) >= self.num_sections


class NumberOfBullets(Instruction):
    """Exactly so many lines that begin with * or -."""

    id: ClassVar[str] = "detectable_format:number_bullet_lists"
    num_bullets: Number

    def follows(self, response: str) -> bool:
        lines = [line.lstrip() for line in response.split("\n")]
        bullets = sum(line.startswith("-") or (line.startswith("*") and line[1:2] not in ("", "*")) for line in lines)
        return bullets == self.num_bullets


class NumberOfHighlights(Instruction):
    """At least so many *highlighted* or **highlighted** parts, each within a line."""

    id: ClassVar[str] = "detectable_format:number_highlighted_sections"
    num_highlights: Number

    def follows(self, response: str) -> bool:
        single = sum(bool(part.strip("*").strip()) for part in re.findall(r"\*[^\n*]*\*", response))
        double = sum(bool(part[2:-2].strip()) for part in re.findall(r"\*\*[^\n*]*\*\*", response))
        return single + double >= self.num_highlights


class Title(Instruction):
    """A <<title>> that is not blank."""

    id: ClassVar[str] = "detectable_format:title"

    def follows(self, response: str) -> bool:
        return any(_title(line) for line in response.split("\n"))


class NumberOfParagraphs(Instruction):
    """Exactly so many paragraphs, *** between two of them."""

    id: ClassVar[str] = "length_constraints:number_paragraphs"
    num_paragraphs: Number

    def follows(self, response: str) -> bool:
        paragraphs = _without_blank_ends(response.split("***"))
        return all(map(str.strip, paragraphs)) and len(paragraphs) == self.num_paragraphs


class ParagraphFirstWord(Instruction):
    """Exactly so many paragraphs, blank lines between them, and one of them begins with a word."""

    id: ClassVar[str] = "length_constraints:nth_paragraph_first_word"
    num_paragraphs: Number
    nth_paragraph: Number
    first_word: Phrase

    def follows(self, response: str) -> bool:
        paragraphs = response.split("\n\n")
        count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
        if count != self.num_paragraphs or self.nth_paragraph > count:
            return False
        begun = paragraphs[self.nth_paragraph - 1].split(maxsplit=1)
        first = re.split(r"[.,?!'\"]", begun[0].lstrip("'").lstrip('"'))[0] if begun else ""
        return first.lower() == self.first_word.lower()


class NoComma(Instruction):
    """No comma."""

    id: ClassVar[str] = "punctuation:no_comma"

    def follows(self, response: str) -> bool:
        return "," not in response


class EndPhrase(Instruction):
    """The last words are given."""

    id: ClassVar[str] = "startend:end_checker"
    end_phrase: Phrase

    def follows(self, response: str) -> bool:
        return response.strip().strip('"').lower().endswith(self.end_phrase.lower())


class Quotation(Instruction):
    """Double quotation marks around the whole response."""

    id: ClassVar[str] = "startend:quotation"

    def follows(self, response: str) -> bool:
        text = response.strip()
        return len(text) > 1 and text[0] == text[-1] == '"'


class RepeatPrompt(Instruction):
    """The request is repeated before it is answered."""

    id: ClassVar[str] = "combination:repeat_prompt"
    prompt_to_repeat: Phrase

    def follows(self, response: str) -> bool:
        return response.strip().lower().startswith(self.prompt_to_repeat.lower())


class TwoResponses(Instruction):
    """Two different responses, ****** between them."""

    id: ClassVar[str] = "combination:two_responses"

    def follows(self, response: str) -> bool:
        responses = [each.strip() for each in _without_blank_ends(response.split("******"))]
        return len(responses) == 2 and all(responses) and responses[0] != responses[1]


def _without_blank_ends(parts: list[str]) -> list[str]:
    """Without a first and a last part that are blank."""
    if parts and not parts[0].strip():
        parts = parts[1:]
    return parts[:-1] if parts and not parts[-1].strip() else parts


def _placeholders(line: str) -> int:
    """Pairs of square brackets, one after the other, in one pass: a line may be a megabyte of open ones."""
    count = position = 0
    while (start := line.find("[", position)) >= 0 and (end := line.find("]", start)) >= 0:
        count, position = count + 1, end + 1
    return count


def _title(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    return start >= 0 and bool(line[start + 2:end].lstrip("<").rstrip(">").strip()) if end > start else False
