"""Where training data lies: kinds of files, gzip, folders and patterns; and its split by content."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.train.data.loading import load_traces
from spoutnik.train.data.split import hold_out, is_held_out
from spoutnik.train.traces import TraceReport, Traces, reports_of

ROWS = [{"question": f"What is {i} + 1?", "answer": f"It is \"{i + 1}\",\nsee?"} for i in range(3)]
TRACES = [{"prompt": row["question"], "thought": "", "answer": row["answer"]} for row in ROWS]


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows, delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


FILES = {
    "a.jsonl": lines(ROWS), "a.ndjson": lines(ROWS), "a.txt": lines(ROWS), "a": lines(ROWS),
    "a.json": json.dumps(ROWS, indent=1).encode(), "data.json": json.dumps({"data": ROWS, "version": 1}).encode(),
    "lines.json": lines(ROWS), "list.jsonl": json.dumps(ROWS).encode(), "list-lines.jsonl": json.dumps(ROWS, indent=1).encode(),
    "a.csv": table(ROWS, ","), "mark.csv": b"\xef\xbb\xbf" + table(ROWS, ","), "a.tsv": table(ROWS, "\t"),
    "excel.csv": b"\xef\xbb\xbfsep=;\r\n" + table(ROWS, ";"), "bars.csv": b"sep=|\n" + table(ROWS, "|"),
    "semicolons.csv": table(ROWS, ";"), "tabs.csv": b"\xef\xbb\xbf" + table(ROWS, "\t"),
    "a.jsonl.gz": gzip.compress(lines(ROWS)), "a.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "a.csv.gz": gzip.compress(table(ROWS, ",")), "packed.jsonl": gzip.compress(lines(ROWS)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_holds_the_same_traces(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    loaded = load_traces(tmp_path / name)
    assert loaded.rows == TRACES and loaded.report == TraceReport(name, read=3, used=3)


@pytest.mark.parametrize("content, sentence", [
    (b"PK\x03\x04\x14", "is a ZIP archive or a workbook"), (b"BZh91AY", "is packed by bzip2"),
    (b"ARROW1\0\0", "is an Arrow file"),
    (b"\xfd7zXZ\0", "is packed by xz"), (b"\xff\xfep\0", "is UTF-16"), (b"PAR1\x15", "is Parquet"),
])
def test_a_file_of_another_kind_is_named(tmp_path, content, sentence):
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            load_traces(tmp_path / name)


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer,answer\nWhy?,So.,Else.\n")
    with pytest.raises(UserError, match="has two columns 'answer'"):
        load_traces(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("question,answer,,\nWhy?,So.,,\n")  # as spreadsheets write empty columns
    assert load_traces(tmp_path / "a.csv").rows == [{"prompt": "Why?", "thought": "", "answer": "So."}]


@pytest.mark.parametrize("training, held_out", [("train.jsonl", "test.jsonl"),
                                                ("data/train-0.jsonl", "data/validation-0.jsonl"),
                                                ("train/a.jsonl", "dev/a.jsonl")])
def test_a_folder_with_a_part_to_measure_with_is_not_learned_as_a_whole(tmp_path, training, held_out):
    for name in (training, held_out, "dataset_infos.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines(ROWS))
    with pytest.raises(UserError, match=f"holds {training} and {held_out}, and all its files would be learned"):
        load_traces(tmp_path)
    assert load_traces(tmp_path / training).rows == TRACES
    (tmp_path / held_out).unlink()
    (tmp_path / "testimonials.jsonl").write_bytes(lines(ROWS))  # no part of that name; the library's own file is not read
    assert load_traces(tmp_path).report.read == 6


def test_nulls_that_parquet_adds_to_a_tool_call_are_no_arguments(tmp_path):
    """All objects of a column have the keys of all, so that each call would have every tool's arguments."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    def call(arguments):
        return [{"role": "user", "content": "Why?"},
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]},
                {"role": "tool", "content": "x"}, {"role": "assistant", "content": "So."}]

    parquet.write_table(pyarrow.Table.from_pylist([{"messages": call({"a": "1"})}, {"messages": call({"b": "2"})}]),
                        tmp_path / "a.parquet")
    calls = [row["messages"][1]["tool_calls"][0]["function"]["arguments"] for row in load_traces(tmp_path / "a.parquet").rows]
    assert calls == [{"a": "1"}, {"b": "2"}]


