"""From documents to rows: what is kept and what is dropped, both splits, and runs that were interrupted."""

import json
import re
from pathlib import Path

import pytest
from documents.scripted_teacher import answered, documents, teacher, written

from spoutnik.commands.progress import SilentDisplay
from spoutnik.documents import output
from spoutnik.documents.journal import Journal, TeacherReply
from spoutnik.documents.making import MakeSettings, make_rows
from spoutnik.documents.output import check_out, write_output
from spoutnik.errors import RunError, UserError
from spoutnik.recipe.adapt_data import read_adapt_data
from spoutnik.recipe.hygiene import HygieneSettings
from spoutnik.recipe.own_data import own_data
from spoutnik.recipe.stage_kinds import SFTStage
from spoutnik.tasks.own import read_task
from spoutnik.train.data.loading import load_data


@pytest.fixture
def docs(tmp_path) -> Path:
    return documents(tmp_path / "docs")


class Scripted:
    """Answers by a function of the message. stop_after: replies before it is interrupted."""

    name = "scripted"

    def __init__(self, answer=teacher, stop_after: int | None = None, facts: str = "first"):
        self.answer, self.stop_after, self.asked, self.facts = answer, stop_after, [], {"content": facts}

    def ask(self, asks, on_reply, on_tokens):
        for number, ask in reversed(list(enumerate(asks))):  # replies come in no order
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(ask)
            reply = self.answer(ask.text)
            on_tokens(7)
            on_reply(number, reply if isinstance(reply, TeacherReply) else TeacherReply(reply, True, 7))


def make(docs: Path, asked: Scripted, journal: Path | None = None, **settings):
    journal = journal or docs.parent / "q.journal"
    return make_rows([docs], lambda: asked, lambda: Journal(journal), MakeSettings(**settings), SilentDisplay())


def test_every_question_is_kept_or_dropped_for_a_reason_also_those_beyond_what_was_asked_for(docs):
    _, report, _ = make(docs, Scripted(), per_passage=1)
    assert (report.questions, report.kept, report.dropped["more_than_asked_for"]) == (16, 8, 8)
    assert report.kept + sum(report.dropped.values()) == report.questions
    assert any("more of one passage than were asked for (--per-passage)" in line for line in report.sentences())


def test_each_row_has_the_span_that_proves_it_and_passages_stay_on_one_side(docs):
    rows, report, _ = make(docs, Scripted(), held_out_share=0.3)
    assert (report.questions, report.kept, sum(report.dropped.values()), report.verifiers) == (
        16, 16, 0, {"numeric": 8, "exact": 8})
    for row in rows:
        source = row["metadata"]["source"]
        text = (docs.parent / source["file"]).read_text()
        assert text[source["start"]:source["end"]] == source["quote"] and row["answer"] in source["quote"]
    sides = {(row["metadata"]["source"]["file"], row["split"]) for row in rows}
    assert len(sides) == 8 and 0 < report.held_out == sum(row["split"] == "held_out" for row in rows) < 16


def test_rows_are_read_as_traces_and_as_tasks_with_the_same_split(docs):
    out = docs.parent / "q.jsonl"
    rows, report, asked = make(docs, Scripted(), held_out_share=0.3)
    write_output(out, rows, report, asked, MakeSettings())
    held_out = {row["prompt"] for row in rows if row["split"] == "held_out"}
    task = read_task(out)
    assert {problem.prompt for problem in task.problems("held_out")} == held_out and not task.notes
    problem = task.problems("train")[0]
    assert task.verify(problem, problem.answer) == 1.0 and task.verify(problem, "99") == 0.0
    loaded = load_data(out)
    assert loaded.report.used == 16 and "split" not in loaded.description
    stage = SFTStage.model_validate({"kind": "sft", "from": "base", "file": str(out),
                                     "settings": {"epochs": 1, "learning_rate": 1e-3}})
    data = own_data(stage, HygieneSettings())  # without a held_out_share of its own
    assert {row["prompt"] for row in data.held_out.rows} == held_out
    assert held_out.isdisjoint(row["prompt"] for row in data.train.rows) and len(data.train.rows) == 16 - report.held_out
    adapt = read_adapt_data(out, "sft", None, {}, "last", None)  # learns the answers, and compares by the rows' verifiers
    assert {row["prompt"] for row in adapt.held_out.rows} == held_out and adapt.traces.rows == data.train.rows
    assert {row["prompt"] for row in adapt.problems if row["split"] == "held_out"} == held_out and adapt.verifier.kind == "rows"
    assert read_adapt_data(out, None, None, {}, "last", None).method == "grpo"


@pytest.mark.parametrize("answer, reason, count", [
    (lambda text: written(text).replace("Quote: It is", "Quote: They are") if text.startswith("Write") else answered(text),
     "quote_not_in_the_document", 8),
    (lambda text: written(text) if text.startswith("Write") else "99", "not_reproduced", 16),
    (lambda text: written(text) if text.startswith("Write") else "Not stated.", "not_reproduced", 16),
    (lambda text: written(text) if text.startswith("Write") else TeacherReply(answered(text), False, 7), "not_reproduced", 16),
    (lambda text: re.sub(r"Where.*", "Where is the valve cast?", written(text)) if text.startswith("Write") else answered(text),
     "duplicate", 7),
    (lambda text: re.sub(r"(Answer: \w+)\n(?=Quote: It)", r"\1 is where it is cast and built with much care\n", written(text))
     if text.startswith("Write") else answered(text), "needs_a_judge", 8)], ids=range(6))
