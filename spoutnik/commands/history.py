"""`spoutnik history`: the page's stored conversations."""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, say
from spoutnik.commands.data_folder import data_folder, date, open_history
from spoutnik.commands.help import Command, Group
from spoutnik.commands.options import Data, Json, Passphrase

history = typer.Typer(cls=Group, no_args_is_help=True, epilog="Example: spoutnik history show",
                      help="Conversations that the page has kept.")


@history.command("show", cls=Command, epilog="Example: spoutnik history show --search strawberry")
def show(
    conversation: Annotated[Optional[str], typer.Argument(help="The id of one, to read it [default: a list of all].")] = None,
    search: Annotated[Optional[str], typer.Option(help="Only those that hold all these words, in whatever case "
                                                     "and with or without accents.")] = None,
    passphrase: Passphrase = False,
    data: Data = None,
    json_: Json = False,
):
    """Show the conversations, or what was said in one of them."""
    from spoutnik.errors import UserError
    from spoutnik.store.versions import MessageTree

    store = open_history(data, passphrase)
    if conversation is not None:
        try:
            entry, messages = (store.get(conversation), store.messages(conversation)) if store else (None, [])
        except KeyError:
            messages = []
        if not messages:
            raise UserError(f"CONVERSATION = {conversation!r}: there is none of that id. `spoutnik history show` lists them.")
        if json_:
            print_json([vars(message) for message in messages])
            return
        say("\n\n".join(
            f"{message.role} ({date(message.created)} {message.model}){'' if message.finished else ', interrupted'}:\n"
            f"{message.content}" for message in MessageTree(messages, entry.head).path))
        return
    hits = [] if store is None else [(hit.conversation, hit.excerpt) for hit in store.search(search or "")]
    if json_:
        rows = [vars(entry) | ({"excerpt": excerpt} if search else {}) for entry, excerpt in hits]
        print_json(rows)
        return
    for entry, excerpt in hits:
        say(f"{entry.id}  {date(entry.updated)}  {entry.title}" + (f"\n    {excerpt}" if excerpt else ""))
    if not hits:
        say("There is nothing." if search is None else f"Nothing holds {search!r}.", console(stderr=True))


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    MARKDOWN = "markdown"


@history.command("export", cls=Command, epilog="Example: spoutnik history export conversations.md --format markdown")
def export(
    file: Annotated[Optional[Path], typer.Argument(help="Where to [default: printed].")] = None,
    format_: Annotated[ExportFormat, typer.Option("--format", help="JSON lines, with everything; or Markdown, to read.")
                       ] = ExportFormat.JSONL,
    passphrase: Passphrase = False,
    data: Data = None,
    json_: Json = False,
):
    """Write all conversations with all versions of their messages, and (as JSON) the votes. An encrypted history becomes
    readable."""
    from spoutnik.files import write_text
    from spoutnik.store.markdown import conversation_markdown

    store = open_history(data, passphrase)
    if store is None:
        rows = []
    elif format_ is ExportFormat.MARKDOWN:
        rows = [conversation_markdown(entry, store.messages(entry.id)) for entry in reversed(store.list())]
    else:
        rows = [json.dumps(row, ensure_ascii=False) for row in store.export()]
    text = "".join(f"{row}\n" for row in rows)
    if file is None:
        print(text, end="")
        return
    umask = os.umask(0o077)  # readable by its owner alone
    try:
        write_text(file, text)
    finally:
        os.umask(umask)
    written = f"{len(rows)} conversations" if format_ is ExportFormat.MARKDOWN else f"{len(rows)} lines"
    print_json({"file": str(file), "rows": len(rows)}) if json_ else say(f"Wrote {written} to {file}.")


@history.command("wipe", cls=Command, epilog="Example: spoutnik history wipe")
def wipe(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, data: Data = None, json_: Json = False):
    """Overwrite and delete all conversations, votes, and the questions that `spoutnik chat` remembers. Needs no passphrase."""
    from spoutnik.store.history import FILE, wipe_file

    folder = data_folder(data)
    if not yes:
        typer.confirm(f"Delete all conversations in {folder}?", abort=True, err=True)
    wiped = any([wipe_file(folder / name) for name in (FILE, "chat_history")])
    print_json({"wiped": wiped}) if json_ else say("It is gone." if wiped else "There was nothing.")
    if (folder / "feedback").exists():
        say(f"What was given as feedback is kept, to train on: delete {folder / 'feedback'} to forget it.",
            console(stderr=True))
