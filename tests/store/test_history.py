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
from spoutnik.store.history import History, wipe_file

PHRASE = "correct horse"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(history, "SCRYPT_COST", 2 ** 4)


@pytest.fixture(params=[None, PHRASE], ids=["plain", "encrypted"])
def store(request, tmp_path):
    return History(tmp_path / "data" / "history.db", request.param)


def add_conversation(store, title="Sums", question="What is 12 + 30? Ça va ?"):
    name = store.create(title)
    store.append(name, "user", question)
    store.append(name, "assistant", "42", "12 plus 30 is 42", "nano", {"seconds": 1.5})
    return name


def test_a_conversation_comes_back_as_it_was_said(store):
    name = add_conversation(store)
    question, answer = store.messages(name)
    assert (question.role, question.content, question.extras) == ("user", "What is 12 + 30? Ça va ?", {})
    assert (answer.content, answer.thought, answer.model, answer.extras) == ("42", "12 plus 30 is 42", "nano", {"seconds": 1.5})
    assert [c.title for c in store.list()] == ["Sums"] and store.list()[0].updated >= store.list()[0].created


def test_the_last_changed_comes_first(store):
    first, second = add_conversation(store, "Sums"), add_conversation(store, "Weather", "Fera-t-il beau À Paris ?")
    store.append(first, "user", "And now?")
    assert [c.id for c in store.list()] == [first, second] and len(store.list(1)) == 1


def test_each_owner_has_a_list_of_their_own(store):
    for owner in (None, "ann", "*"):
        store.append(store.create(f"of {owner}", owner), "user", "Shared words")
    for owner in (None, "ann", "*"):
        assert [c.title for c in store.list(owner=owner)] == [f"of {owner}"] and store.list(owner=owner)[0].owner == owner
        assert [hit.conversation.title for hit in store.search("shared", owner)] == [f"of {owner}"]
        assert [row["title"] for row in store.export(owner)] == [f"of {owner}"]
    assert len(store.list()) == len(store.search("words")) == 3 and store.list(owner="bob") == []


def test_rename_and_delete(store):
    name = add_conversation(store)
    store.rename(name, "Additions")
    assert store.list()[0].title == store.get(name).title == "Additions"
    store.delete(name)
    assert store.list() == []
    for gone in (lambda: store.messages(name), lambda: store.append(name, "user", "Hi"), lambda: store.rename(name, "x"),
                 lambda: store.delete(name), lambda: store.get(name), lambda: store.show(name, 1),
                 lambda: store.update(name, 1, "", "", {}, True)):
        with pytest.raises(KeyError):
            gone()


def test_versions_are_kept_and_one_path_is_shown(store):
    name = add_conversation(store)
    question, answer = store.messages(name)
    assert (question.parent, answer.parent, store.get(name).head) == (None, question.id, answer.id)
    other = store.append(name, "assistant", "43", parent=question.id)
    edited = store.append(name, "user", "And 12 + 31?", parent=None)
    last = store.append(name, "assistant", "44")
    assert [(m.id, m.parent) for m in store.messages(name)][2:] == [(other, question.id), (edited, None), (last, edited)]
    assert store.get(name).head == last
    store.show(name, answer.id)
    assert store.get(name).head == answer.id
    exported, = store.export()
    assert exported["head"] == answer.id
    assert [m["parent"] for m in exported["messages"]] == [None, question.id, question.id, None, edited]


def test_an_unfinished_answer_grows_until_it_is_finished(store):
    name = add_conversation(store)
    answer = store.append(name, "assistant", "", finished=False)
    store.update(name, answer, "4", "so far", {"tokens": 1}, finished=False)
    partial = History(store.path, store._passphrase).messages(name)[-1]  # whoever starts after a kill
    assert (partial.content, partial.thought, partial.extras, partial.finished) == ("4", "so far", {"tokens": 1}, False)
    assert [hit.excerpt for hit in store.search("4")] == ["42"]
    store.update(name, answer, "Forty", "all", {"tokens": 2}, finished=True)
    store.update(name, answer, "4", "so far", {}, finished=False)  # was slower
    final = store.messages(name)[-1]
    assert (final.content, final.thought, final.extras, final.finished) == ("Forty", "all", {"tokens": 2}, True)
    assert [hit.excerpt for hit in store.search("forty")] == ["Forty"]


