"""Conversations and votes of the page, in one SQLite file that its owner can see, export and wipe.

With a passphrase whatever was said is stored encrypted; times, roles and names of models are not. Every call opens the file
anew: it may come from any thread, several processes may share the file, and one that was wiped begins again.
"""

from __future__ import annotations  # `list` is a method here

import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from spoutnik.errors import RunError, UserError
from spoutnik.files import disk_errors, fsync_path

FILE = "history.db"  # in the folder of data
APPLICATION, VERSION = 0x5350544E, 1  # "SPTN": says whose database it is; the layout of its tables
SCRYPT_COST = 2 ** 17  # 128 MiB and some tenths of a second for each guess at a passphrase
NONCE = 12
SMALLEST = 512  # bytes of a database
PATIENCE = 10.0  # seconds to wait for another process
TABLES = """
create table meta (key text primary key, value blob);
create table conversations (id text primary key, title blob, created real, updated real);
create table messages (id integer primary key autoincrement, conversation text references conversations on delete cascade,
                       role text, content blob, thought blob, model text, created real, extras blob);
create table votes (id integer primary key autoincrement, models text, winner text, created real, extras blob);
create index messages_of on messages (conversation, id);
"""


def open_history(folder: Path, passphrase: str | None) -> History:
    """The history in a folder of data."""
    return History(folder / FILE, passphrase)


@dataclass(frozen=True)
class Conversation:
    """created, updated: seconds since 1970."""

    id: str
    title: str
    created: float
    updated: float


@dataclass(frozen=True)
class Message:
    """extras: what else is known of it (tokens, seconds, warnings, agreement ...)."""

    id: int
    role: str
    content: str
    thought: str
    model: str
    created: float
    extras: dict


@dataclass(frozen=True)
class Vote:
    """A comparison in the arena. models: those shown. winner: one of them, "tie" or "neither". extras: question, answers."""

    id: int
    models: list[str]
    winner: str
    created: float
    extras: dict


