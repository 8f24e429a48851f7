"""A teacher's questions: how replies are read, where quotes stand, which answers can be graded, what is dropped."""

import json

import pytest

from spoutnik.documents.answers import answer_row
from spoutnik.documents.candidates import REASONS, Question, check_candidate
from spoutnik.documents.passages import Passage
from spoutnik.documents.reading import Document
from spoutnik.documents.section import Section
from spoutnik.documents.spans import find_span
from spoutnik.documents.splitting import drop_known_facts, held_out_passages
from spoutnik.documents.teacher import yes_probability
from spoutnik.documents.wording import Candidate, read_questions, read_verdict
from spoutnik.tasks.own.reading import checked_row

TEXT = ("Preface.\n\nThe pump A lifts 30 litres per minute.  It was built\nin **Toulouse** by “Marie Du­pont”, and it weighs "
        "12.5 kg – with its stand. The manu-\nfacturer changes the oil every 400 hours; the eﬀect is known.")
LABELED = "Question: Who built it?\nAnswer: Marie\nQuote: It was built"


def passage(text: str = TEXT, start: int = 0, offset: int = 0, **section) -> Passage:
    from pathlib import Path

    part = Section(text, offset, **section)
    return Passage(Document(Path("a.md"), "docs/a.md", (part,)), part, start, len(text))


@pytest.mark.parametrize("reply", [
    LABELED, "Here you are:\n\n1. **Question:** Who built it?\n   **Answer:** Marie\n   **Quote:** It was built\n\n---\n",
    "### Question 1: Who built it?\n- Answer: Marie\n- Quote: It was built", LABELED.replace("Question", "QUESTION"),
    '```json\n[{"question": "Who built it?", "answer": "Marie", "quote": "It was built"}]\n```',
    '{"questions": [{"Question": "Who built it?", "Answer": "Marie", "Quote": "It was built"}]}',
    '{"question": "Who built it?", "answer": "Marie", "quote": "It was built"}'], ids=range(7))
def test_replies_are_read_in_every_form_that_models_write(reply):
    assert read_questions(reply) == [Candidate("Who built it?", "Marie", "It was built")]


def test_several_questions_and_parts_that_are_missing():
    assert read_questions(f"{LABELED}\n\nQuestion: And when?\nAnswer: 1912") == [
        Candidate("Who built it?", "Marie", "It was built"), Candidate("And when?", "1912", "")]
    assert read_questions('[{"question": "How many?", "answer": 3, "quote": null}, 7]') == [Candidate("How many?", "3", "")]
    assert read_questions(" **NONE**. ") == []
    for reply in ("I am sorry, but I cannot help with that.", "", "[1, 2", '{"a": [1]}'):
        assert read_questions(reply) is None


@pytest.mark.parametrize("reply, verdict", [("yes", True), ("**Yes**, both.", True), ("No.", False), ("not sure", None),
                                            ("Both answers", None), ("", None)])
def test_verdicts(reply, verdict):
    assert read_verdict(reply) is verdict


@pytest.mark.parametrize("quote, kept", [
    ("It was built in Toulouse by \"Marie Dupont\"", "It was built\nin **Toulouse** by “Marie Du­pont”"),
    ("... weighs 12.5  kg - with its stand.", "weighs 12.5 kg – with its stand."),
    ("The manufacturer changes the oil", "The manu-\nfacturer changes the oil"),
    ("'the effect is known.'", "the eﬀect is known."), ("‘Marie Dupont’", "Marie Du­pont")], ids=range(5))
def test_a_quote_is_found_however_it_is_set_and_the_document_s_own_text_is_kept(quote, kept):
    span = find_span(quote, passage(offset=100, heading="Pumps"))
    assert span.quote == kept and TEXT[span.start - 100:span.end - 100] == kept
    assert (span.file, span.heading, span.page) == ("docs/a.md", "Pumps", None)


def test_a_quote_that_is_not_there_letter_by_letter_is_not_found():
    for quote in ("It was built in Lyon", "the pump A lifts", "weighs 12.6 kg", "Preface.", "", "..."):
        assert find_span(quote, passage(start=10)) is None
    repeated = "A b c d. " * 3
    assert find_span("b c d", passage(repeated, start=9, page=3)).start == 11  # the first one within the passage


@pytest.mark.parametrize("answer, verifier, options, same, other", [
    ("30", "numeric", {}, "It is \\boxed{30}", "31"), ("12.5 kg", "numeric", {"unit": "kg"}, "12.50 kg", "12.4 kg"),
    ("3 km/h", "numeric", {"unit": "km/h"}, "3", "4"), ("1,200", "numeric", {}, "1200", "1.2"),
    ("20 %", "numeric", {}, "0.2", "2 %"), ("3 March", "exact", {}, "3 march.", "3"), ("17:30", "exact", {}, "17:30", "17"),
    ("Marie Dupont", "exact", {}, "**marie dupont**", "Marie"), ("x^2 + 1", "math", {}, "\\boxed{1 + x^2}", "x^2 - 1")])
