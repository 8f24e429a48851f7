"""Feedback on answers becomes rows that training reads."""

import pytest

from spoutnik.errors import RunError
from spoutnik.files import read_jsonl
from spoutnik.store.feedback import AnswerFeedback, FeedbackStore, training_rows
from spoutnik.train.data.loading import read_traces
from spoutnik.train.sft import trace_document

ASKED = [{"role": "user", "content": "How much is 2 + 2?"}]


def feedback(name, answer="5", messages=ASKED, **fields):
    return AnswerFeedback(name, "nano", messages, "Let me see.", answer, **fields)


def test_a_correction_is_a_task_and_a_pair(tmp_path):
    store = FeedbackStore(tmp_path / "feedback")
    store.record(feedback("a", correction="4"))
    assert read_jsonl(store.folder / "tasks.jsonl") == [{"prompt": "How much is 2 + 2?", "answer": "4"}]
    assert read_jsonl(store.folder / "pairs.jsonl") == [{"prompt": "How much is 2 + 2?", "chosen": "4", "rejected": "5"}]
    assert read_jsonl(store.folder / "traces.jsonl") == []


def test_liked_answers_are_traces_that_a_recipe_accepts(tmp_path, tokenizer):
    store = FeedbackStore(tmp_path)
    store.record(feedback("a", "4", rating="up"))
    (trace,) = read_traces(tmp_path / "traces.jsonl")
    assert trace == {"prompt": "How much is 2 + 2?", "thought": "Let me see.", "answer": "4", "model": "nano"}
    assert trace_document(trace, tokenizer).loss_from > 0


def test_a_liked_and_a_disliked_answer_to_one_question_are_a_pair():
    rows = training_rows([feedback("a", "4", rating="up"), feedback("b", "5", rating="down"), feedback("c", "4", rating="up"),
                          feedback("d", "6", [{"role": "user", "content": "3 + 3?"}], rating="down")])
    assert rows["pairs"] == [{"prompt": "How much is 2 + 2?", "chosen": "4", "rejected": "5"}]
    assert len(rows["traces"]) == 1 and rows["tasks"] == []


def test_the_last_word_counts(tmp_path):
    store = FeedbackStore(tmp_path)
    for rating in ("up", "down", None):
        store.record(feedback("a", rating=rating))
    assert store.latest()["a"].rating is None
    assert all(read_jsonl(tmp_path / f"{name}.jsonl") == [] for name in ("traces", "tasks", "pairs"))
    assert len(read_jsonl(tmp_path / "given.jsonl")) == 3  # and none is lost


def test_what_needs_its_context_is_kept_but_teaches_nothing(tmp_path):
    later = [*ASKED, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Are you sure?"}]
    store = FeedbackStore(tmp_path)
    store.record(feedback("a", "No.", later, correction="Yes."))
    store.record(feedback("b", "", rating="up"))  # nor does an answer that is not there
    assert store.latest()["a"].messages == later
    assert all(read_jsonl(tmp_path / f"{name}.jsonl") == [] for name in ("traces", "tasks", "pairs"))


def test_a_fresh_folder_has_no_feedback_and_is_not_made_by_looking(tmp_path):
    assert FeedbackStore(tmp_path / "none").latest() == {} and not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file.*--data"):
        FeedbackStore(tmp_path / "file" / "feedback").record(feedback("a"))
