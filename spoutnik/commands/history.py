"""`spoutnik history`: conversations that the page has kept."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.data import data_folder, date, history_passphrase
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

    kept = open_history(data, passphrase)
    if conversation is not None:
        try:
            messages = kept.messages(conversation) if kept else []
        except KeyError:
            messages = []
        if not messages:
            raise UserError(f"CONVERSATION = {conversation!r}: there is none of that id. `spoutnik history show` lists them.")
        print(json.dumps([vars(one) for one in messages], ensure_ascii=False) if json_ else
              "\n\n".join(f"{one.role} ({date(one.created)} {one.model}):\n{one.content}" for one in messages))
        return
    found = [] if kept is None else kept.list() if search is None else kept.search(search)
    if json_:
        print(json.dumps([vars(one) for one in found], ensure_ascii=False))
        return
    for one in found:
        print(f"{one.id}  {date(one.updated)}  {one.title}")
    if not found:
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

    kept = open_history(data, passphrase)
    rows = [] if kept is None else [*kept.export()]
    if file is None:
        print("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), end="")
        return
    before = os.umask(0o077)  # nobody else's to read
    try:
        write_jsonl(file, rows)
    finally:
        os.umask(before)
    print(json.dumps({"file": str(file), "rows": len(rows)}) if json_ else f"Wrote {len(rows)} lines to {file}.")


@history.command("wipe", epilog="Example: spoutnik history wipe")
def wipe(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, data: Data = None, json_: Json = False):
    """Overwrite and delete all conversations, votes, and the questions that `spoutnik chat` remembers. Needs no passphrase."""
    from spoutnik.store.history import FILE, wipe_file

    folder = data_folder(data)
    if not yes:
        typer.confirm(f"Delete all conversations in {folder}?", abort=True, err=True)
    found = [wipe_file(folder / name) for name in (FILE, "chat_history")]
    print(json.dumps({"wiped": any(found)}) if json_ else "It is gone." if any(found) else "There was nothing.")
    if (folder / "feedback").exists():
        print(f"What was given as feedback is kept, to train on: delete {folder / 'feedback'} to forget it.", file=sys.stderr)


def open_history(data: Path | None, passphrase: bool):
    """None where there is none yet: looking makes none."""
    from spoutnik.store.history import FILE, History

    path = data_folder(data) / FILE
    return History(path, history_passphrase(passphrase, path.parent)) if path.exists() else None
