"""Questions of a teacher, checked one by one without asking anybody."""

import re
from dataclasses import dataclass
from typing import Literal

from spoutnik.documents.answers import LONGEST_ANSWER, answer_row
from spoutnik.documents.passages import Passage
from spoutnik.documents.spans import Span, find_span
from spoutnik.documents.wording import Candidate
from spoutnik.tasks.hygiene import words_of
from spoutnik.tasks.own.rows import JudgeRow, Row

# Why a question is dropped, in the order in which it is looked at.
Reason = Literal["incomplete", "refers_to_the_text", "answer_in_the_question", "quote_not_in_the_document",
                 "quote_proves_nothing", "quote_too_long", "answer_too_long", "needs_a_judge", "more_than_asked_for",
                 "duplicate", "not_reproduced", "not_agreed", "on_both_sides"]
REASONS: dict[Reason, str] = {
    "incomplete": "without question, answer or quote",
    "refers_to_the_text": "question refers to a text that its reader does not see",
    "answer_in_the_question": "answer stands in the question",
    "quote_not_in_the_document": "quote is not in the document",
    "quote_proves_nothing": "quote is too short to prove anything",
    "quote_too_long": "quote is most of a passage",
    "answer_too_long": "answer is too long",
    "more_than_asked_for": "more of one passage than were asked for (--per-passage)",
    "needs_a_judge": "answer that only a judge could grade (kept with --judged)",
    "duplicate": "question (nearly) repeats an earlier one",
    "not_reproduced": "answer does not follow from the quote alone: the teacher gives another one, or none",
    "not_agreed": "answer that the teacher itself does not find in the quote",
    "on_both_sides": "states what a held-out question asks"}
FEWEST_QUOTED_WORDS, LONGEST_QUOTE = 4, 700  # characters

_TEXT = r"(?:text|passage|extract|excerpt|snippet|paragraph|author|writer)s?"
_PLACE = rf"(?:{_TEXT}|(?:document|article|section|page|figure|table)s?)"  # what may also be a thing of the subject itself
_REFERS = re.compile(rf"""
    \baccording\s+to\s+(?:the|this|that)\s+(?:\w+\s+)?{_PLACE}\b |
    \b(?:in|from|by|of|does|did|is)\s+(?:the|that)\s+(?:(?:given|above|following|provided|quoted)\s+)*{_TEXT}\b |
    \b(?:this|these|the\s+(?:above|following|given|provided|aforementioned))\s+\w+ |
    \b(?:mentioned|described|stated|listed|shown|discussed|given|quoted)\s+(?:above|below|here|earlier|in\s+the\s+{_PLACE}) |
    \b(?:as|see)\s+above\b |
    \b(?:selon|d['’]après|dans|de)\s+(?:le|la|l['’]|ce|cet|cette)\s*(?:texte|passage|document|article|extrait|paragraphe|section|
        auteur|tableau|figure)\b | \bci-(?:dessus|dessous|contre)\b | \bl['’]auteur\b |
    \b(?:laut|nach|in|im|aus|gemäß)\s+(?:dem|der|diesem|dieser|obigem|obigen)?\s*(?:text|abschnitt|dokument|artikel|auszug|absatz|
        autor)\b | \b(?:según|en|del)\s+(?:el|este|esta)?\s*(?:texto|pasaje|documento|artículo|extracto|párrafo|autor)\b
    """, re.IGNORECASE | re.VERBOSE)
_ALTERNATIVES = re.compile(r"\b(?:or|ou|oder|o)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """A question whose quote was found. row: with the verifier of its answer."""

    row: Row
    span: Span
    passage: Passage

    @property
    def needs_judge(self) -> bool:
        return isinstance(self.row, JudgeRow)


def check_candidate(candidate: Candidate, passage: Passage, language: str) -> Question | Reason:
    """A question, or why it is dropped. language: of the passage."""
    question, answer = (" ".join(text.split()) for text in (candidate.question, candidate.answer))
    if not (question and answer and candidate.quote.strip()):
        return "incomplete"
    if _REFERS.search(question):
        return "refers_to_the_text"
    if _gives_away(question, answer):
        return "answer_in_the_question"
    span = find_span(candidate.quote, passage)
    if span is None:
        return "quote_not_in_the_document"
    if len(words_of(span.quote)) < max(FEWEST_QUOTED_WORDS, len(words_of(answer)) + 1):
        return "quote_proves_nothing"
    if len(span.quote) > LONGEST_QUOTE:
        return "quote_too_long"
    row = answer_row(question, answer, language) if len(answer) <= LONGEST_ANSWER else None
    return "answer_too_long" if row is None else Question(row, span, passage)


def _gives_away(question: str, answer: str) -> bool:
    """Whether the answer stands in the question, which does not offer it beside another one."""
    asked, words = words_of(question), words_of(answer)
    places = range(len(asked) - len(words) + 1)
    return (bool(words) and any(asked[place:place + len(words)] == words for place in places)
            and not _ALTERNATIVES.search(question))
