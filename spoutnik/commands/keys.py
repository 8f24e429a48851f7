"""`spoutnik keys`: API keys of the server."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, say
from spoutnik.commands.data_folder import data_folder, date
from spoutnik.commands.help import Command, Group
from spoutnik.commands.options import Data, Json

keys = typer.Typer(cls=Group, no_args_is_help=True, epilog="Example: spoutnik keys add laptop", help="API keys of the server.")


@keys.command("add", cls=Command, epilog="Example: spoutnik keys add laptop")
def add(
    name: Annotated[str, typer.Argument(help="To tell it from others.")],
    requests_per_minute: Annotated[Optional[int], typer.Option(min=1, help="[default: the server's]")] = None,
    tokens_per_minute: Annotated[Optional[int], typer.Option(min=1, help="Prompts included [default: the server's].")] = None,
    data: Data = None,
    json_: Json = False,
):
    """Make a key and print it, this once: only a hash is kept. A running server knows it at once."""
    secret = open_keys(data).add(name, requests_per_minute, tokens_per_minute)
    print_json({"name": name, "key": secret}) if json_ else print(secret)
    if not json_:
        say("Keep it: it cannot be shown again. From now on every request to the server needs a key.", console(stderr=True))


@keys.command("list", cls=Command, epilog="Example: spoutnik keys list")
def list_(data: Data = None, json_: Json = False):
    """Show the keys: name, last four characters, when it was made, whether it is in use."""
    all_keys = open_keys(data).list()
    if json_:
        print_json([{name: value for name, value in vars(key).items() if name != "hash"} for key in all_keys])
        return
    for key in all_keys:
        limits = [f"{limit} {unit} a minute" for limit, unit in ((key.requests_per_minute, "requests"),
                                                                 (key.tokens_per_minute, "tokens")) if limit is not None]
        state = "revoked" if key.revoked else "in use"
        say("  ".join([f"{key.name:20}", f"...{key.ending}", date(key.created), state, *limits]))
    if not all_keys:
        say("There are none. `spoutnik keys add NAME` makes one.", console(stderr=True))


@keys.command("revoke", cls=Command, epilog="Example: spoutnik keys revoke laptop")
def revoke(name: Annotated[str, typer.Argument(help="The key's name.")], data: Data = None, json_: Json = False):
    """Make a key worthless, in a running server too."""
    open_keys(data).revoke(name)
    print_json({"name": name, "revoked": True}) if json_ else say(f"{name} is revoked.")


def open_keys(data: Path | None):
    from spoutnik.serve.keys import FILE, Keys

    return Keys(data_folder(data) / FILE)
