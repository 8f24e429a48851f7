"""Files of benchmarks: every format gives the same records, and what is broken is a sentence with its place."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.tasks.benchmarks.records import Record, read_records

ROWS = [{"question": "How much is \"1, 000\"?\nTell me.", "answer": "5"}, {"question": "Et 3,5 € ?", "answer": "6"}]


def write(path, form):
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"
    if form == ".jsonl":
        path.write_text(lines, "utf-8")
    elif form == ".jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif form == ".json":
        path.write_text(json.dumps(ROWS), "utf-8")
    elif form == ".csv":
        cells = [",".join('"' + str(row[name]).replace('"', '""') + '"' for name in row) for row in ROWS]
        path.write_text("\ufeffquestion,answer\n" + "\n".join(cells) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("form", [".jsonl", ".jsonl.gz", ".json", ".csv"])
def test_every_format_gives_the_same_records(tmp_path, form):
    records = read_records([write(tmp_path / f"test{form}", form)])
    assert [record.values for record in records] == ROWS


@pytest.mark.parametrize("content", [{"examples": ROWS}, {"data": ROWS, "version": 2}, {"rows": ROWS}])
def test_a_list_may_lie_under_a_key(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content), "utf-8")
    assert [record.values for record in read_records([tmp_path / "a.json"])] == ROWS


def test_json_lines_may_be_called_json(tmp_path):
    write(tmp_path / "a.jsonl", ".jsonl").rename(tmp_path / "a.json")
    assert [record.values for record in read_records([tmp_path / "a.json"])] == ROWS


def test_a_table_without_names_has_numbered_columns(tmp_path):
    (tmp_path / "a.tsv").write_text('He said "two\t2\n\nOne?\t1\n', "utf-8")
    records = read_records([tmp_path / "a.tsv"])
    assert [record.values for record in records] == [{"0": 'He said "two', "1": "2"}, {"0": "One?", "1": "1"}]
    assert records[1].where.endswith("a.tsv, line 3") and not records[1].names


@pytest.mark.parametrize("name, content, sentence", [
    ("a.jsonl", b"", "there is no problem in it"),
    ("a.jsonl", b"\n \n", "there is no problem in it"),
    ("a.json", b"[]", "there is no problem in it"),
    ("a.json", b"", "line 1: not valid JSON"),
    ("a.csv", b"question,answer\n", "there is no problem in it"),
    ("a.jsonl", b'{"question": "q"}\n{"question"\n', "line 2: not valid JSON"),
    ("a.jsonl", b'{"question": "q"}\n[1]\n', "line 2: is '[1]'"),
    ("a.json", b'[{"question": "q"},\n 3]', "problem 2: is '3'"),
    ("a.json", b'{"question":\n}', "line 2: not valid JSON"),
    ("a.json", b'"text"', "must be a JSON list"),
    ("a.csv", b"question,answer\na,b\na,b,c\n", "line 3: has 3 columns"),
    ("a.csv", b"question,answer\n\xff,b\n", "not text in UTF-8"),
    ("a.jsonl.gz", b"no gzip", "no whole gzip file"),
    ("a.xlsx", b"PK", "benchmarks are read from"),
    ("a", b"x", "benchmarks are read from"),
    ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs"),
])
def test_what_is_broken_is_a_sentence_with_its_place(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_records([tmp_path / name])
    assert sentence in str(error.value) and str(tmp_path / name) in str(error.value)


def test_parquet_without_its_package_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"spoutnik\[datasets\]"):
        read_records([tmp_path / "a.parquet"])


RECORD = Record("file, line 3", {"a": "text", "b": 145.0, "c": "", "d": None, "e": ["x"], "f": True, "g": float("nan")})


def test_fields_are_read_by_any_of_their_names():
    assert RECORD.text("question", "a") == "text" and RECORD.number("b") == "145" and RECORD.texts("e") == ["x"]


@pytest.mark.parametrize("read, sentence", [
    (lambda: RECORD.text("question", "problem"), "file, line 3: the field 'question' is missing"),
    (lambda: RECORD.text("b"), "file, line 3: the field 'b' is '145.0', where a text belongs"),
    (lambda: RECORD.text("c"), "the field 'c'"),
    (lambda: RECORD.get("d"), "the field 'd' is missing"),
    (lambda: RECORD.number("a"), "where a number belongs"),
    (lambda: RECORD.number("f"), "where a number belongs"),
    (lambda: RECORD.number("g"), "where a number belongs"),
    (lambda: RECORD.texts("a"), "where a list of texts belongs"),
])
def test_a_wrong_field_is_named_with_its_place(read, sentence):
    with pytest.raises(UserError) as error:
        read()
    assert sentence in str(error.value)


@given(content=st.binary(max_size=200), form=st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz"]))
@settings(max_examples=150, deadline=None)
def test_no_bytes_end_in_another_error(tmp_path_factory, content, form):
    path = tmp_path_factory.getbasetemp() / f"any{form}"
    path.write_bytes(content)
    try:
        assert read_records([path])
    except UserError as error:
        assert str(path) in str(error)
