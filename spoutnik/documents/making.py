"""From documents to rows: passages, questions about them, and the check that each answer follows from its quote alone.

Each step asks the teacher everything at once. All that it decides is a function of the documents, the settings and the replies,
and the replies are in the journal: a run that was stopped goes on by being run again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from spoutnik.documents.answers import JUDGED
from spoutnik.documents.candidates import Question, check_candidate
from spoutnik.documents.journal import Journal, TeacherReply
from spoutnik.documents.passages import Passage, cut
from spoutnik.documents.reading import read_documents
from spoutnik.documents.report import MakeReport, verifier_counts
from spoutnik.documents.splitting import drop_known_facts, held_out_passages
from spoutnik.documents.teacher import Ask, Progress, Teacher, ask_all
from spoutnik.documents.wording import (
    NOT_STATED,
    Candidate,
    ask_for_agreement,
    ask_for_answer,
    ask_for_questions,
    read_questions,
    read_verdict,
)
from spoutnik.errors import RunError, UserError
from spoutnik.tasks.hygiene import duplicates, words_of
from spoutnik.tasks.identification import UNDETERMINED, identify

LANGUAGES = ("en", "fr", "de", "es", "it", "pt", "nl", "pl", "cs", "sv", "da", "fi", "hu", "ro", "tr", "ru", "uk", "bg", "el",
             "ar", "fa", "he", "hi", "zh", "ja", "ko", "th", "vi", "id")  # that documents are looked for in
YES_AT_LEAST = 0.8  # P(yes) of an agreement
_MOST_UNREADABLE = 50  # replies in a row, and before any that could be read: such a model is no teacher
_ANSWER_TOKENS = 256  # of an answer, beside the thought that a model may have


@dataclass(frozen=True)
class MakeSettings:
    """per_passage: questions asked for. held_out_share: of the passages. max_tokens: of a reply, its thought included.
    temperature: of the questions; answers are checked greedily. judged: keep answers that only a judge can grade. language: of
    the documents (ISO 639-1), None to find it out for each passage. limit: passages, the first ones."""

    per_passage: int = 3
    held_out_share: float = 0.1
    max_tokens: int = 2048
    temperature: float = 0.6
    judged: bool = False
    language: str | None = None
    limit: int | None = None


class Display(Protocol):
    def log(self, text: str) -> None: ...

    def stage(self, name: str, kind: str, position: int, total: int) -> AbstractContextManager[Callable[[str], Progress]]: ...


@dataclass(frozen=True)
class _Asked:
    """A question on its way. written: as the teacher wrote it. agreement: why its answer is taken to follow from its span."""

    question: Question
    written: Candidate
    agreement: str = ""
    probability: float | None = None
    given: str = ""


def make_rows(sources: Sequence[Path], open_teacher: Callable[[], Teacher], open_journal: Callable[[], Journal],
              settings: MakeSettings, display: Display) -> tuple[list[dict], MakeReport, Teacher]:
    """(rows, what became of everything, the teacher). Documents are read before the teacher is opened.

    Raises:
        UserError: the documents cannot be read, or hold nothing to ask about.
        RunError: the teacher cannot be asked, or writes nothing that can be read.
    """
    report = MakeReport()
    passages = _passages(sources, settings, report)
    display.log(f"{len(passages):,} passages of {sum(report.documents.values()):,} documents.")
    teacher, journal = open_teacher(), open_journal()
    steps = 3 if settings.judged else 2
    try:
        with display.stage("questions", "data make", 1, steps) as reporter:
            asked = _questions(passages, teacher, journal, settings, report, reporter("asking"))
        with display.stage("answers", "data make", 2, steps) as reporter:
            asked, others = _reproduced(asked, teacher, journal, settings, reporter("answering from the quote alone"))
        if settings.judged:
            with display.stage("opinions", "data make", 3, steps) as reporter:
                agreed, others = _agreed(others, teacher, journal, settings, report, reporter("comparing"))
            asked += agreed
        for each in others:
            reason = "not_agreed" if each.agreement else "not_reproduced"
            report.drop(reason, each.written, each.question.passage.place, each.given)
    finally:
        journal.close()
    return _rows(asked, passages, teacher, settings, report), report, teacher


def _passages(sources: Sequence[Path], settings: MakeSettings, report: MakeReport) -> list[Passage]:
    documents, report.other_files = read_documents(sources)
    report.documents = dict(Counter(document.path.suffix.lower() for document in documents))
    passages = cut(documents)
    report.too_short, report.repeated, report.without_text = passages.too_short, passages.duplicate, passages.empty
    if not passages.kept:
        scans = " They have no text at all: if they are scans, let a program recognize it first." if passages.empty else ""
        raise UserError(f"{', '.join(map(str, sources))}: no passage of a few sentences to ask about.{scans}")
    kept = passages.kept[:settings.limit]
    report.beyond_limit, report.passages = len(passages.kept) - len(kept), len(kept)
    return kept


def _questions(passages: Sequence[Passage], teacher: Teacher, journal: Journal, settings: MakeSettings, report: MakeReport,
               progress: Progress) -> list[_Asked]:
    asks = [Ask(ask_for_questions(passage.place, passage.text, settings.per_passage), settings.max_tokens, settings.temperature)
            for passage in passages]
    asked: list[_Asked] = []
    replies = ask_all(teacher, journal, asks, progress, _Patience(teacher.name))
    for passage, reply in zip(passages, replies):
        candidates = _read(reply, report)
        language = settings.language or _language(passage.text)
        for candidate in candidates[:settings.per_passage]:
            question = check_candidate(candidate, passage, language)
            if isinstance(question, str):
                report.drop(question, candidate, passage.place)
            elif question.needs_judge and not settings.judged:
                report.drop("needs_a_judge", candidate, passage.place)
            else:
                asked.append(_Asked(question, candidate))
        for candidate in candidates[settings.per_passage:]:
            report.drop("more_than_asked_for", candidate, passage.place)
    repeated = duplicates([each.question.row.prompt for each in asked])
    for number in sorted(repeated.exact | repeated.near):
        report.drop("duplicate", asked[number].written, asked[number].question.passage.place)
    return [each for number, each in enumerate(asked) if number not in repeated.exact and number not in repeated.near]


def _read(reply: TeacherReply, report: MakeReport) -> list[Candidate]:
    """The questions of a reply, counted."""
    report.replies += 1
    report.cut += not reply.finished and not reply.refusal
    if reply.refusal:
        report.refused += 1
        return []
    candidates = read_questions(reply.text)
    report.nothing_to_ask += candidates == []
    report.unreadable += candidates is None
    report.questions += len(candidates or ())
    return candidates or []


class _Patience:
    """Raises RunError where a teacher has written nothing that can be read for long."""

    def __init__(self, name: str):
        self.name, self._in_a_row, self._readable = name, 0, False

    def __call__(self, reply: TeacherReply) -> None:
        self._readable = self._readable or (not reply.refusal and read_questions(reply.text) is not None)
        self._in_a_row += 1
        if not self._readable and self._in_a_row >= _MOST_UNREADABLE:
            shown = reply.refusal or f"the last reply begins with {reply.text[:80]!r}"
            raise RunError(f"{self.name}: of {self._in_a_row} replies none holds a question in the form that was asked for "
                           f"({shown}). Take a larger model as the teacher, or give it more --max-tokens.")


def _language(text: str) -> str:
    language = identify(text, LANGUAGES)
    return "en" if language == UNDETERMINED else language


def _reproduced(asked: Sequence[_Asked], teacher: Teacher, journal: Journal, settings: MakeSettings,
                progress: Progress) -> tuple[list[_Asked], list[_Asked]]:
    """(those whose answer the teacher gives again from the quote alone, as the row's verifier finds; the others)."""
    limit = max(settings.max_tokens, _ANSWER_TOKENS)
    asks = [Ask(ask_for_answer(each.question.row.prompt, each.question.span.quote), limit) for each in asked]
    same, others = [], []
    for each, reply in zip(asked, ask_all(teacher, journal, asks, progress)):
        given = reply.text if reply.finished and not _not_stated(reply.text) else ""
        each = replace(each, given=given)
        if given and not each.question.needs_judge and each.question.row.verify(given) == 1.0:
            same.append(replace(each, agreement=each.question.row.verifier))
        else:
            others.append(each)
    return same, others


def _not_stated(text: str) -> bool:
    return words_of(text)[:2] == words_of(NOT_STATED) or not text.strip()


def _agreed(others: Sequence[_Asked], teacher: Teacher, journal: Journal, settings: MakeSettings, report: MakeReport,
            progress: Progress) -> tuple[list[_Asked], list[_Asked]]:
    """(those whose two answers the teacher finds the same, which a judge will have to grade; the others). Of numbers and
    formulas the verifier's word is final."""
    open_to_opinion, rest = [], []
    for each in others:
        (open_to_opinion if each.given and each.question.row.verifier in ("judge", "exact") else rest).append(each)
    asks = [Ask(ask_for_agreement(each.question.row.prompt, each.question.span.quote, each.question.row.gold, each.given),
                max(settings.max_tokens, _ANSWER_TOKENS), yes_no=True) for each in open_to_opinion]
    agreed = []
    for each, reply in zip(open_to_opinion, ask_all(teacher, journal, asks, progress)):
        verdict = reply.finished and read_verdict(reply.text)
        if verdict and (reply.yes is None or reply.yes >= YES_AT_LEAST):
            report.opinion += 1
            report.without_probability += reply.yes is None
            agreed.append(replace(each, agreement="yes", probability=reply.yes))
        else:
            rest.append(replace(each, agreement="no"))
    return agreed, rest


def _rows(asked: Sequence[_Asked], passages: Sequence[Passage], teacher: Teacher, settings: MakeSettings,
          report: MakeReport) -> list[dict]:
    """The rows in the documents' order, with their split."""
    order = {passage.key: number for number, passage in enumerate(passages)}
    asked = sorted(asked, key=lambda each: (order[each.question.passage.key], each.question.span.start))
    held_out = held_out_passages({each.question.passage.key for each in asked}, settings.held_out_share)
    sides = [each.question.passage.key in held_out for each in asked]
    known = drop_known_facts([each.question.row for each in asked], sides)
    rows = []
    for number, (each, is_held_out) in enumerate(zip(asked, sides)):
        if number in known:
            report.drop("on_both_sides", each.written, each.question.passage.place)
            continue
        rows.append(_row(each, teacher.name, "held_out" if is_held_out else "train"))
    report.kept, report.held_out = len(rows), sum(row["split"] == "held_out" for row in rows)
    report.verifiers = verifier_counts([row["verifier"] for row in rows])
    return rows


def _row(asked: _Asked, teacher: str, split: str) -> dict:
    """A row as tasks of one's own and stages of fine-tuning read it."""
    row = asked.question.row
    options = row.model_dump(exclude_defaults=True, exclude={"prompt", "answer", "verifier"})
    verifier = {"verifier": row.verifier} | options
    if asked.agreement == "yes":
        verifier = JUDGED | {key: value for key, value in options.items() if key == "language"}
    agreement = {"agreement": asked.agreement} | ({} if asked.probability is None else {
        "probability": round(asked.probability, 4)})
    return {"prompt": row.prompt, "answer": row.answer, **verifier, "split": split,
            "metadata": {"source": asked.question.span.as_dict(), "teacher": teacher, **agreement}}