class History:
    """path: the file. passphrase: None leaves what is said readable.

    Raises:
        UserError: the passphrase is wrong, missing, or given for a history that has none.
        RunError: the file is damaged, of a newer version or of another program; it is left as it is.
    """

    def __init__(self, path: Path, passphrase: str | None = None):
        self.path, self._passphrase = Path(path), passphrase
        self._cipher: AESGCM | None = None
        self._salt: bytes | None = None
        with self._connected():
            pass

    # ------------------------------------------------------------------------------------------------- conversations

    def new(self, title: str = "") -> str:
        """Begins a conversation and returns its id."""
        name, now = secrets.token_hex(8), time.time()
        with self._connected() as database:
            database.execute("insert into conversations values (?, ?, ?, ?)", (name, self._seal(title), now, now))
        return name

    def list(self, limit: int | None = None) -> list[Conversation]:
        """The last ones first."""
        with self._connected() as database:
            rows = database.execute("select * from conversations order by updated desc, rowid desc limit ?",
                                    (-1 if limit is None else limit,)).fetchall()
        return [Conversation(name, self._unseal(title), created, updated) for name, title, created, updated in rows]

    def search(self, text: str) -> list[Conversation]:
        """Those whose title or messages hold the text, in whatever case."""
        with self._connected() as database:
            rows = database.execute("select conversation, content from messages").fetchall()
        wanted = text.casefold()
        holding = {conversation for conversation, content in rows if wanted in self._unseal(content).casefold()}
        return [found for found in self.list() if found.id in holding or wanted in found.title.casefold()]

    def open(self, conversation: str) -> list[Message]:
        """Its messages in order; KeyError where there is no such conversation."""
        with self._connected() as database:
            self._touch(database, conversation)
            rows = database.execute("select id, role, content, thought, model, created, extras from messages "
                                    "where conversation = ? order by id", (conversation,)).fetchall()
        return [Message(number, role, self._unseal(content), self._unseal(thought), model, created,
                        json.loads(self._unseal(extras)))
                for number, role, content, thought, model, created, extras in rows]

    def append(self, conversation: str, role: str, content: str, thought: str = "", model: str = "",
               extras: dict | None = None) -> int:
        """Adds a message and returns its id."""
        now = time.time()
        with self._connected() as database:
            self._touch(database, conversation, now)
            return database.execute("insert into messages values (null, ?, ?, ?, ?, ?, ?, ?)", (
                conversation, role, self._seal(content), self._seal(thought), model, now, self._seal_json(extras))).lastrowid

    def rename(self, conversation: str, title: str) -> None:
        with self._connected() as database:
            self._touch(database, conversation)
            database.execute("update conversations set title = ? where id = ?", (self._seal(title), conversation))

    def truncate(self, conversation: str, message: int) -> None:
        """Drops a message and all that follow it: one that is edited or asked for again."""
        with self._connected(erases=True) as database:
            self._touch(database, conversation)
            database.execute("delete from messages where conversation = ? and id >= ?", (conversation, message))

    def delete(self, conversation: str) -> None:
        with self._connected(erases=True) as database:
            self._touch(database, conversation)
            database.execute("delete from conversations where id = ?", (conversation,))

    @staticmethod
    def _touch(database: sqlite3.Connection, conversation: str, now: float | None = None) -> None:
        """KeyError where there is no such conversation; `now` becomes the time of its last change."""
        changed = database.execute("select 1 from conversations where id = ?", (conversation,)).fetchone()
        if changed is None:
            raise KeyError(conversation)
        if now is not None:
            database.execute("update conversations set updated = ? where id = ?", (now, conversation))

    # --------------------------------------------------------------------------------------------------------- votes

    def vote(self, models: list[str], winner: str, extras: dict | None = None) -> int:
        with self._connected() as database:
            return database.execute("insert into votes values (null, ?, ?, ?, ?)", (
                json.dumps(models), winner, time.time(), self._seal_json(extras))).lastrowid

    def votes(self) -> list[Vote]:
        with self._connected() as database:
            rows = database.execute("select * from votes order by id").fetchall()
        return [Vote(number, json.loads(models), winner, created, json.loads(self._unseal(extras)))
                for number, models, winner, created, extras in rows]

    def export(self) -> Iterator[dict]:
        """Everything, readable: a dictionary for each conversation, with its messages, then one for each vote."""
        for conversation in reversed(self.list()):
            messages = [asdict(message) for message in self.open(conversation.id)]
            yield {"kind": "conversation", **asdict(conversation), "messages": messages}
        for vote in self.votes():
            yield {"kind": "vote", **asdict(vote)}

    def wipe(self) -> None:
        wipe(self.path)

    # ---------------------------------------------------------------------------------------------------- the file

    @contextlib.contextmanager
    def _connected(self, erases: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction. erases: what it deletes leaves the log of changes, too."""
        with _sentences(self.path):
            _create(self.path)
            with _connect(self.path) as database:
                with database:
                    database.execute("begin immediate")
                    self._prepare(database)
                    self._agree(database)
                    yield database
                if erases:
                    database.execute("pragma wal_checkpoint(truncate)")

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Makes the tables where the file is new, or was wiped."""
        version, application = (database.execute(f"pragma {name}").fetchone()[0] for name in ("user_version", "application_id"))
        if (version, application) == (VERSION, APPLICATION):
            return
        if version or application or database.execute("select 1 from sqlite_master").fetchone():
            remedy = "Update Spoutnik" if application == APPLICATION else "It is another program's: move it away"
            raise RunError(f"{self.path}: is not a history that this version can read. {remedy}, or choose another --data.")
        for statement in TABLES.split(";")[:-1]:
            database.execute(statement)
        database.execute(f"pragma application_id = {APPLICATION}")
        database.execute(f"pragma user_version = {VERSION}")

    def _agree(self, database: sqlite3.Connection) -> None:
        """Is the file encrypted as we think it is? Looked at each time: it may have been wiped, and begun again by others."""
        found = dict(database.execute("select key, value from meta"))
        if self._passphrase is None:
            if found:
                raise UserError(f"{self.path}: is encrypted. Give its passphrase: --passphrase asks for it, and "
                                "SPOUTNIK_PASSPHRASE is read where nobody can be asked.")
            return
        if found and found["salt"] == self._salt:
            return
        if not found and any(database.execute(f"select 1 from {table}").fetchone() for table in ("conversations", "votes")):
            raise UserError(f"{self.path}: holds conversations that are not encrypted. Leave the passphrase out; or export "
                            "them, wipe the history and start anew with it.")
        salt, cost = found.get("salt", secrets.token_bytes(16)), int(found.get("cost", SCRYPT_COST))
        cipher = AESGCM(Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(self._passphrase.encode()))
        if not found:
            check = cipher.encrypt(bytes(NONCE), b"spoutnik", salt)
            database.executemany("insert into meta values (?, ?)", {"salt": salt, "cost": cost, "check": check}.items())
        else:
            try:
                cipher.decrypt(bytes(NONCE), found["check"], salt)
            except InvalidTag as error:
                raise UserError(f"{self.path}: the passphrase is wrong. Try again; without the right one nobody can read "
                                "this history.") from error
        self._salt, self._cipher = salt, cipher

    def _seal(self, text: str) -> str | bytes:
        plain = text.encode("utf-8", "replace")  # half a character cannot be stored
        if self._cipher is None:
            return plain.decode()
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, plain, None)

    def _seal_json(self, extras: dict | None) -> str | bytes:
        return self._seal(json.dumps(extras or {}, ensure_ascii=False))

    def _unseal(self, stored: str | bytes) -> str:
        if isinstance(stored, str) == (self._cipher is not None):
            raise RunError(f"{self.path}: is encrypted in one part and not in another. Restore it, or wipe the history.")
        if self._cipher is None:
            return stored
        try:
            return self._cipher.decrypt(stored[:NONCE], stored[NONCE:], None).decode()
        except InvalidTag as error:
            raise RunError(f"{self.path}: a text in it is damaged, or was written under another passphrase. Restore the file, "
                           "or wipe the history.") from error


