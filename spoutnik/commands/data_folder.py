"""The data folder: keys, history and feedback."""

import os
import sys
import time
from pathlib import Path

import typer


def data_folder(data: Path | None) -> Path:
    from spoutnik.serve.settings import Settings

    return Settings().data if data is None else data


def history_passphrase(ask: bool, data: Path) -> str | None:
    """From the environment, and out of it, so that no subprocess inherits it; or asked for where `ask` is set."""
    from spoutnik.errors import UserError
    from spoutnik.store.history import FILE

    passphrase = os.environ.pop("SPOUTNIK_PASSPHRASE", None)
    if passphrase or not ask:
        return passphrase
    if not sys.stdin.isatty():
        raise UserError("--passphrase: there is nobody to ask here. Set SPOUTNIK_PASSPHRASE instead.")
    return typer.prompt("Passphrase of the history", hide_input=True, confirmation_prompt=not (data / FILE).exists(), err=True)


def open_history(data: Path | None, passphrase: bool, create: bool = False):
    """The history in the data folder; None where there is none and `create` is false."""
    from spoutnik.store.history import FILE, History

    path = data_folder(data) / FILE
    return History(path, history_passphrase(passphrase, path.parent)) if create or path.exists() else None


def date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
