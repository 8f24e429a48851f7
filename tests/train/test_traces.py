"""Files of traces that somebody wrote: what is used, what is left out and counted, what is refused with its line."""

import codecs
import gzip
import json
from dataclasses import asdict

import pytest

from spoutnik.errors import UserError
from spoutnik.train.data.loading import load_traces, read_traces
from spoutnik.train.traces import TraceReport, Traces, notes_of, reports_of

ROW = {"prompt": "What is 2 + 2?", "thought": "2 and 2 is 4.", "answer": "4"}


def write(path, *rows, end="\n", encoding="utf-8"):
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


def test_traces_are_read_in_order_whatever_else_they_hold(tmp_path):
    rows = [ROW | {"source": "x"}, ROW | {"answer": "é"}, ROW | {"history": [["a", "b"]]}]
    assert read_traces(write(tmp_path / "t.jsonl", *rows)) == rows


@pytest.mark.parametrize("encoding, end", [("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-8-sig", "\r\n\r\n")])
def test_a_mark_before_the_text_and_other_line_ends_change_nothing(tmp_path, encoding, end):
    rows = [ROW, ROW | {"answer": "quatre\u2028é\x85"}]
    assert read_traces(write(tmp_path / "t.jsonl", *rows, encoding=encoding, end=end)) == rows


def test_what_teaches_nothing_is_left_out_and_counted(tmp_path):
    wrapped = ROW | {"thought": "<think>\nSo 4.\n</think>"}
    rows = [ROW, ROW | {"answer": " \n"}, ROW | {"prompt": ""}, ROW | {"id": 7}, ROW | {"thought": ""}, wrapped,
            ROW | {"thought": "So </think> 4."}, ROW | {"answer": "<think>4</think> 4"}, ROW | {"thought": "a <think> b"}]
    traces = load_traces(write(tmp_path / "t.jsonl", *rows))
    assert traces.rows == [ROW, ROW | {"thought": ""}, ROW | {"thought": "So 4."}]
    assert traces.report == TraceReport("t.jsonl", read=9, used=3, empty=2, duplicate=1, marks=3, unwrapped=1)
    younger = ("incorrect", "no_reply", "tool_call", "refused", "held_out", "equal", "differing", "tie", "no_opinion",
               "replaced", "alone", "unit")  # in manifests only where there are any
    assert reports_of([traces]) == [{k: v for k, v in asdict(traces.report).items() if k not in younger}]


def test_the_report_is_a_sentence_with_a_remedy_where_much_is_lost():
    few = TraceReport("a.jsonl", read=1000, used=995, too_long=3, duplicate=2)
    assert few.sentence(512) == "a.jsonl: 1,000 traces read, 995 used, 3 too long, 2 duplicates"
    many = TraceReport("a.jsonl", read=10, used=5, too_long=4, empty=1)
    assert many.sentence(512).startswith("Warning: a.jsonl: 10 traces read, 5 used, 4 too long, 1 empty. 50 %")
    assert "512 tokens" in many.sentence(512) and "context" in many.sentence(512)
    assert "Mend the source" in TraceReport("a", read=10, used=5, empty=5).sentence(512)
    whole = Traces.of("general", [ROW]).report
    assert notes_of([asdict(whole), asdict(many)]) == "5 of 10 traces of a.jsonl left out (4 too long, 1 empty)"


deep = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("line, what", [
    ("{", "is not JSON"), (json.dumps({"prompt": "a", "answer": "b"}), "the key 'thought' is missing"),
    ("[1]", "the key 'prompt' is missing"), ("null", "the key 'prompt' is missing"),
    (json.dumps(ROW | {"answer": True}), "'answer' must be a text, not True"),
    (json.dumps(ROW | {"thought": None}), "'thought' must be a text"),
    (json.dumps(ROW | {"answer": ["x" * 10_000]}), "'answer' must be a text, not ['xxx"),
    (json.dumps(ROW | {"history": "x"}), "history must be a list"),
    (json.dumps(ROW | {"history": [["a", "b", "c"]]}), "history must be a list"),
    (json.dumps(ROW | {"history": [["a", None]]}), "history must be a list"),
    (json.dumps(ROW | {"history": [["a", "\ud800"]]}), "'history' holds half of a surrogate pair"),
    (json.dumps(ROW | {"answer": "\udfff"}), "'answer' holds half of a surrogate pair"),
    ('{"x": ' + deep + "}", "nested too deeply"), ('{"x": ' + "9" * 5000 + "}", "is not JSON"),
    ('{"prompt": "a\0", "thought": "", "answer": "b"}', "is not JSON"), ("\0" * 512, "is not JSON"),
    ('{"prompt": "a", "prompt": "b", "thought": "", "answer": "c"}', "a key occurs twice in one object"),
    (json.dumps(ROW) + json.dumps(ROW), "is not JSON"),
])
def test_a_broken_line_is_named_blank_ones_counted(tmp_path, line, what):
    path = write(tmp_path / "t.jsonl", ROW, "", line)
    with pytest.raises(UserError) as error:
        load_traces(path)
    assert str(error.value).startswith(f"{path}, line 3: ") and what in str(error.value) and len(str(error.value)) < 300


def test_all_broken_lines_are_named_at_once(tmp_path):
    path = write(tmp_path / "t.jsonl", "{", ROW, *["x"] * 9)
    with pytest.raises(UserError, match=r"line 1: .*9 more broken lines: 3, 4, 5, 6, 7 \.\.\."):
        load_traces(path)


@pytest.mark.parametrize("content, what", [
    (b"", "holds no traces"), (codecs.BOM_UTF8, "holds no traces"), (b"\n \n", "holds no traces"),
    (json.dumps(ROW).encode("utf-16"), "UTF-16"), (json.dumps(ROW).encode("utf-16-le"), "is not JSON"),
    (json.dumps(ROW | {"answer": "é"}, ensure_ascii=False).encode("latin-1"), "is not UTF-8 (byte"),
    (gzip.compress(json.dumps(ROW).encode(), mtime=0)[:-9], "cannot be unpacked"), (b"[]", "the key 'prompt' is missing"),
    (b"version https://git-lfs.github.com/spec/v1\noid x\n", "git-lfs"),
    (json.dumps(ROW | {"answer": ""}).encode(), "none of its traces can be learned from (1 empty)"),
])
def test_a_file_that_is_none_of_traces_is_refused(tmp_path, content, what):
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(UserError) as error:
        load_traces(tmp_path / "t.jsonl")
    assert str(error.value).startswith(str(tmp_path / "t.jsonl")) and what in str(error.value)


def test_a_folder_without_rows_and_nothing_are_refused(tmp_path):
    for path, what in ((tmp_path, "is a folder without files of rows"), (tmp_path / "x", "no such file"),
                       (tmp_path / "*.json", "no file fits this pattern")):
        with pytest.raises(UserError, match=what):
            load_traces(path)


def test_a_line_of_sixty_megabytes_is_read(tmp_path):
    path = write(tmp_path / "t.jsonl", ROW, ROW | {"thought": "z " * 30_000_000})
    assert [len(row["thought"]) for row in read_traces(path)] == [len(ROW["thought"]), 60_000_000]
