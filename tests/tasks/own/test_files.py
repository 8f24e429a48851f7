"""A user's file of rows as a task: forms of files, what is wrong with them, splits and duplicates."""

import json
import random
import re
import threading

import pytest
from endpoint_server import completion, endpoint_server

from spoutnik.errors import UserError
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.abstention import Abstention
from spoutnik.tasks.grading import accuracy_rewards
from spoutnik.tasks.own import read_task

ROW = {"prompt": "What is 2 + 2?", "answer": "4", "verifier": "exact"}


def write(path, rows, encoding="utf-8"):
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(encoding))
    return path


def many(count: int) -> list[dict]:
    return [{"prompt": f"What is {number} plus 2?", "answer": number + 2, "verifier": "numeric"} for number in range(count)]


def test_rows_are_problems_that_are_verified(tmp_path):
    row = ROW | {"split": "held_out", "language": "fr", "level": 3, "id": "a7", "metadata": {"source": "me"}}
    task = read_task(write(tmp_path / "my.jsonl", [row, *many(20)]))
    problem = task.problems("held_out")[0]
    assert (problem.prompt, problem.answer, problem.language, problem.level) == ("What is 2 + 2?", "4", "fr", 3)
    assert problem.task is task and problem.family == "my.jsonl" and task.languages == ("fr", "en")
    assert task.verify(problem, "4") == 1.0 and task.verify(problem, "5") == 0.0 and task.solve(problem,
    random.Random(0)) is None
    assert task.about == "21 problems of my.jsonl"


def test_the_split_goes_by_the_prompt_alone(tmp_path):
    task = read_task(write(tmp_path / "a.jsonl", many(400)))
    held_out = {problem.prompt for problem in task.problems("held_out")}
    assert len(held_out) + len(task.problems("train")) == 400 and 25 <= len(held_out) <= 80
    fewer = read_task(write(tmp_path / "b.jsonl", [row | {"answer": 0} for row in reversed(many(200))]))
    assert {problem.prompt for problem in fewer.problems("held_out")} == held_out & {row["prompt"] for row in many(200)}
    drawn = {task.sample(random.Random(seed), "held_out").prompt for seed in range(50)}
    assert len(drawn) > 10 and drawn <= held_out
    assert task.sample(random.Random(1), "train") == task.sample(random.Random(1), "train")


def test_many_answers_get_the_grades_that_each_gets_alone_and_a_judge_is_asked_side_by_side(tmp_path):
    together = threading.Barrier(3, timeout=20)

    def respond(body):
        together.wait()  # an answer comes when three are under way
        text = body["messages"][1]["content"]
        return completion(f"VERDICT {re.search(r'VERDICT (.+?): ', text)[1]}: {'correct' if 'Blue' in text else 'incorrect'}")

    with endpoint_server(respond) as server:
        judged = {"prompt": "A colour?", "verifier": "judge", "rubric": "Any.", "endpoint": server.url, "model": "m"}
        code = {"prompt": "Add.", "verifier": "code", "tests": "assert add(1, 2) == 3"}
        rows = [each | {"split": "held_out"} for each in (judged, ROW, code)]
        colour, four, add = (task := read_task(write(tmp_path / "a.jsonl", rows))).problems("held_out")
        right, wrong = "```python\ndef add(a, b): return a + b\n```", "```python\ndef add(a, b): return a\n```"
        asked = [(colour, "Blue"), (add, wrong), (four, "4"), (colour, "Bleu"), (add, right), (four, "5"), (colour, "Blue!"),
                 (add, None)]
        assert task.verify_all(asked) == [1, 0, 1, 0, 1, 0, 1, 0]
        assert accuracy_rewards(asked[1:3] + [(next_task_problem(), "7")]) == [0, 1, 1]
    unsure = Abstention(task, 0.25)
    invited = [unsure._asked(problem) for problem in (four, four, add)]
    assert unsure.verify_all(list(zip(invited, ["I don't know.", "4", wrong]))) == [0.25, 1, 0]


def next_task_problem():
    return next(problem for seed in range(99) if (problem := FAMILIES["arithmetic"].sample(random.Random(seed))).answer == "7")


def test_a_split_without_problems_is_told(tmp_path):
    task = read_task(write(tmp_path / "a.jsonl", [ROW | {"split": "train"}]))
    assert task.problems("held_out") == () and "has no problem that is held out" in task.notes[0]
    with pytest.raises(UserError, match='none of its problems is held out. Give some rows "split": "held_out"'):
        task.sample(random.Random(0), "held_out")
    with pytest.raises(ValueError, match="no split"):
        task.problems("test")


def test_equal_rows_are_counted_once_and_told(tmp_path):
    task = read_task(write(tmp_path / "a.jsonl", [ROW | {"prompt": "Same?"}, *many(29), ROW | {"id": 7, "prompt": "Same?"},
                                                  ROW | {"prompt": "Same?"}]))
    assert len(task.problems("train")) + len(task.problems("held_out")) == 30
    assert any("2 rows are there twice and counted once (line 31, line 32)" in note for note in task.notes)


def test_one_prompt_with_two_answers_is_refused(tmp_path):
    with pytest.raises(UserError) as error:
        read_task(write(tmp_path / "a.jsonl", [ROW, *many(2)[:1], ROW | {"answer": "5"}]))
    assert str(error.value).startswith(f"{tmp_path / 'a.jsonl'}, line 3: has the prompt of line 1 ('What is 2 + 2?'), but is ")


def test_the_hash_follows_the_content(tmp_path):
    first = read_task(write(tmp_path / "a.jsonl", many(20))).content
    assert read_task(write(tmp_path / "b.jsonl", many(20))).content == first
    assert read_task(write(tmp_path / "a.jsonl", many(21))).content != first


