"""The history: what goes in comes out, is found, and is gone when it is wiped; nothing damaged is replaced."""

import os
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import RunError, UserError
from spoutnik.store import history
from spoutnik.store.history import History, wipe

PHRASE = "correct horse"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(history, "SCRYPT_COST", 2 ** 4)


@pytest.fixture(params=[None, PHRASE], ids=["plain", "encrypted"])
def kept(request, tmp_path):
    return History(tmp_path / "data" / "history.db", request.param)


def talk(kept, title="Sums", question="What is 12 + 30? Ça va ?"):
    name = kept.new(title)
    kept.append(name, "user", question)
    kept.append(name, "assistant", "42", "12 plus 30 is 42", "nano", {"seconds": 1.5})
    return name


def test_a_conversation_comes_back_as_it_was_said(kept):
    name = talk(kept)
    question, answer = kept.open(name)
    assert (question.role, question.content, question.extras) == ("user", "What is 12 + 30? Ça va ?", {})
    assert (answer.content, answer.thought, answer.model, answer.extras) == ("42", "12 plus 30 is 42", "nano", {"seconds": 1.5})
    assert [c.title for c in kept.list()] == ["Sums"] and kept.list()[0].updated >= kept.list()[0].created


def test_the_last_changed_comes_first_and_search_ignores_case(kept):
    first, second = talk(kept, "Sums"), talk(kept, "Weather", "Fera-t-il beau À Paris ?")
    kept.append(first, "user", "And now?")
    assert [c.id for c in kept.list()] == [first, second] and len(kept.list(1)) == 1
    assert [c.id for c in kept.search("à pARIS")] == [second] and [c.id for c in kept.search("sum")] == [first]
    assert kept.search("snow") == []


def test_rename_truncate_delete(kept):
    name = talk(kept)
    kept.rename(name, "Additions")
    kept.truncate(name, kept.open(name)[1].id)
    assert kept.list()[0].title == "Additions" and [m.role for m in kept.open(name)] == ["user"]
    kept.delete(name)
    assert kept.list() == []
    for gone in (lambda: kept.open(name), lambda: kept.append(name, "user", "Hi"), lambda: kept.rename(name, "x"),
                 lambda: kept.delete(name)):
        with pytest.raises(KeyError):
            gone()


def test_votes_and_export(kept):
    talk(kept)
    kept.vote(["nano", "nano:base"], "nano", {"question": "1 + 1?"})
    assert kept.votes()[0].models == ["nano", "nano:base"] and kept.votes()[0].extras == {"question": "1 + 1?"}
    conversation, vote = kept.export()
    assert conversation["messages"][1]["thought"] == "12 plus 30 is 42" and vote["winner"] == "nano"


@settings(max_examples=15)
@given(st.text())
def test_any_text_is_kept(tmp_path, text):
    for number, phrase in enumerate([None, PHRASE]):
        kept = History(tmp_path / f"{number}.db", phrase)
        name = kept.new(text)
        kept.append(name, "user", text, text)
        found = kept.open(name)[0]
        assert kept.list()[0].title == found.content == found.thought == text.encode("utf-8", "replace").decode()


def test_what_is_said_is_nowhere_in_the_files_when_encrypted_and_nowhere_when_deleted(kept):
    def stored():
        return b"".join(file.read_bytes() for file in kept.path.parent.iterdir())
    name = talk(kept, "Zebras", "Who stripes them?")
    secret = kept._passphrase is not None
    assert (b"Zebras" in stored()) != secret and (b"stripes" in stored()) != secret
    kept.delete(name)
    assert b"Zebras" not in stored() and b"stripes" not in stored()


def test_only_the_owner_may_read_it(kept):
    talk(kept)
    assert all(file.stat().st_mode & 0o077 == 0 for file in kept.path.parent.iterdir())
    assert kept.path.parent.stat().st_mode & 0o077 == 0


def test_a_wrong_or_missing_passphrase_is_a_sentence(tmp_path):
    talk(History(tmp_path / "secret.db", PHRASE))
    for phrase, said in (("battery staple", "passphrase is wrong"), (None, "is encrypted")):
        with pytest.raises(UserError, match=said):
            History(tmp_path / "secret.db", phrase)
    talk(History(tmp_path / "plain.db"))
    with pytest.raises(UserError, match="not encrypted"):
        History(tmp_path / "plain.db", PHRASE)
    assert len(History(tmp_path / "secret.db", PHRASE).list()) == len(History(tmp_path / "plain.db").list()) == 1


def test_a_changed_byte_of_an_encrypted_text_is_a_sentence(tmp_path):
    kept = History(tmp_path / "h.db", PHRASE)
    name = talk(kept)
    database = sqlite3.connect(kept.path)
    sealed, = database.execute("select content from messages").fetchone()
    database.execute("update messages set content = ? where content = ?", (sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed))
    database.commit()
    with pytest.raises(RunError, match="is damaged"):
        kept.open(name)


@pytest.mark.parametrize("content", [b"no database " * 500, b"x"])
def test_a_damaged_file_is_a_sentence_and_stays(tmp_path, content):
    path = tmp_path / "h.db"
    path.write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        History(path)
    assert path.read_bytes() == content
    assert wipe(path) and not path.exists() and not wipe(path)


def test_damage_in_the_middle_is_a_sentence(tmp_path):
    kept = History(tmp_path / "h.db")
    for _ in range(12):
        name = talk(kept, question="What? " * 200)
    content = bytearray(kept.path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    kept.path.write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        kept.append(name, "user", "Hi")
        list(kept.export())


def test_other_databases_and_newer_ones_are_left_alone(tmp_path):
    kept = History(tmp_path / "h.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table t (x)")
    other.commit()
    sqlite3.connect(kept.path).execute("pragma user_version = 99")
    for path, said in ((kept.path, "Update Spoutnik"), (tmp_path / "other.db", "another program's")):
        with pytest.raises(RunError, match=said):
            History(path)


def test_a_wipe_removes_every_file_and_those_who_hold_it_begin_again(kept):
    talk(kept)
    other = History(kept.path, kept._passphrase)
    kept.wipe()
    assert list(kept.path.parent.iterdir()) == []
    name = talk(other)
    assert len(kept.open(name)) == 2 and len(History(kept.path, kept._passphrase).list()) == 1


def test_an_encrypted_history_that_others_began_anew_in_the_open_is_not_written_to(tmp_path):
    kept = History(tmp_path / "h.db", PHRASE)
    kept.wipe()
    talk(History(tmp_path / "h.db"))
    with pytest.raises(UserError, match="not encrypted"):
        kept.new("secret")


def test_several_processes_write_at_once(tmp_path):
    code = ("import sys; from spoutnik.store.history import History\nkept = History(sys.argv[1])\n"
            "for i in range(20): name = kept.new(sys.argv[2]); kept.append(name, 'user', str(i))")
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "new" / "h.db", str(number)]) for number in range(3)]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    kept = History(tmp_path / "new" / "h.db")
    assert sorted((c.title, kept.open(c.id)[0].content) for c in kept.list()) == sorted(
        (str(n), str(i)) for n in range(3) for i in range(20))
