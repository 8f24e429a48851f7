"""The store of samples: what was written is read again, a killed process costs nothing but what it was computing."""

import asked
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.evals.samples import ModelReply, SampleStore, problem_id, read_samples, sample_of

PROBLEM = asked.SUMS.problem(1, 2)


def sample(number: int = 0, answer: str = "3", thought: str = "so"):
    return sample_of(PROBLEM, number, ModelReply(thought, answer, True, bool(answer), 3, 1), 1.0)


def store(folder, *samples):
    opened = SampleStore(folder)
    for each in samples:
        opened.append(each)
    return opened


@given(st.text(st.characters(codec="utf-8"), max_size=60), st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_read_as_it_was_written(tmp_path_factory, thought, answer):
    folder = tmp_path_factory.mktemp("texts")
    kept = sample(0, answer, thought)
    store(folder, kept).close()
    assert read_samples(folder / "samples.jsonl") == [kept]


def test_half_a_character_does_not_lose_the_sample(tmp_path):
    store(tmp_path, sample(answer="3 \ud83d")).close()
    assert read_samples(tmp_path / "samples.jsonl")[0].answer == "3 ?"


@pytest.mark.parametrize("end", ['{"task": "sums", "prob', '{"task": "é'.encode()[:-1].decode("utf-8", "ignore"), "\x00"])
def test_half_a_line_at_the_end_is_cut_off_and_its_sample_asked_again(tmp_path, end):
    store(tmp_path, sample(0), sample(1)).close()
    whole = (tmp_path / "samples.jsonl").read_bytes()
    (tmp_path / "samples.jsonl").write_bytes(whole + end.encode())
    opened = SampleStore(tmp_path)
    key = problem_id(PROBLEM)
    assert opened.missing([(key, 0), (key, 1), (key, 2)]) == [(key, 2)]
    opened.append(sample(2))
    opened.close()
    assert [each.sample for each in read_samples(tmp_path / "samples.jsonl")] == [0, 1, 2]


def test_a_sample_is_kept_before_the_next_one_comes(tmp_path):
    opened = store(tmp_path, sample(0))
    assert len(read_samples(tmp_path / "samples.jsonl")) == 1
    opened.close()


def test_of_two_samples_with_one_key_the_first_counts(tmp_path):
    opened = store(tmp_path, sample(0, "3"), sample(0, "4"))
    assert [each.answer for each in opened.samples.values()] == ["3"]
    opened.close()
    line = (tmp_path / "samples.jsonl").read_text()
    (tmp_path / "samples.jsonl").write_text(line + line.replace('"answer": "3"', '"answer": "4"'))
    assert [each.answer for each in read_samples(tmp_path / "samples.jsonl")] == ["3"]


@pytest.mark.parametrize("line, told", [
    ("{broken", "line 2: not valid JSON"), ("[1]", "line 2: is no sample"), ('{"task": "sums"}', "line 2: the key 'problem'"),
    ("swap", "line 2: correct")])
def test_a_broken_line_in_the_middle_is_a_sentence_with_its_number(tmp_path, line, told):
    store(tmp_path, sample(0), sample(1), sample(2)).close()
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"correct": 1.0', '"correct": 7') if line == "swap" else line
    (tmp_path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=told):
        SampleStore(tmp_path)


def test_the_finished_file_is_in_the_order_asked_whatever_came_first(tmp_path):
    key = problem_id(PROBLEM)
    for folder, order in ((tmp_path / "a", (0, 1, 2)), (tmp_path / "b", (2, 0, 1))):
        store(folder, *map(sample, order)).finish([(key, 1), (key, 0)])
    first, second = ((tmp_path / name / "samples.jsonl").read_bytes() for name in "ab")
    assert first == second and [each.sample for each in read_samples(tmp_path / "a" / "samples.jsonl")] == [1, 0, 2]


def test_a_problem_is_known_by_what_is_asked_and_what_is_expected():
    assert problem_id(PROBLEM) == problem_id(asked.Sums().problem(1, 2)) != problem_id(asked.SUMS.problem(2, 1))
