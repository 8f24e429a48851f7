"""What people say about answers becomes lines that training reads; wrong lines are refused in a sentence."""

import json

import pytest

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_jsonl
from spoutnik.store.feedback import Feedback, Opinion, lessons, read_pairs, read_tasks
from spoutnik.train.sft import read_traces, trace_document

ASKED = [{"role": "user", "content": "How much is 2 + 2?"}]


def opinion(name, answer="5", messages=ASKED, **said):
    return Opinion(name, "nano", messages, "Let me see.", answer, **said)


def test_a_correction_is_a_task_and_a_pair(tmp_path):
    feedback = Feedback(tmp_path / "feedback")
    feedback.give(opinion("a", correction="4"))
    assert read_tasks(feedback.folder / "tasks.jsonl") == [{"prompt": "How much is 2 + 2?", "answer": "4"}]
    assert read_pairs(feedback.folder / "pairs.jsonl") == [{"prompt": "How much is 2 + 2?", "chosen": "4", "rejected": "5"}]
    assert read_jsonl(feedback.folder / "traces.jsonl") == []


def test_liked_answers_are_traces_that_a_recipe_accepts(tmp_path, tokenizer):
    feedback = Feedback(tmp_path)
    feedback.give(opinion("a", "4", rating="up"))
    (trace,) = read_traces(tmp_path / "traces.jsonl")
    assert trace == {"prompt": "How much is 2 + 2?", "thought": "Let me see.", "answer": "4", "model": "nano"}
    assert trace_document(trace, tokenizer).loss_from > 0


def test_a_liked_and_a_disliked_answer_to_one_question_are_a_pair():
    rows = lessons([opinion("a", "4", rating="up"), opinion("b", "5", rating="down"), opinion("c", "4", rating="up"),
                    opinion("d", "6", [{"role": "user", "content": "3 + 3?"}], rating="down")])
    assert rows["pairs"] == [{"prompt": "How much is 2 + 2?", "chosen": "4", "rejected": "5"}]
    assert len(rows["traces"]) == 1 and rows["tasks"] == []


def test_the_last_word_counts(tmp_path):
    feedback = Feedback(tmp_path)
    for rating in ("up", "down", None):
        feedback.give(opinion("a", rating=rating))
    assert feedback.opinions()["a"].rating is None
    assert all(read_jsonl(tmp_path / f"{name}.jsonl") == [] for name in ("traces", "tasks", "pairs"))
    assert len(read_jsonl(tmp_path / "given.jsonl")) == 3  # and none is lost


def test_what_needs_its_context_is_kept_but_teaches_nothing(tmp_path):
    later = [*ASKED, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Are you sure?"}]
    feedback = Feedback(tmp_path)
    feedback.give(opinion("a", "No.", later, correction="Yes."))
    feedback.give(opinion("b", "", rating="up"))  # nor does an answer that is not there
    assert feedback.opinions()["a"].messages == later
    assert all(read_jsonl(tmp_path / f"{name}.jsonl") == [] for name in ("traces", "tasks", "pairs"))


def test_a_fresh_folder_has_no_opinions_and_is_not_made_by_looking(tmp_path):
    assert Feedback(tmp_path / "none").opinions() == {} and not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file.*--data"):
        Feedback(tmp_path / "file" / "feedback").give(opinion("a"))


@pytest.mark.parametrize("reader, good, wrong, said", [
    (read_tasks, {"prompt": "a", "answer": "b"}, {"prompt": "a"}, "line 2: the key 'answer' is missing"),
    (read_tasks, {"prompt": "a", "answer": "b"}, {"prompt": "a", "answer": 4}, "line 2: 'answer' must be a text"),
    (read_tasks, {"prompt": "a", "answer": "b"}, {"prompt": " ", "answer": "b"}, "row 2: 'prompt' is empty"),
    (read_pairs, {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b"}, "'rejected' is missing"),
    (read_pairs, {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "b"}, "same text"),
])
def test_wrong_lines_are_named(tmp_path, reader, good, wrong, said):
    path = tmp_path / "own.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps(wrong)}\n")
    with pytest.raises(UserError, match=said):
        reader(path)
    path.write_text("{\n")
    with pytest.raises(UserError, match="line 1: not valid JSON"):
        reader(path)
    path.write_text("")
    with pytest.raises(UserError, match="is empty"):
        reader(path)
    path.write_text(json.dumps(good | {"source": "me"}))
    assert len(reader(path)) == 1