def test_what_does_not_hold_is_dropped_and_counted(docs, answer, reason, count):
    rows, report, _ = make(docs, Scripted(answer))
    assert report.dropped[reason] == count and len(rows) == report.kept == 16 - count
    example = report.examples[reason][0]
    assert example["place"].startswith("docs/") and example["question"] and len(report.examples[reason]) == 3


def test_a_fact_of_two_passages_is_not_on_both_sides(docs):
    (docs / "again.txt").write_text("As everybody has known for years: the pump Ada weighs 11 kg without its oil.")

    def answer(text: str) -> str:
        if not text.startswith("Write"):
            return answered(text)
        return written(text) if "As everybody" not in text else (
            "Question: What is it that the pump Ada weighs without its oil?\nAnswer: 11 kg\n"
            "Quote: the pump Ada weighs 11 kg without its oil")

    rows, report, _ = make(docs, Scripted(answer), held_out_share=0.5)
    facts = [row["split"] for row in rows if row["answer"] == "11 kg"]
    assert len(set(facts)) == 1 and len(facts) + report.dropped["on_both_sides"] == 2


def test_opinions_are_asked_only_where_they_are_wanted_and_make_judged_rows(docs):
    def answer(text: str):
        if text.startswith("Write"):
            return written(text)
        if text.startswith("Two people"):
            return TeacherReply("Yes", True, 1, 0.6 if "Paris" in text else None if "Lyon" in text else 0.9)
        return "12345" if "How much" in text else f"the city of {answered(text)}"

    rows, report, _ = make(docs, Scripted(answer), judged=True)
    assert {row["verifier"] for row in rows} == {"judge"} and len(rows) == 7 and report.opinion == 7
    assert (report.without_probability, report.dropped["not_agreed"], report.dropped["not_reproduced"]) == (1, 1, 8)
    assert {row["metadata"].get("probability") for row in rows} == {0.9, None}
    assert "ignore_case" not in rows[0] and rows[0]["rubric"]
    read_task_rows = [json.dumps(row) + "\n" for row in rows]
    (docs.parent / "j.jsonl").write_text("".join(read_task_rows))
    assert len(read_task(docs.parent / "j.jsonl").problems("train")) == 7 - report.held_out


@pytest.mark.parametrize("stop_after", [0, 3, 8, 13])
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(docs, stop_after):
    whole, _, _ = make(docs, Scripted())
    journal = docs.parent / "killed.journal"
    first = Scripted(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        make(docs, first, journal)
    with journal.open("ab") as file:
        file.write(b'{"key": "cut wh')  # kill -9 while a line was written
    second = Scripted()
    rows, _, _ = make(docs, second, journal)
    assert json.dumps(rows) == json.dumps(whole)
    assert len(first.asked) + len(second.asked) == 24 and not {ask.text for ask in first.asked} & {a.text for a in second.asked}
    third = Scripted()
    make(docs, third, journal)
    assert not third.asked
    other = Scripted(facts="another teacher")
    make(docs, other, journal)
    assert len(other.asked) == 24
    journal.write_text("no reply\n" + journal.read_text())
    with pytest.raises(UserError, match=r"killed.journal, line 1: is no reply that this program kept"):
        make(docs, third, journal)


@pytest.mark.parametrize("with_rows", [False, True], ids=["first", "again"])
def test_killed_between_the_report_and_the_rows_the_command_still_owns_its_file(docs, monkeypatch, with_rows):
    out = docs.parent / "q.jsonl"
    if with_rows:
        write_output(out, *make(docs, Scripted(), held_out_share=0.3), MakeSettings(held_out_share=0.3))
    before = out.read_bytes() if with_rows else None
    made = make(docs, Scripted())

    def killed(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(output, "write_text", killed)
        write_output(out, *made, MakeSettings())
    assert (out.read_bytes() if out.exists() else None) == before
    check_out(out)
    write_output(out, *made, MakeSettings())
    check_out(out)
    assert len(load_data(out).rows) == 16


def test_rows_that_were_changed_while_the_teacher_was_asked_are_not_overwritten(docs):
    out = docs.parent / "q.jsonl"
    made = make(docs, Scripted())
    out.write_text("mine\n")
    with pytest.raises(UserError, match="is not what this command last wrote"):
        write_output(out, *made, MakeSettings())
    assert out.read_text() == "mine\n" and not out.with_suffix(".report").exists()


def test_a_teacher_that_never_writes_a_question_is_given_up(docs):
    for number in range(60):
        (docs / f"{number}.txt").write_text(" ".join(f"word{number}x{place}" for place in range(30)))
    hopeless = Scripted(lambda text: "Sure! Here is a poem instead.")
    with pytest.raises(RunError, match="of 50 replies none holds a question in the form .*'Sure! Here"):
        make(docs, hopeless)
    assert len(hopeless.asked) == 50