OLD = """
create table meta (key text primary key, value blob);
create table conversations (id text primary key, title blob, created real, updated real);
create table messages (id integer primary key autoincrement, conversation text references conversations on delete cascade,
                       role text, content blob, thought blob, model text, created real, extras blob);
create table votes (id integer primary key autoincrement, models text, winner text, created real, extras blob);
create index messages_of on messages (conversation, id);
pragma application_id = 1397773390;
pragma user_version = 1;
"""


def test_a_history_of_version_1_is_migrated(store):
    """Made as version 1 made it, with the cipher of this store's passphrase."""
    meta = sqlite3.connect(store.path).execute("select * from meta").fetchall()
    wipe_file(store.path)
    old = sqlite3.connect(store.path)
    old.executescript(OLD)
    old.executemany("insert into meta values (?, ?)", meta)
    owned = store._encrypt_json({"owner": "ann"})
    for name, extras in (("aa", owned), ("bb", store._encrypt_json({}))):
        old.execute("insert into conversations values (?, ?, 1, 2)", (name, store._encrypt(f"Title {name}")))
        for role, text in (("user", "Why?"), ("assistant", "So."), ("user", "And?")):
            old.execute("insert into messages values (null, ?, ?, ?, ?, '', 3, ?)",
                        (name, role, store._encrypt(text), store._encrypt("t"), extras))
    old.execute("insert into conversations values ('cc', ?, 1, 1)", (store._encrypt("Empty"),))
    old.commit()
    old.close()
    migrated = History(store.path, store._passphrase)
    assert {c.id: (c.title, c.owner) for c in migrated.list()} == {
        "aa": ("Title aa", "ann"), "bb": ("Title bb", None), "cc": ("Empty", None)}
    for name in ("aa", "bb"):
        messages = migrated.messages(name)
        assert [m.content for m in messages] == ["Why?", "So.", "And?"] and all(m.finished for m in messages)
        assert [m.parent for m in messages] == [None, messages[0].id, messages[1].id]
        assert migrated.get(name).head == messages[-1].id
    first = migrated.append("cc", "user", "Now")
    assert migrated.get("cc").head == first and len(History(store.path, store._passphrase).messages("aa")) == 3


def test_a_wrong_passphrase_migrates_nothing(tmp_path):
    path = tmp_path / "old.db"
    sqlite3.connect(path).executescript(OLD + "insert into meta values ('salt', x'00'), ('cost', 16), ('check', x'00');")
    with pytest.raises(UserError, match="passphrase is wrong"):
        History(path, PHRASE)
    assert sqlite3.connect(path).execute("pragma user_version").fetchone() == (1,)


def test_votes_and_export(store):
    add_conversation(store)
    store.add_vote(["nano", "nano:base"], "nano", {"question": "1 + 1?"})
    assert store.votes()[0].models == ["nano", "nano:base"] and store.votes()[0].extras == {"question": "1 + 1?"}
    conversation, vote = store.export()
    assert conversation["messages"][1]["thought"] == "12 plus 30 is 42" and vote["winner"] == "nano"


@settings(max_examples=15)
@given(st.text())
def test_any_text_is_kept(tmp_path, text):
    for number, phrase in enumerate([None, PHRASE]):
        store = History(tmp_path / f"{number}.db", phrase)
        name = store.create(text)
        store.append(name, "user", text, text)
        message = store.messages(name)[0]
        assert store.list()[0].title == message.content == message.thought == text.encode("utf-8", "replace").decode()


