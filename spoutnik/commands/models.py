"""`spoutnik models` and `spoutnik pull`: open models for this machine, and fetching one."""

from typing import TYPE_CHECKING, Annotated

import typer

from spoutnik.commands.console import console, print_json, say
from spoutnik.commands.options import Json
from spoutnik.commands.progress import download_progress

if TYPE_CHECKING:
    from spoutnik.generation.offers import Machine, OfferedModel

_NUMBERS = ("size", "fetch", "memory here", "tok/s")
_COLUMNS = ("name", "size", "fetch", "licence", "memory here", "tok/s")
_WIDE = 150  # columns that have space for what each model is


def models(json_: Json = False):
    """List good open models: what they are, what fits this machine's memory, and the speed to expect. Asks nothing of the
    network."""
    from spoutnik.generation.offers import Machine, offers

    machine = Machine.measure()
    offered = offers(machine)
    if json_:
        print_json({"memory_bytes": machine.memory, "read_bandwidth": machine.bandwidth,
                    "models": [model.as_json() for model in offered]})
        return
    _print_table(machine, offered)


def pull(
    model: Annotated[str, typer.Argument(help="A name of `spoutnik models`, or of a model on the hub (org/model).")],
    json_: Json = False,
):
    """Fetch a model into the local cache. Interrupted, it goes on where it was."""
    from spoutnik import hub
    from spoutnik.errors import UserError

    repository = hub.repository_of(model)
    if repository is None:
        raise UserError(f"{model}: is no model's name on the hub (org/model), nor one of `spoutnik models`. Correct it.")
    folder = hub.cached(repository)
    here = folder is not None
    if not here:
        with download_progress(model, silent=json_) as progress:
            folder = hub.fetch(repository, progress=progress)
    if json_:
        print_json({"model": model, "repository": repository, "folder": str(folder), "fetched": not here})
        return
    say(f"{model}: {'is here already' if here else 'fetched'}. Talk to it: spoutnik chat {model}, or spoutnik serve {model}")


def _print_table(machine: "Machine", offered: list["OfferedModel"]) -> None:
    from rich.table import Table

    from spoutnik.tables import print_table
    from spoutnik.units import size

    terminal = console()
    wide = terminal.width >= _WIDE
    terminal.print(f"This machine: {size(machine.memory)} of memory free, read at {size(machine.bandwidth)}/s.\n",
                   highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (*_COLUMNS, *(["what it is"] if wide else [])):
        table.add_column(column, justify="right" if column in _NUMBERS else "left", no_wrap=True)
    for model in offered:
        table.add_row(*_row(model), *([model.preset.offer.about["en"]] if wide else []), style=None if model.best else "dim")
    print_table(terminal, table)
    for model in () if wide else offered:
        terminal.print(f"{model.name}: {model.preset.offer.about['en']}", highlight=False, style=None if model.best else "dim")
    example = _suggestion(offered)
    quantize = f" --quantize {example.quantize}" if example.quantize else ""
    terminal.print(f"\nFetch one, then talk to it:\n  spoutnik pull {example.name}\n  spoutnik chat {example.name}{quantize}"
                   "\n\nThe speed is an estimate from that of the memory. A thought takes some 500 to 5,000 tokens.",
                   highlight=False)


def _row(model: "OfferedModel") -> list[str]:
    best, smallest = model.best, min(fit.memory_bytes for fit in model.fits)
    return [model.name, f"{model.parameters / 1e9:.1f} B",
            "is here" if model.folder else _gigabytes(model.preset.offer.download_bytes), model.preset.offer.licence,
            f"{_gigabytes(best.memory_bytes)} {best.precision}" if best else f"needs {_gigabytes(smallest)}",
            f"{best.tokens_per_second:.0f}" if best else "–"]


def _suggestion(offered: list["OfferedModel"]) -> "OfferedModel":
    """The largest that thinks and is quick enough here, else the smallest that thinks."""
    from spoutnik.model.fit import COMFORTABLE_RATE

    thinking = [model for model in offered if model.preset.offer.thinks]
    quick = [model for model in thinking if model.best and model.best.tokens_per_second >= COMFORTABLE_RATE]
    return max(quick, key=lambda model: model.parameters) if quick else thinking[0]


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
