"""The folder of keys, history and feedback, as several commands open it."""

import os
import sys
import time
from pathlib import Path

import typer


def data_folder(data: Path | None) -> Path:
    from spoutnik.serve.settings import Settings

    return Settings().data if data is None else data


def history_passphrase(ask: bool, data: Path) -> str | None:
    """Out of the environment, where nothing that we start can read it, or from whoever sits here."""
    from spoutnik.errors import UserError
    from spoutnik.store.history import FILE

    given = os.environ.pop("SPOUTNIK_PASSPHRASE", None)
    if given or not ask:
        return given
    if not sys.stdin.isatty():
        raise UserError("--passphrase: there is nobody to ask here. Set SPOUTNIK_PASSPHRASE instead.")
    return typer.prompt("Passphrase of the history", hide_input=True, confirmation_prompt=not (data / FILE).exists(), err=True)


def date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