def test_byte_order_mark_blank_lines_and_missing_last_line_break(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\n  \n" + json.dumps(many(1)[0]).encode())
    task = read_task(path)
    assert len(task.problems("train")) + len(task.problems("held_out")) == 2


@pytest.mark.parametrize("content, sentences", [
    (b"", ["has no rows. Write one problem a line"]), (b"\n \n", ["has no rows"]), (b"\xef\xbb\xbf", ["has no rows"]),
    (b'{"prompt": "a"\n', ["line 1: is not JSON (", "column"]), (b"[1]\n", ["line 1: must be an object"]),
    (b'{"prompt": "caf\xe9"}\n', ["line 1: is not UTF-8 (byte 16). Save the file as UTF-8."]),
    ("{}".encode("utf-16"), ["is UTF-16. Save the file as UTF-8."]), (b"\x00" * 100, ["line 1: is not JSON"]),
    (b'{"prompt": "a", "prompt": "b"}', ["line 1: is not JSON (a key occurs twice in one object)"]),
    (b'{"prompt": "a", "level": NaN}', ["NaN is no value of JSON"]), (b"[" * 100_000, ["line 1: is nested too deeply"]),
    (b'{"prompt": "a", "level": ' + b"9" * 5000 + b"}", ["line 1: is not JSON"]),
    (b"x\n" * 9, ["line 1: is not JSON", "line 5: is not JSON", "... and 4 more."]),
    (json.dumps(ROW).encode() + b'\n{"prompt": "b", "answer": "c", "verifier": "exakt"}',
     ["line 2: verifier = 'exakt'", "Did you mean 'exact'?"])])
def test_files_that_are_wrong(tmp_path, content, sentences):
    path = tmp_path / "my.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_task(path)
    for sentence in sentences:
        assert sentence in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_huge_line(tmp_path):
    path = tmp_path / "my.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b'\n{"prompt": "' + b"a" * (17 << 20) + b'"}\n')
    with pytest.raises(UserError, match="line 2: is longer than 16 MiB. Write one row a line."):
        read_task(path)


def test_files_that_are_not_there(tmp_path):
    for name, sentence in (("no.jsonl", "is not there. Name a file"), ("", "is a folder"),
                           ("no.py", "is not there. Name a Python file")):
        with pytest.raises(UserError, match=sentence):
            read_task(tmp_path / name)
    (tmp_path / "my.txt").write_text("x")
    with pytest.raises(UserError, match=r"my.txt: a file of rows ends in one of .jsonl, .json, .csv, .parquet"):
        read_task(tmp_path / "my.txt")


def test_json(tmp_path):
    path = tmp_path / "my.json"
    path.write_text(json.dumps([ROW, *many(3)]))
    assert read_task(path).about == "4 problems of my.json"
    path.write_text(json.dumps([ROW, {"prompt": "x"}]))
    with pytest.raises(UserError, match="my.json, row 2: the key 'verifier' is missing"):
        read_task(path)
    path.write_text(json.dumps(ROW))
    with pytest.raises(UserError, match="must be a list of rows"):
        read_task(path)
    path.write_text("[")
    with pytest.raises(UserError, match="my.json: is not JSON"):
        read_task(path)


def test_csv(tmp_path):
    path = tmp_path / "my.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,answer,verifier,choices,absolute_tolerance,split\r\n'
                     b'"Which, ""now""?",B,choice,"[""x"", ""y""]",,held_out\r\n'
                     b"How much?,4.5,numeric,,0.25,held_out\n\"{}?\",\"{\"\"a\"\": 1}\",json,,,held_out\n")
    task = read_task(path)
    which, much, value = task.problems("held_out")
    assert which.prompt.endswith('Which, "now"?\n\nA) x\nB) y') and task.verify(which, "Answer: B") == 1.0
    assert task.verify(much, "4.7") == 1.0 and task.verify(much, "4.8") == 0.0 and task.verify(value, '{"a": 1}') == 1.0


@pytest.mark.parametrize("content, sentence", [
    (b"", "has no rows"), (b"prompt,answer\na\n", "line 2: has another number of cells than the first line (2)."),
    (b"prompt,answer\na,b,c\n", "line 2: has another number"),
    (b"prompt,answer\na,b\n", "line 2: the key 'verifier' is missing"),
    (b"prompt,answer\n\xe9,b\n", "is not UTF-8"), (b'prompt,answer\n"a"b,c\n', "is not CSV"),
    (b"prompt,answer,verifier\na," + b"b" * (17 << 20) + b",exact", "is not CSV (field larger than field limit")])
def test_csv_that_is_wrong(tmp_path, content, sentence):
    path = tmp_path / "my.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_task(path)
    assert sentence in str(error.value)


def test_parquet_needs_pyarrow_or_is_read(tmp_path):
    path = tmp_path / "my.parquet"
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match="my.parquet: (reading Parquet needs pyarrow. Install it|is not Parquet)"):
        read_task(path)


def test_the_judges_of_a_file(tmp_path):
    row = {"verifier": "judge", "rubric": "Any colour.", "endpoint": "http://127.0.0.1:9/v1", "model": "m"}
    rows = [row | {"prompt": "a"}, row | {"prompt": "b"}, row | {"prompt": "c", "votes": 3}, ROW]
    task = read_task(write(tmp_path / "a.jsonl", rows))
    assert [judge.votes for judge in task.judges()] in ([1, 3], [3, 1])
    assert task.judges()[0].report() == "The judge m: 0 of its verdicts could not be read."
