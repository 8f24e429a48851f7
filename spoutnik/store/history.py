"""Conversations and votes of the page, in one SQLite file that its owner can see, export and wipe.

With a passphrase titles, texts and thoughts are stored encrypted; times, roles, which message follows which, names of models
and of API keys are not. Every call opens a connection of its own: calls may come from any thread, several processes may share
the file, and a wiped one starts empty.
"""

from __future__ import annotations  # `list` is a method here

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from spoutnik.errors import RunError, UserError
from spoutnik.files import disk_errors, fsync_path
from spoutnik.store import schema
from spoutnik.store.search import HistorySearch, SearchHit

FILE = "history.db"  # in the data folder
SCRYPT_COST = 2 ** 17  # 128 MiB and some tenths of a second for each guess of a passphrase
NONCE_BYTES = 12
MIN_FILE_BYTES = 512  # of an SQLite database
BUSY_TIMEOUT = 10.0  # seconds to wait for another process
HEAD = -1  # the message shown last in a conversation
EVERYONE: Any = object()  # whoever owns a conversation
_LOCK = threading.RLock()  # SQLite has one writer at a time; its own waiting is unfair to the threads of a process, and slow


@dataclass(frozen=True)
class Conversation:
    """created, updated: seconds since 1970. owner: the name of an API key, None without one. head: its message shown last."""

    id: str
    title: str
    created: float
    updated: float
    owner: str | None = None
    head: int | None = None


@dataclass(frozen=True)
class Message:
    """extras: tokens, seconds, warnings, agreement ... parent: the message before it (versions.py). finished: False for an
    answer under way, and for one whose server was killed."""

    id: int
    role: str
    content: str
    thought: str
    model: str
    created: float
    extras: dict
    parent: int | None = None
    finished: bool = True


@dataclass(frozen=True)
class Vote:
    """A vote in the arena. models: those shown. winner: one of them, "tie" or "neither". extras: question, answers."""

    id: int
    models: list[str]
    winner: str
    created: float
    extras: dict