def test_answers_get_the_verifier_of_their_form(answer, verifier, options, same, other):
    row = answer_row("What?", answer, "en")
    assert row.verifier == verifier and row.model_dump(include=set(options)) == options
    assert row.verify(same) == 1.0 and row.verify(other) == 0.0


def test_long_answers_need_a_judge():
    assert answer_row("Why?", "because the oil that it holds is used up after so many hours", "en").verifier == "judge"
    assert answer_row("Combien ?", "1 200,5 kg", "fr").verify("1200,5 kg") == 1.0


QUOTE = "It was built in Toulouse by \"Marie Dupont\""


@pytest.mark.parametrize("question, answer, quote, reason", [
    ("", "Toulouse", QUOTE, "incomplete"), ("Where was the pump A built?", "Toulouse", " ", "incomplete"),
    ("According to the text, where was the pump A built?", "Toulouse", QUOTE, "refers_to_the_text"),
    ("Where was this pump built?", "Toulouse", QUOTE, "refers_to_the_text"),
    ("Selon le passage, où fut construite la pompe ?", "Toulouse", QUOTE, "refers_to_the_text"),
    ("Where is the pump built that is described above?", "Toulouse", QUOTE, "refers_to_the_text"),
    ("In which city was the Toulouse pump built?", "Toulouse", QUOTE, "answer_in_the_question"),
    ("Where was the pump A built?", "Toulouse", "It was built in Lyon", "quote_not_in_the_document"),
    ("Where was the pump A built?", "Toulouse", "in Toulouse", "quote_proves_nothing"),
    ("Who built the pump A?", "built in Toulouse by", "built in Toulouse by", "quote_proves_nothing"),
    ("What of the pump A?", "word " * 130, QUOTE, "quote_proves_nothing")])
def test_why_questions_are_dropped(question, answer, quote, reason):
    assert check_candidate(Candidate(question, answer, quote), passage(), "en") == reason and reason in REASONS


def test_what_is_most_of_a_passage_proves_too_much():
    text = "All of it is quoted here. " * 40
    assert check_candidate(Candidate("What is quoted?", "something", text), passage(text), "en") == "quote_too_long"


@pytest.mark.parametrize("question, answer", [
    ("Where was the pump A built?", "Toulouse"), ("Was the pump A built in Lyon or in Toulouse?", "Toulouse"),
    ("What is the height of the table of model X?", "Toulouse"), ("Who wrote the preface of the code of pumps?", "Toulouse")])
def test_good_questions_pass(question, answer):
    checked = check_candidate(Candidate(question, answer, QUOTE), passage(), "en")
    assert isinstance(checked, Question) and checked.row.prompt == question and not checked.needs_judge


def test_the_held_out_share_is_of_passages_and_stays_where_it_is():
    keys = [f"{number * 2 ** 56:016x}".ljust(64, "0") for number in range(0, 256, 2)]
    held_out = held_out_passages(keys, 0.25)
    assert held_out == set(keys[:32]) and held_out_passages(keys[:10] + keys[100:], 0.25) == set(keys[:10])
    assert held_out_passages(keys[60:], 0.1) == {keys[60]} and held_out_passages(keys[:2], 0.9) == {keys[0]}
    assert held_out_passages(keys, 0.0) == held_out_passages(keys[:1], 0.5) == set()


def test_a_fact_that_is_held_out_is_not_learned_from_another_passage():
    rows = [checked_row({"prompt": prompt, "answer": answer, "verifier": "exact"}) for prompt, answer in (
        ("Where was the pump A built?", "Toulouse"), ("In which city was the pump A built?", "Toulouse"),
        ("Where does Marie Dupont live?", "Toulouse"), ("In which city was the pump A built?", "Lyon"))]
    assert drop_known_facts(rows, [True, False, False, False]) == {1}
    assert drop_known_facts(rows, [False] * 4) == set()
    alike = [checked_row({"prompt": f"How much does the pump {name} weigh?", "answer": "3 kg", "verifier": "exact"})
             for name in "ABCDEFGH"]
    assert drop_known_facts(alike, [True] + [False] * 7) == set()  # eight facts


def test_the_probability_of_yes_is_read_where_the_verdict_stands():
    logs = {"yes": -0.5, " Yes": -2.0, "no": -3.0, "maybe": -1.0}
    places = [("Well", {"yes": -0.1}), ("Yes", logs), (".", {".": 0.0})]
    weights = {name: 2.718281828459045 ** value for name, value in logs.items()}
    yes = weights["yes"] + weights[" Yes"]
    assert yes_probability(places) == pytest.approx(yes / (yes + weights["no"]))
    assert yes_probability([("perhaps", logs)]) is None and yes_probability([]) is None
    assert json.dumps(yes_probability([("no", {"no": -0.1})])) == "0.0"