def wipe(path: Path) -> bool:
    """Overwrites and deletes a history, readable or not, with the files SQLite keeps beside it. False: there was none.

    A disk may keep old copies of overwritten places all the same (flash memory, snapshots); encryption is the remedy there.
    """
    path = Path(path)
    if not path.exists():
        return False
    with contextlib.suppress(sqlite3.DatabaseError), _connect(path) as database:  # where it is damaged, nobody uses it
        database.execute("pragma journal_mode = delete")  # waits for others, and ends the log of changes
        database.execute("begin exclusive")
        _remove(path)
    _remove(path)
    return True


def _remove(path: Path) -> None:
    with disk_errors(path, "--data"):
        for file in (path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal", "")):
            if file.exists():
                with open(file, "r+b") as zeros:
                    zeros.write(bytes(file.stat().st_size))
                    os.fsync(zeros.fileno())
                file.unlink()
        fsync_path(path.parent)


def _create(path: Path) -> None:
    """An empty file that only its owner may read; SQLite gives the files beside it the same rights."""
    if not path.exists():
        with disk_errors(path, "--data"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    elif 0 < path.stat().st_size < SMALLEST:  # which SQLite would take for a new one
        raise sqlite3.DatabaseError("it is cut short")


@contextlib.contextmanager
def _connect(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as database:
        database.execute("pragma secure_delete = on")  # what is deleted is overwritten
        database.execute("pragma foreign_keys = on")
        database.execute("pragma journal_mode = wal")
        yield database


@contextlib.contextmanager
def _sentences(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise RunError(f"{path}: the history cannot be used now ({error}). Check the disk and the file's permissions, or "
                       "start with --no-history.") from error
    except sqlite3.DatabaseError as error:
        raise RunError(f"{path}: the history is damaged ({error}); it was left as it is. Restore it, move it away, or give it "
                       "up with `spoutnik history wipe`.") from error