class History:
    """The database at `path`. passphrase: None stores texts unencrypted.

    Raises:
        UserError: the passphrase is wrong, missing, or given for a history without one.
        RunError: the file is damaged, of a newer version or of another program; it is left as it is.
    """

    def __init__(self, path: Path, passphrase: str | None = None):
        self.path, self._passphrase = Path(path), passphrase
        self._cipher: AESGCM | None = None
        self._salt: bytes | None = None
        self._search = HistorySearch(self)
        self._current: sqlite3.Connection | None = None  # of `together`, in the thread that holds the lock
        with self._transaction():
            pass

    @property
    def encrypted(self) -> bool:
        return self._passphrase is not None

    def create(self, title: str = "", owner: str | None = None) -> str:
        """Creates a conversation and returns its id."""
        conversation, now = secrets.token_hex(8), time.time()
        with self._transaction() as database:
            database.execute("insert into conversations values (?, ?, ?, ?, ?, null)",
                             (conversation, self._encrypt(title), now, now, owner))
        return conversation

    def list(self, limit: int | None = None, owner: str | None = EVERYONE) -> list[Conversation]:
        """An owner's conversations, the most recently changed first."""
        with self._transaction() as database:
            rows = database.execute(
                "select * from conversations where ? or owner is ? order by updated desc, rowid desc limit ?",
                (owner is EVERYONE, None if owner is EVERYONE else owner, -1 if limit is None else limit)).fetchall()
        return [self._conversation(row) for row in rows]

    def get(self, conversation: str) -> Conversation:
        """One of them; KeyError where it does not exist."""
        with self._transaction(conversation) as database:
            return self._conversation(database.execute("select * from conversations where id = ?", (conversation,)).fetchone())

    def _conversation(self, row: tuple) -> Conversation:
        return Conversation(row[0], self._decrypt(row[1]), *row[2:])

    def search(self, text: str, owner: str | None = EVERYONE) -> list[SearchHit]:
        """The conversations that hold all words of the text, ignoring case and accents (search.py)."""
        return self._search.search(text, self.list(owner=owner))

    def message_keys(self) -> dict[tuple[str, int], bool]:
        """Of all messages: (conversation, id), and whether they are finished."""
        with self._transaction() as database:
            rows = database.execute("select conversation, id, finished from messages order by id").fetchall()
        return {(conversation, number): bool(finished) for conversation, number, finished in rows}

    def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """The texts of these messages; of deleted ones there is none."""
        with self._transaction() as database:
            rows = {key: database.execute("select content from messages where conversation = ? and id = ?", key).fetchone()
                    for key in keys}
        return {key: self._decrypt(row[0]) for key, row in rows.items() if row is not None}

    def messages(self, conversation: str) -> list[Message]:
        """A conversation's messages of all versions, the oldest first; KeyError where there is no such conversation."""
        with self._transaction(conversation) as database:
            rows = database.execute("select id, role, content, thought, model, created, extras, parent, finished from messages "
                                    "where conversation = ? order by id", (conversation,)).fetchall()
        return [Message(number, role, self._decrypt(content), self._decrypt(thought), model, created,
                        self._decrypt_json(extras), parent, bool(finished))
                for number, role, content, thought, model, created, extras, parent, finished in rows]

    def append(self, conversation: str, role: str, content: str, thought: str = "", model: str = "",
               extras: dict | None = None, parent: int | None = HEAD, finished: bool = True) -> int:
        """Adds a message, which is the one shown last from now on, and returns its id. parent: the one before it; None makes
        it a version of the first message."""
        now = time.time()
        with self._transaction(conversation) as database:
            if parent == HEAD:
                parent, = database.execute("select head from conversations where id = ?", (conversation,)).fetchone()
            row = (conversation, role, self._encrypt(content), self._encrypt(thought), model, now, self._encrypt_json(extras),
                   parent, finished)
            number = database.execute("insert into messages values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row).lastrowid
            database.execute("update conversations set updated = ?, head = ? where id = ?", (now, number, conversation))
            return number

    def update(self, conversation: str, message: int, content: str, thought: str, extras: dict, finished: bool) -> None:
        """Writes what has come of an unfinished message. A finished one is left as it is: what was slower comes too late."""
        with self._transaction(conversation) as database:
            texts = self._encrypt(content), self._encrypt(thought), self._encrypt_json(extras)
            database.execute("update messages set content = ?, thought = ?, extras = ?, finished = ? "
                             "where conversation = ? and id = ? and not finished", (*texts, finished, conversation, message))
            if finished:
                database.execute("update conversations set updated = ? where id = ?", (time.time(), conversation))

    def show(self, conversation: str, message: int | None) -> None:
        """Makes a message the one that is shown last."""
        with self._transaction(conversation) as database:
            database.execute("update conversations set head = ? where id = ?", (message, conversation))

    def rename(self, conversation: str, title: str) -> None:
        with self._transaction(conversation) as database:
            database.execute("update conversations set title = ? where id = ?", (self._encrypt(title), conversation))

    def delete(self, conversation: str) -> None:
        with self._transaction(conversation, erases=True) as database:
            database.execute("delete from conversations where id = ?", (conversation,))

    def add_vote(self, models: list[str], winner: str, extras: dict | None = None) -> int:
        with self._transaction() as database:
            return database.execute("insert into votes values (null, ?, ?, ?, ?)", (
                json.dumps(models), winner, time.time(), self._encrypt_json(extras))).lastrowid

    def votes(self) -> list[Vote]:
        with self._transaction() as database:
            rows = database.execute("select * from votes order by id").fetchall()
        return [Vote(number, json.loads(models), winner, created, self._decrypt_json(extras))
                for number, models, winner, created, extras in rows]

    def export(self, owner: str | None = EVERYONE) -> Iterator[dict]:
        """Everything, decrypted: a dictionary for each conversation with its messages, then one for each vote. Of one owner:
        the conversations alone, since votes have none."""
        for conversation in reversed(self.list(owner=owner)):
            yield self.export_conversation(conversation)
        for vote in self.votes() if owner is EVERYONE else []:
            yield {"kind": "vote", **asdict(vote)}

    def export_conversation(self, conversation: Conversation) -> dict:
        messages = [asdict(message) for message in self.messages(conversation.id)]
        return {"kind": "conversation", **asdict(conversation), "messages": messages}

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Makes one transaction of the calls inside, at the cost of one: all of them are kept, or none."""
        with self._transaction() as self._current:
            try:
                yield
            finally:
                self._current = None

    @contextlib.contextmanager
    def _transaction(self, conversation: str | None = None, erases: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction. conversation: KeyError where it does not exist. erases: also from the write-ahead log."""
        with _LOCK:
            if self._current is not None:
                _require(self._current, conversation)
                yield self._current
                return
            with self._errors():
                _ensure_file(self.path)
                with _connect(self.path) as database:
                    with database:
                        database.execute("begin immediate")
                        version = schema.ensure_tables(database, self.path)
                        self._check_encryption(database)
                        if version < schema.SCHEMA_VERSION:
                            schema.migrate(database, self._decrypt_json)
                        _require(database, conversation)
                        yield database
                    if erases:
                        database.execute("pragma wal_checkpoint(truncate)").fetchall()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors as sentences."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RunError(f"{self.path}: the history cannot be used now ({error}). Check the disk and the file's permissions, "
                           "or start with --no-history.") from error
        except sqlite3.DatabaseError as error:
            raise RunError(f"{self.path}: the history is damaged ({error}); it was left as it is. Restore it, move it away, or "
                           "give it up with `spoutnik history wipe`.") from error

    def _check_encryption(self, database: sqlite3.Connection) -> None:
        """Derives the key, and checks each time that the file still uses it: another process may have started it anew."""
        meta = dict(database.execute("select key, value from meta"))
        if self._passphrase is None:
            if meta:
                raise UserError(f"{self.path}: is encrypted. Give its passphrase: --passphrase asks for it, and "
                                "SPOUTNIK_PASSPHRASE is read where nobody can be asked.")
            return
        if meta and meta["salt"] == self._salt:
            return
        if not meta and any(database.execute(f"select 1 from {table}").fetchone() for table in ("conversations", "votes")):
            raise UserError(f"{self.path}: holds conversations that are not encrypted. Leave the passphrase out; or export "
                            "them, wipe the history and start anew with it.")
        salt, cost = meta.get("salt", secrets.token_bytes(16)), int(meta.get("cost", SCRYPT_COST))
        cipher = AESGCM(Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(self._passphrase.encode()))
        if not meta:
            check = cipher.encrypt(bytes(NONCE_BYTES), b"spoutnik", salt)
            database.executemany("insert into meta values (?, ?)", {"salt": salt, "cost": cost, "check": check}.items())
        else:
            try:
                cipher.decrypt(bytes(NONCE_BYTES), meta["check"], salt)
            except InvalidTag as error:
                raise UserError(f"{self.path}: the passphrase is wrong. Try again; without the right one nobody can read "
                                "this history.") from error
        self._salt, self._cipher = salt, cipher

    def _encrypt(self, text: str) -> str | bytes:
        plain = text.encode("utf-8", "replace")  # unpaired surrogates cannot be stored
        if self._cipher is None:
            return plain.decode()
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, None)

    def _encrypt_json(self, extras: dict | None) -> str | bytes:
        return self._encrypt(json.dumps(extras or {}, ensure_ascii=False))

    def _decrypt(self, stored: str | bytes) -> str:
        if isinstance(stored, str) == (self._cipher is not None):
            raise RunError(f"{self.path}: is encrypted in one part and not in another. Restore it, or wipe the history.")
        if self._cipher is None:
            return stored
        try:
            return self._cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], None).decode()
        except InvalidTag as error:
            raise RunError(f"{self.path}: a text in it is damaged, or was written under another passphrase. Restore the file, "
                           "or wipe the history.") from error

    def _decrypt_json(self, stored: str | bytes) -> dict:
        return json.loads(self._decrypt(stored))