def test_what_is_said_is_nowhere_in_the_files_when_encrypted_and_nowhere_when_deleted(store):
    def stored():
        return b"".join(file.read_bytes() for file in store.path.parent.iterdir())
    name = add_conversation(store, "Zebras", "Who stripes them?")
    secret = store._passphrase is not None
    assert (b"Zebras" in stored()) != secret and (b"stripes" in stored()) != secret
    store.delete(name)
    assert b"Zebras" not in stored() and b"stripes" not in stored()


def test_only_the_owner_may_read_it(store):
    add_conversation(store)
    assert all(file.stat().st_mode & 0o077 == 0 for file in store.path.parent.iterdir())
    assert store.path.parent.stat().st_mode & 0o077 == 0


def test_a_wrong_or_missing_passphrase_is_a_sentence(tmp_path):
    add_conversation(History(tmp_path / "secret.db", PHRASE))
    for phrase, said in (("battery staple", "passphrase is wrong"), (None, "is encrypted")):
        with pytest.raises(UserError, match=said):
            History(tmp_path / "secret.db", phrase)
    add_conversation(History(tmp_path / "plain.db"))
    with pytest.raises(UserError, match="not encrypted"):
        History(tmp_path / "plain.db", PHRASE)
    assert len(History(tmp_path / "secret.db", PHRASE).list()) == len(History(tmp_path / "plain.db").list()) == 1


def test_a_changed_byte_of_an_encrypted_text_is_a_sentence(tmp_path):
    store = History(tmp_path / "h.db", PHRASE)
    name = add_conversation(store)
    database = sqlite3.connect(store.path)
    sealed, = database.execute("select content from messages").fetchone()
    database.execute("update messages set content = ? where content = ?", (sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed))
    database.commit()
    with pytest.raises(RunError, match="is damaged"):
        store.messages(name)


@pytest.mark.parametrize("content", [b"no database " * 500, b"x"])
def test_a_damaged_file_is_a_sentence_and_stays(tmp_path, content):
    path = tmp_path / "h.db"
    path.write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        History(path)
    assert path.read_bytes() == content
    assert wipe_file(path) and not path.exists() and not wipe_file(path)


def test_damage_in_the_middle_is_a_sentence(tmp_path):
    store = History(tmp_path / "h.db")
    for _ in range(12):
        name = add_conversation(store, question="What? " * 200)
    content = bytearray(store.path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    store.path.write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        store.append(name, "user", "Hi")
        list(store.export())


def test_other_databases_and_newer_ones_are_left_alone(tmp_path):
    store = History(tmp_path / "h.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table t (x)")
    other.commit()
    sqlite3.connect(store.path).execute("pragma user_version = 99")
    for path, said in ((store.path, "Update Spoutnik"), (tmp_path / "other.db", "another program's")):
        with pytest.raises(RunError, match=said):
            History(path)


def test_a_wipe_removes_every_file_and_those_who_hold_it_begin_again(store):
    add_conversation(store)
    other = History(store.path, store._passphrase)
    wipe_file(store.path)
    assert list(store.path.parent.iterdir()) == []
    name = add_conversation(other)
    assert len(store.messages(name)) == 2 and len(History(store.path, store._passphrase).list()) == 1


def test_an_encrypted_history_that_others_began_anew_in_the_open_is_not_written_to(tmp_path):
    store = History(tmp_path / "h.db", PHRASE)
    wipe_file(store.path)
    add_conversation(History(tmp_path / "h.db"))
    with pytest.raises(UserError, match="not encrypted"):
        store.create("secret")


def test_several_processes_write_at_once(tmp_path):
    code = ("import sys; from spoutnik.store.history import History\nstore = History(sys.argv[1])\n"
            "for i in range(20): name = store.create(sys.argv[2]); store.append(name, 'user', str(i))")
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "new" / "h.db", str(number)]) for number in range(3)]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    store = History(tmp_path / "new" / "h.db")
    assert sorted((c.title, store.messages(c.id)[0].content) for c in store.list()) == sorted(
        (str(n), str(i)) for n in range(3) for i in range(20))
