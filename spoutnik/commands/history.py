"""`spoutnik history`: the page's stored conversations."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.data import data_folder, date, open_history
from spoutnik.commands.options import Data, Json, Passphrase

history = typer.Typer(no_args_is_help=True, help="Conversations that the page has kept.")


@history.command("show", epilog="Example: spoutnik history show --search strawberry")
def show(
    conversation: Annotated[Optional[str], typer.Argument(help="The id of one, to read it [default: a list of all].")] = None,
    search: Annotated[Optional[str], typer.Option(help="Only those that hold this text.")] = None,
    passphrase: Passphrase = False,
    data: Data = None,
    json_: Json = False,
):
    """Show the conversations, or what was said in one of them."""
    from spoutnik.errors import UserError

    store = open_history(data, passphrase)
    if conversation is not None:
        try:
            messages = store.messages(conversation) if store else []
        except KeyError:
            messages = []
        if not messages:
            raise UserError(f"CONVERSATION = {conversation!r}: there is none of that id. `spoutnik history show` lists them.")
        print(json.dumps([vars(message) for message in messages], ensure_ascii=False) if json_ else "\n\n".join(
            f"{message.role} ({date(message.created)} {message.model}):\n{message.content}" for message in messages))
        return
    conversations = [] if store is None else store.list() if search is None else store.search(search)
    if json_:
        print(json.dumps([vars(entry) for entry in conversations], ensure_ascii=False))
        return
    for entry in conversations:
        print(f"{entry.id}  {date(entry.updated)}  {entry.title}")
    if not conversations:
        print("There is nothing." if search is None else f"Nothing holds {search!r}.", file=sys.stderr)


@history.command("export", epilog="Example: spoutnik history export conversations.jsonl")
def export(
    file: Annotated[Optional[Path], typer.Argument(help="Where to [default: printed].")] = None,
    passphrase: Passphrase = False,
    data: Data = None,
    json_: Json = False,
):
    """Write everything as JSON lines: conversations with their messages, and votes. An encrypted history becomes readable."""
    from spoutnik.files import write_jsonl

    store = open_history(data, passphrase)
    rows = [] if store is None else [*store.export()]
    if file is None:
        print("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), end="")
        return
    umask = os.umask(0o077)  # readable by its owner alone
    try:
        write_jsonl(file, rows)
    finally:
        os.umask(umask)
    print(json.dumps({"file": str(file), "rows": len(rows)}) if json_ else f"Wrote {len(rows)} lines to {file}.")


@history.command("wipe", epilog="Example: spoutnik history wipe")
def wipe(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, data: Data = None, json_: Json = False):
    """Overwrite and delete all conversations, votes, and the questions that `spoutnik chat` remembers. Needs no passphrase."""
    from spoutnik.store.history import FILE, wipe_file

    folder = data_folder(data)
    if not yes:
        typer.confirm(f"Delete all conversations in {folder}?", abort=True, err=True)
    wiped = any([wipe_file(folder / name) for name in (FILE, "chat_history")])
    print(json.dumps({"wiped": wiped}) if json_ else "It is gone." if wiped else "There was nothing.")
    if (folder / "feedback").exists():
        print(f"What was given as feedback is kept, to train on: delete {folder / 'feedback'} to forget it.", file=sys.stderr)
