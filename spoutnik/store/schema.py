"""The tables of a history, and how older ones become the present ones."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from spoutnik.errors import RunError

APPLICATION_ID, SCHEMA_VERSION = 0x5350544E, 2  # the first is "SPTN" in ASCII
TABLES = """
create table meta (key text primary key, value blob);
create table conversations (id text primary key, title blob, created real, updated real, owner text, head integer);
create table messages (id integer primary key autoincrement, conversation text references conversations on delete cascade,
                       role text, content blob, thought blob, model text, created real, extras blob, parent integer,
                       finished integer not null default 1);
create table votes (id integer primary key autoincrement, models text, winner text, created real, extras blob);
create index messages_of on messages (conversation, id);
"""
# Version 1 had no versions of messages: each follows the one before it.
FROM_1_TO_2 = """
alter table conversations add column owner text;
alter table conversations add column head integer;
alter table messages add column parent integer;
alter table messages add column finished integer not null default 1;
update messages set parent = (select max(id) from messages as earlier
                              where earlier.conversation = messages.conversation and earlier.id < messages.id);
update conversations set head = (select max(id) from messages where conversation = conversations.id);
"""


def ensure_tables(database: sqlite3.Connection, path: Path) -> int:
    """Creates the tables where the file is new or was wiped, and returns their version.

    Raises:
        RunError: the file is of a newer version or of another program.
    """
    version, application = (database.execute(f"pragma {name}").fetchone()[0] for name in ("user_version", "application_id"))
    if application == APPLICATION_ID and 1 <= version <= SCHEMA_VERSION:
        return version
    if version or application or database.execute("select 1 from sqlite_master").fetchone():
        remedy = "Update Spoutnik" if application == APPLICATION_ID else "It is another program's: move it away"
        raise RunError(f"{path}: is not a history that this version can read. {remedy}, or choose another --data.")
    _run(database, TABLES)
    database.execute(f"pragma application_id = {APPLICATION_ID}")
    database.execute(f"pragma user_version = {SCHEMA_VERSION}")
    return SCHEMA_VERSION


def migrate(database: sqlite3.Connection, read_extras: Callable[[str | bytes], dict]) -> None:
    """From version 1. read_extras: of a stored message; the first one's named the conversation's owner."""
    _run(database, FROM_1_TO_2)
    firsts = database.execute("select conversation, extras from messages where parent is null").fetchall()
    database.executemany("update conversations set owner = ? where id = ?",
                         [(read_extras(extras).get("owner"), conversation) for conversation, extras in firsts])
    database.execute(f"pragma user_version = {SCHEMA_VERSION}")


def _run(database: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";")[:-1]:  # executescript would end the transaction
        database.execute(statement)
