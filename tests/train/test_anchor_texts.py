"""General text for anchors: what is read from files, and what is refused."""

import json

import pytest
import tiny

from spoutnik.errors import UserError
from spoutnik.train.anchor_texts import read_general_text
from spoutnik.train.sft import trace_document

ROW = {"prompt": "What is 2 + 2?", "thought": "", "answer": "4"}


def test_the_shipped_sample_is_text_of_several_kinds_and_enough_for_thousands_of_snippets():
    text = read_general_text(None)
    assert len(text.texts) == 6 and not text.traces
    whole = " ".join(text.texts)
    assert len(whole) > 30_000 and all(word in whole for word in ("ferry", "photosynthèse", "def "))
    assert not any("#" in each[:2] for each in text.texts)  # its README is not read
    ids, described = text.token_ids(tiny.tokenizer())
    assert described.startswith("6 texts of ") and sum(map(len, ids)) > 9_000


def test_plain_text_rows_of_text_and_conversations_are_read_side_by_side(tmp_path):
    (tmp_path / "a.txt").write_text("Some prose.", encoding="utf-8-sig")
    (tmp_path / "b.jsonl").write_text('{"text": "A page."}\n{"text": "Another."}\n')
    (tmp_path / "c.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "d.json").write_text(json.dumps([{"prompt": "Hello?", "chosen": "Yes, hello.", "rejected": "No."}]))
    (tmp_path / ".hidden.txt").write_text("not this")
    (tmp_path / "e.png").write_bytes(b"\x89PNG")
    text, tokenizer = read_general_text(tmp_path), tiny.tokenizer()
    assert text.texts == ["Some prose.", "A page.", "Another."]
    ids, described = text.token_ids(tokenizer)
    assert list(ids[0]) == tokenizer.encode("Some prose.") and list(ids[3]) == list(trace_document(ROW, tokenizer).ids)
    assert "Yes, hello." in tokenizer.decode(list(ids[4])) and described.startswith("5 texts of ")
    assert read_general_text(tmp_path / "*.txt").texts == ["Some prose."]


@pytest.mark.parametrize("name, content, words", [
    ("a.txt", b"caf\xe9", "is not UTF-8 text"), ("a.txt", b" \n", "holds no text"),
    ("a.jsonl", b'{"text": "A page."}\n{"txt": "B"}\n', "line 2: has no text, as the rows before it have"),
    ("a.jsonl", b'{"text": 3}\n', "line 1: 'text' must be a text"), ("a.jsonl", b'{"txt": "B"}\n', "are of no known shape"),
    ("a.jsonl", b'{"text": "A"}\n{"text', "line 2: has no text"), ("b.png", b"", "no such file"),
], ids=range(7))
def test_what_is_no_text_is_refused_with_its_place(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_general_text(tmp_path / "a.txt" if name == "b.png" else tmp_path / name)


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder without text"):
        read_general_text(tmp_path)
