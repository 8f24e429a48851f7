"""The command line. Each command is a file of this package and imports what is heavy when it runs: `--help` answers at once."""

import os
import sys
from typing import Annotated

# Threads that wait sleep and do not spin: on a busy machine spinning takes ten times as long (docs/results.md). OpenMP reads
# it when torch is imported, so it is set before that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Limits of the caches of compiled matrix products, half a megabyte per shape, of oneDNN and of each thread of its wrapper:
# with the default of the wrapper a long run's memory grows by a gigabyte (docs/results.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")
os.environ.setdefault("LRU_CACHE_CAPACITY", "256")

import typer  # noqa: E402

from spoutnik import __version__  # noqa: E402
from spoutnik.commands.arena import arena  # noqa: E402
from spoutnik.commands.bench import bench  # noqa: E402
from spoutnik.commands.chat import chat  # noqa: E402
from spoutnik.commands.eval import evaluate  # noqa: E402
from spoutnik.commands.export import export  # noqa: E402
from spoutnik.commands.history import history  # noqa: E402
from spoutnik.commands.inspect import inspect  # noqa: E402
from spoutnik.commands.keys import keys  # noqa: E402
from spoutnik.commands.models import models, pull  # noqa: E402
from spoutnik.commands.run import run  # noqa: E402
from spoutnik.commands.serve import serve  # noqa: E402

app = typer.Typer(
    name="spoutnik", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="The whole DeepSeek-R1 system: train a model that reasons, look at it, talk to it. On hardware you own.")
app.command(epilog="Example: spoutnik run recipes/nano.yaml --out runs/nano")(run)
app.command(epilog="Example: spoutnik chat runs/nano --stage cold_start")(chat)
app.command(epilog="Example: spoutnik serve runs/nano")(serve)
app.command(epilog="Example: spoutnik models")(models)
app.command(epilog="Example: spoutnik pull qwen3-1.7b")(pull)
app.command(epilog="Example: spoutnik arena runs/nano")(arena)
app.add_typer(keys, name="keys")
app.add_typer(history, name="history")
app.command("eval", epilog="Example: spoutnik eval runs/nano --bench gsm8k --data test.jsonl --samples 4")(evaluate)
app.command(epilog="Example: spoutnik inspect deepseek-r1")(inspect)
app.command(epilog="Example: spoutnik export runs/nano --format gguf --out nano.gguf --dtype q8_0")(export)
app.command(epilog="Example: spoutnik bench runs/nano --quantize int8")(bench)


def _print_version(version: bool) -> None:
    if version:
        print(f"spoutnik {__version__}")
        raise typer.Exit


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True,
                                                  help="Print the version and leave.")] = False) -> None:
    """Options of the program itself."""


def main() -> None:
    """Runs a command. Errors of the user are sentences on stderr, without a traceback."""
    try:
        status = app(standalone_mode=False)  # typer returns 130 after Ctrl-C
        if status == 130:
            again = " (without --from, which would begin anew)" if "--from" in sys.argv else ""
            print(f"\nInterrupted. What was finished is kept; run the same command again{again} to go on.", file=sys.stderr)
        if isinstance(status, int) and status:
            _exit(status)
    except typer.Abort:
        print("Nothing was done.", file=sys.stderr)
        _exit(1)
    except Exception as error:
        status = getattr(error, "exit_status", None)
        if status is not None:  # UserError, RunError
            print(f"spoutnik: {error}", file=sys.stderr)
            _exit(status)
        if hasattr(error, "format_message"):  # click's errors about options
            print(f"spoutnik: {error.format_message()} Try --help.", file=sys.stderr)
            _exit(2)
        raise


def _exit(status: int) -> None:
    """Exits without waiting for threads that compute a batch."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
