"""The commands about the server: serve, keys, history. Imports that take time lie inside, as in spoutnik/cli.py."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.options import Data, Drafts, Json, Memory, Passphrase, Quantize, Speculate

keys = typer.Typer(no_args_is_help=True, help="API keys of the server.")
history = typer.Typer(no_args_is_help=True, help="Conversations that the page has kept.")


def serve(
    model: Annotated[Optional[str], typer.Argument(help="A run's folder, a model's, or a name on the hub (org/model) [default: "
                                                   "the newest run under ./runs, or the nano base of the package].")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; other addresses than 127.0.0.1 need an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    stage: Annotated[Optional[str], typer.Option(help="Of a run, offer this stage's model alone [default: all, each read when "
                                                 "it is first asked for].")] = None,
    quantize: Quantize = None,
    memory: Memory = None,
    speculate: Speculate = None,
    drafts: Drafts = 1,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Replies computed at the same time, of each model.")] = 256,
    max_queue: Annotated[int, typer.Option(min=1, help="Replies under way or waiting; beyond, clients are asked to come "
                                           "again.")] = 256,
    require_key: Annotated[bool, typer.Option("--require-key", help="Refuse to start without an API key. (As soon as there is "
                                              "one, every request needs one.)")] = False,
    requests_per_minute: Annotated[Optional[int], typer.Option(min=1, help="Of each key.")] = None,
    tokens_per_minute: Annotated[Optional[int], typer.Option(min=1, help="Of each key, prompts included.")] = None,
    cors_origin: Annotated[Optional[list[str]], typer.Option(help="A web page's origin, as https://ui.example, that may call "
                                                             "the API from a browser; may be repeated.")] = None,
    data: Data = None,
    no_history: Annotated[bool, typer.Option("--no-history", help="The page keeps no conversations.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="The API alone.")] = False,
    passphrase: Passphrase = False,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write what is asked and answered to the log.")] = False,
    json_: Json = False,
):
    """Serve a model: a chat page, and an API that OpenAI's clients understand. Nothing leaves the machine."""
    from rich.console import Console

    from spoutnik.serve.command import Engine
    from spoutnik.serve.command import serve as run
    from spoutnik.serve.settings import Settings

    folder = data_folder(data)
    settings = Settings(
        host=host, port=port, data=folder, require_key=require_key, max_queue=max_queue,
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, cors_origins=tuple(cors_origin or ()),
        log_prompts=log_prompts, history=not no_history, page=not no_page, passphrase=_passphrase(passphrase, folder))
    run(model, stage, Engine(quantize, memory, speculate, drafts, max_num_seqs), settings, Console(stderr=True), json_)


@keys.command("add", epilog="Example: spoutnik keys add laptop")
def add(
    name: Annotated[str, typer.Argument(help="To tell it from others.")],
    requests_per_minute: Annotated[Optional[int], typer.Option(min=1, help="[default: the server's]")] = None,
    tokens_per_minute: Annotated[Optional[int], typer.Option(min=1, help="Prompts included [default: the server's].")] = None,
    data: Data = None,
    json_: Json = False,
):
    """Make a key and print it, this once: only a hash is kept. A running server knows it at once."""
    secret = _keys(data).add(name, requests_per_minute, tokens_per_minute)
    print(json.dumps({"name": name, "key": secret}) if json_ else secret)
    if not json_:
        print("Keep it: it cannot be shown again. From now on every request to the server needs a key.", file=sys.stderr)


@keys.command("list", epilog="Example: spoutnik keys list")
def list_(data: Data = None, json_: Json = False):
    """Show the keys: name, last four characters, when it was made, whether it is in use."""
    found = _keys(data).list()
    if json_:
        print(json.dumps([{name: value for name, value in vars(key).items() if name != "hash"} for key in found]))
        return
    for key in found:
        limits = [f"{most} {what} a minute" for most, what in ((key.requests_per_minute, "requests"),
                                                               (key.tokens_per_minute, "tokens")) if most is not None]
        state = "revoked" if key.revoked else "in use"
        print("  ".join([f"{key.name:20}", f"...{key.ending}", _day(key.created), state, *limits]))
    if not found:
        print("There are none. `spoutnik keys add NAME` makes one.", file=sys.stderr)


@keys.command("revoke", epilog="Example: spoutnik keys revoke laptop")
def revoke(name: Annotated[str, typer.Argument(help="The key's name.")], data: Data = None, json_: Json = False):
    """Make a key worthless, in a running server too."""
    _keys(data).revoke(name)
    print(json.dumps({"name": name, "revoked": True}) if json_ else f"{name} is revoked.")


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

    kept = _history(data, passphrase)
    if conversation is not None:
        try:
            messages = kept.open(conversation) if kept else []
        except KeyError:
            messages = []
        if not messages:
            raise UserError(f"CONVERSATION = {conversation!r}: there is none of that id. `spoutnik history show` lists them.")
        print(json.dumps([vars(one) for one in messages], ensure_ascii=False) if json_ else
              "\n\n".join(f"{one.role} ({_day(one.created)} {one.model}):\n{one.content}" for one in messages))
        return
    found = [] if kept is None else kept.list() if search is None else kept.search(search)
    if json_:
        print(json.dumps([vars(one) for one in found], ensure_ascii=False))
        return
    for one in found:
        print(f"{one.id}  {_day(one.updated)}  {one.title}")
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

    kept = _history(data, passphrase)
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
    from spoutnik.serve.history import FILE
    from spoutnik.serve.history import wipe as wiped

    folder = data_folder(data)
    if not yes:
        typer.confirm(f"Delete all conversations in {folder}?", abort=True, err=True)
    found = [wiped(folder / name) for name in (FILE, "chat_history")]
    print(json.dumps({"wiped": any(found)}) if json_ else "It is gone." if any(found) else "There was nothing.")
    if (folder / "feedback").exists():
        print(f"What was given as feedback is kept, to train on: delete {folder / 'feedback'} to forget it.", file=sys.stderr)


def data_folder(data: Path | None) -> Path:
    from spoutnik.serve.settings import Settings

    return Settings().data if data is None else data


def _keys(data: Path | None):
    from spoutnik.serve.keys import FILE, Keys

    return Keys(data_folder(data) / FILE)


def _history(data: Path | None, passphrase: bool):
    """None where there is none yet: looking makes none."""
    from spoutnik.serve.history import FILE, History

    path = data_folder(data) / FILE
    return History(path, _passphrase(passphrase, path.parent)) if path.exists() else None


def _passphrase(ask: bool, data: Path) -> str | None:
    """Out of the environment, where nothing that we start can read it, or from whoever sits here."""
    from spoutnik.errors import UserError
    from spoutnik.serve.history import FILE

    given = os.environ.pop("SPOUTNIK_PASSPHRASE", None)
    if given or not ask:
        return given
    if not sys.stdin.isatty():
        raise UserError("--passphrase: there is nobody to ask here. Set SPOUTNIK_PASSPHRASE instead.")
    return typer.prompt("Passphrase of the history", hide_input=True, confirmation_prompt=not (data / FILE).exists(), err=True)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
