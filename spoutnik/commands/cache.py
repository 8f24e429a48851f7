"""`spoutnik cache`: quantized weights that are kept on disk."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from spoutnik.commands.console import print_json, say
from spoutnik.commands.help import Command, Group
from spoutnik.commands.options import Json
from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.engine.quantization.packed_cache import PackedEntry

cache = typer.Typer(
    cls=Group, invoke_without_command=True, epilog="Example: spoutnik cache",
    help="Packed weights that are kept on disk: what --quantize made, and experts larger than memory. They lie beside the "
    "model, or in ~/.cache/spoutnik where that cannot be written. Without a command: a list of them.")


@cache.callback()
def list_(context: typer.Context, json_: Json = False):
    """Show them: size, precision, age, model, and whether they are still of use."""
    if context.invoked_subcommand is not None:
        if json_:
            raise UserError(f"--json: write it behind {context.invoked_subcommand}.")
        return
    from spoutnik.engine.quantization.packed_cache import packed_entries
    from spoutnik.units import size

    entries = packed_entries()
    total = sum(entry.nbytes for entry in entries)
    if json_:
        print_json({"bytes": total, "files": [_as_json(entry) for entry in entries]})
        return
    for entry in entries:
        say(f"{size(entry.nbytes):>9}  {entry.kind:8}  {_age(entry):>8}  {entry.state:9}  {entry.model or entry.path}")
    if not entries:
        say("Nothing is kept.")
        return
    unused = sum(entry.nbytes for entry in entries if entry.state != "current")
    say(f"\n{size(total)} in all" + (f", {size(unused)} of them unused: spoutnik cache clean --unused" if unused else ""))


@cache.command("clean", cls=Command, epilog="Example: spoutnik cache clean --unused")
def clean(
    model: Annotated[Optional[str], typer.Argument(help="What is kept for this model: its folder, a run's, or a name on the "
                                                   "hub (org/model).")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    unused: Annotated[bool, typer.Option("--unused", help="What no longer fits its model or this version, is damaged, or was "
                                         "left over by a process that was killed.")] = False,
    json_: Json = False,
):
    """Delete packed weights. They are made again when they are needed; what is being served goes on."""
    from spoutnik.engine.quantization.packed_cache import packed_entries, remove_entries
    from spoutnik.units import size

    if (model is not None) + all_ + unused != 1:
        raise UserError("cache clean: say what to delete: a model, --unused or --all, one of them.")
    entries = packed_entries() if model is None else [entry for one in _folders(model) for entry in packed_entries(one)]
    removed = remove_entries(entry for entry in entries if not unused or entry.state != "current")
    total = sum(entry.nbytes for entry in removed)
    if json_:
        print_json({"bytes": total, "removed": [str(entry.path) for entry in removed]})
    else:
        say(f"Deleted {len(removed)} {'file' if len(removed) == 1 else 'files'}, {size(total)}." if removed
            else "There was nothing to delete.")


def _folders(model: str) -> list[Path]:
    """Of a model, which may be gone; of all models of a run."""
    from spoutnik.locate import locate, models_of, path_of

    path = path_of(model)
    if (path / "run.json").exists():
        return list(models_of(path).values())
    return [path if path.is_absolute() and not path.exists() else locate(model, weights=False)]


def _as_json(entry: "PackedEntry") -> dict:
    return {"path": str(entry.path), "model": entry.model and str(entry.model), "precision": entry.kind, "bytes": entry.nbytes,
            "modified": int(entry.modified), "age_seconds": int(time.time() - entry.modified), "state": entry.state}


def _age(entry: "PackedEntry") -> str:
    """90 s, 3 min, 12 days."""
    seconds = max(0, time.time() - entry.modified)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