def test_parquet_holds_texts_lists_and_nulls(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert load_traces(path).rows == TRACES
    message = {"role": "assistant", "content": "So.", "tool_calls": None}
    row = {"messages": [{"role": "user", "content": "Why?", "tool_calls": None}, message], "system": None, "tools": None}
    parquet.write_table(pyarrow.Table.from_pylist([row, row | {"system": "Be brief."}]), path)
    plain = {"prompt": "Why?", "thought": "", "answer": "So."}
    assert load_traces(path).rows == [plain, plain | {"messages": [{"role": "system", "content": "Be brief."},
                                                                   {"role": "user", "content": "Why?"}]}]
    parquet.write_table(pyarrow.Table.from_pylist([ROWS[0], ROWS[1] | {"answer": None}]), path)
    assert load_traces(path).report == TraceReport("a.parquet", read=2, used=1, empty=1)


def test_parquet_without_its_reader_or_that_is_none_is_a_sentence(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="a.parquet: (reading Parquet needs pyarrow. Install it|is not Parquet)"):
        load_traces(tmp_path / "a.parquet")


def test_a_folder_and_a_pattern_are_read_in_order_of_their_names(tmp_path):
    (tmp_path / "more").mkdir()
    for name, rows in (("b.jsonl", ROWS[1:2]), ("a.json", [ROWS[0]]), ("more/c.csv", ROWS[2:])):
        content = json.dumps(rows).encode() if name.endswith("json") else lines(rows)
        (tmp_path / name).write_bytes(table(rows, ",") if name.endswith("csv") else content)
    (tmp_path / "README.md").write_text("No rows.")
    (tmp_path / ".hidden.jsonl").write_text("broken")
    loaded = load_traces(tmp_path)
    assert loaded.rows == TRACES and loaded.report.source == tmp_path.name and "in 3 files" in loaded.description
    assert load_traces(tmp_path / "*.json*").rows == TRACES[:2]
    (tmp_path / "b.jsonl").write_bytes(lines(ROWS[1:2]) + b"{\n")
    with pytest.raises(UserError, match=r"b.jsonl, line 2: is not JSON"):
        load_traces(tmp_path)
    (tmp_path / "b.jsonl").write_bytes(lines([{"input": "a", "output": "b"}]))
    with pytest.raises(UserError, match=r"b.jsonl, line 1: .*it is input/output, and .*a.json, row 1 is question/answer"):
        load_traces(tmp_path)


@pytest.mark.parametrize("name, content, sentence", [
    ("a.json", b'{"rows": []}', 'must be a list of rows, .* or {"data": '), ("a.json", b"[", "is not JSON"),
    ("a.json", b"[]", "holds no traces"), ("a.csv", b"", "holds no traces"),
    ("a.csv", b"question,answer\na\n", "number of cells"),
    ("a.csv", b"question,answer\n\xe9,b\n", "is not UTF-8"), ("a.json", "[]".encode("utf-16"), "is UTF-16"),
    ("a.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)[:40], "cannot be unpacked"),
    ("a.jsonl.gz", b"\x1f\x8bnot at all", "cannot be (unpacked|read)")], ids=range(9))
def test_a_file_that_is_wrong(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*{sentence}"):
        load_traces(tmp_path / name)


def test_line_ends_of_windows_are_not_learned_and_said(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "Why\r\nnow?"}, {"role": "assistant", "content": "So\rit\r\nis."}]},
            {"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]}]
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    loaded = load_traces(tmp_path / "a.jsonl")
    assert loaded.rows[0] == {"prompt": "Why\nnow?", "thought": "", "answer": "So\nit\nis."}
    assert "messages; line ends of Windows in 1 row are read as plain ones" in loaded.description


def test_the_line_after_a_spreadsheet_s_own_counts(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"sep=;\r\nquestion;answer\r\nWhy?\r\n")
    with pytest.raises(UserError, match="a.csv, line 3: has another number of cells"):
        load_traces(tmp_path / "a.csv")


def test_rows_that_are_called_test_are_never_trained_on(tmp_path):
    rows = [trace("a") | {"split": "train"}, trace("b") | {"split": "Test"}, trace("c") | {"split": "validation"},
            trace("d") | {"split": "algebra"}]
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    train, held_out = hold_out(load_traces(tmp_path / "a.jsonl"), 0.0)
    assert [[row["prompt"] for row in part.rows] for part in (train, held_out)] == [["a", "d"], ["b", "c"]]


def test_empty_cells_are_empty_texts(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,thought,answer\nWhy?,,So.\nHow?,Hm.,\n")
    loaded = load_traces(tmp_path / "a.csv")
    assert loaded.rows == [{"prompt": "Why?", "thought": "", "answer": "So."}] and loaded.report.empty == 1


def trace(question: str, answer: str = "a") -> dict:
    return {"prompt": question, "thought": "", "answer": answer}


@given(start=st.integers(0, 10 ** 9), count=st.integers(1, 40), share=st.floats(0.2, 0.8))
def test_the_split_goes_by_the_question_alone(start, count, share):
    rows = [trace(f"Question {start + i}?", answer) for answer in "ab" for i in range(count)]
    traces = Traces(rows, TraceReport("my", read=len(rows), used=len(rows)))
    try:
        train, held_out = hold_out(traces, share)
    except UserError:
        assert len({is_held_out(row, share) for row in rows}) == 1
        return
    sides = [{row["prompt"] for row in part.rows} for part in (train, held_out)]
    assert not sides[0] & sides[1] and len(train.rows) + len(held_out.rows) == len(rows)
    assert (train.report.used, train.report.held_out, train.report.dropped) == (len(train.rows), len(held_out.rows), 0)
    assert reports_of([train])[0]["held_out"] == len(held_out.rows)
    assert [row for row in held_out.rows if not is_held_out(row, min(1, share + 0.1))] == []  # a larger share holds out more


def test_about_the_share_is_held_out_and_spelling_does_not_move_a_question():
    rows = [trace(f"What is {i} + 1?") for i in range(2000)]
    assert 150 < sum(is_held_out(row, 0.1) for row in rows) < 250
    assert all(is_held_out(row, 0.1) == is_held_out(trace(row["prompt"].upper().replace(" ", "  ")), 0.1) for row in rows)


def test_all_replies_of_a_conversation_are_on_one_side():
    for i in range(50):
        first = [{"role": "user", "content": f"Question {i}?"}]
        later = [*first, {"role": "assistant", "content": "a"}, {"role": "user", "content": "Sure?"}]
        assert is_held_out(trace(f"Question {i}?"), 0.5) == is_held_out(trace("Sure?") | {"messages": later}, 0.5)


def test_a_held_out_part_that_repeats_the_training_part_is_refused_and_the_repetitions_are_told(tmp_path):
    rows = [{"prompt": f"Question {i}?", "answer": str(i)} for i in range(9)]
    (tmp_path / "a.jsonl").write_bytes(lines([row | {"split": split} for split in ("train", "test") for row in rows]))
    with pytest.raises(UserError, match="all its rows but for 9 that repeat earlier ones and are left out say"):
        hold_out(load_traces(tmp_path / "a.jsonl"), 0.5)


@pytest.mark.parametrize("rows, what", [([trace("a", str(i)) for i in range(20)], "1 different ones"),
                                        ([trace("Why?"), trace("why? ")], "1 different ones")], ids=["answers", "spelling"])
def test_a_held_out_part_that_would_be_the_training_part_is_refused(rows, what):
    with pytest.raises(UserError, match=f"held_out_share = 0.5 leaves nothing to (hold out|train on).*{what}"):
        hold_out(Traces(rows, TraceReport("my", read=len(rows), used=len(rows))), 0.5)