def _require(database: sqlite3.Connection, conversation: str | None) -> None:
    exists = "select 1 from conversations where id = ?"
    if conversation is not None and not database.execute(exists, (conversation,)).fetchall():
        raise KeyError(conversation)


def wipe_file(path: Path) -> bool:
    """Overwrites and deletes a history, readable or not, and SQLite's files beside it. False: there was none.

    Flash memory and snapshots may keep old copies of overwritten blocks; encryption is the remedy there.
    """
    path = Path(path)
    if not path.exists():
        return False
    with contextlib.suppress(sqlite3.DatabaseError), _connect(path) as database:  # a damaged file is not in use
        database.execute("pragma journal_mode = delete")  # waits for other processes, and ends the write-ahead log
        database.execute("begin exclusive")
        _overwrite_and_unlink(path)
    _overwrite_and_unlink(path)
    return True


def _overwrite_and_unlink(path: Path) -> None:
    with disk_errors(path, "--data"):
        for file in (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal", "")):
            if file.exists():
                with open(file, "r+b") as stream:
                    stream.write(bytes(file.stat().st_size))
                    os.fsync(stream.fileno())
                file.unlink()
        fsync_path(path.parent)


def _ensure_file(path: Path) -> None:
    """Creates an empty file that only its owner may read; SQLite gives its other files the same permissions."""
    if not path.exists():
        with disk_errors(path, "--data"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    elif 0 < path.stat().st_size < MIN_FILE_BYTES:  # SQLite would take it for a new database
        raise sqlite3.DatabaseError("it is cut short")


@contextlib.contextmanager
def _connect(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)) as database:
        database.execute("pragma secure_delete = on").fetchall()  # what is deleted is overwritten
        database.execute("pragma foreign_keys = on")
        database.execute("pragma synchronous = normal")  # the disk is waited for when the connection closes
        if database.execute("pragma journal_mode").fetchall() != [("wal",)]:  # it is kept in the file
            database.execute("pragma journal_mode = wal").fetchall()
        yield database
