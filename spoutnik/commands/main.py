"""The command line. Each command is a file of this package and imports what is heavy when it runs: `--help` answers at once."""

import contextlib
import errno
import os
import signal
import sys
from typing import Annotated

# Threads that wait sleep and do not spin: on a busy machine spinning takes ten times as long (docs/results.md). OpenMP reads
# it when torch is imported, so it is set before that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Limits of the caches of compiled matrix products, half a megabyte per shape, of oneDNN and of each thread of its wrapper:
# with the default of the wrapper a long run's memory grows by a gigabyte (docs/results.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")
os.environ.setdefault("LRU_CACHE_CAPACITY", "256")
if "RANK" in os.environ:  # where a process of several ends, those that remain say it in a sentence, not in torch's C++ stacks
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import typer  # noqa: E402

from spoutnik import __version__  # noqa: E402
from spoutnik.commands.adapt import adapt  # noqa: E402
from spoutnik.commands.arena import arena  # noqa: E402
from spoutnik.commands.audit import audit  # noqa: E402
from spoutnik.commands.bench import bench  # noqa: E402
from spoutnik.commands.cache import cache  # noqa: E402
from spoutnik.commands.chat import chat  # noqa: E402
from spoutnik.commands.console import console, say  # noqa: E402
from spoutnik.commands.data import data  # noqa: E402
from spoutnik.commands.eval import evals  # noqa: E402
from spoutnik.commands.experiment import experiment  # noqa: E402
from spoutnik.commands.export import export  # noqa: E402
from spoutnik.commands.help import Command, Group  # noqa: E402
from spoutnik.commands.history import history  # noqa: E402
from spoutnik.commands.inspect import inspect  # noqa: E402
from spoutnik.commands.keys import keys  # noqa: E402
from spoutnik.commands.models import models, pull  # noqa: E402
from spoutnik.commands.plan import plan  # noqa: E402
from spoutnik.commands.run import run  # noqa: E402
from spoutnik.commands.serve import serve  # noqa: E402
from spoutnik.commands.tasks import tasks  # noqa: E402
from spoutnik.errors import UserError, is_out_of_memory  # noqa: E402

app = typer.Typer(
    cls=Group, name="spoutnik", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, epilog="Example: spoutnik chat",
    help="The whole DeepSeek-R1 system: train a model that reasons, look at it, talk to it. On hardware you own.")
app.command(cls=Command, epilog="Example: spoutnik run recipes/nano.yaml --out runs/nano")(run)
app.command(cls=Command, epilog="Example: spoutnik experiment findings-rl --dry-run")(experiment)
app.command(cls=Command, epilog="Example: spoutnik adapt HuggingFaceTB/SmolLM2-135M-Instruct --data my.jsonl")(adapt)
app.command(cls=Command, epilog="Example: spoutnik chat runs/nano --stage cold_start")(chat)
app.command(cls=Command, epilog="Example: spoutnik serve runs/nano")(serve)
app.command(cls=Command, epilog="Example: spoutnik models")(models)
app.command(cls=Command, epilog="Example: spoutnik pull qwen3-1.7b")(pull)
app.command(cls=Command, epilog="Example: spoutnik arena runs/nano")(arena)
app.add_typer(keys, name="keys")
app.add_typer(history, name="history")
app.add_typer(cache, name="cache")
app.add_typer(data, name="data")
app.add_typer(evals, name="eval")
app.add_typer(tasks, name="tasks")
app.command(cls=Command, epilog="Example: spoutnik audit countdown 'gym-*' --problems 20")(audit)
app.command(cls=Command, epilog="Example: spoutnik inspect deepseek-r1")(inspect)
app.command(cls=Command, epilog="Example: spoutnik plan deepseek-v3 --cluster gpus=2048,kind=h800")(plan)
app.command(cls=Command, epilog="Example: spoutnik export runs/nano --format gguf --out nano.gguf --dtype q8_0")(export)
app.command(cls=Command, epilog="Example: spoutnik bench runs/nano --quantize int8")(bench)


def _print_version(version: bool) -> None:
    if version:
        print(f"spoutnik {__version__}")
        raise typer.Exit


@app.callback()
def options(context: typer.Context, version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True,
                                                  help="Print the version and leave.")] = False) -> None:
    """Options of the program itself."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1" and context.invoked_subcommand != "run":
        raise UserError(f"'{context.invoked_subcommand}' is work for one process, and torchrun has started "
                        f"{os.environ['WORLD_SIZE']}. Start it without torchrun; several processes are for `run`.")


def main() -> None:
    """Runs a command. Errors of the user are sentences on stderr, without a traceback."""
    _open_streams()
    interrupts = _note_interrupts()
    try:
        result = app(standalone_mode=False)  # typer returns 130 after Ctrl-C
        sys.stdout.flush()
        status = result if isinstance(result, int) else 0
        if status == 130:
            raise KeyboardInterrupt
        _exit(status) if status else None
    except BaseException as error:
        if any(isinstance(each, BrokenPipeError) for each in (error, error.__context__)):  # typer makes a SystemExit of it
            _exit(128 + signal.SIGPIPE)  # whoever read this has seen enough
        if interrupts or isinstance(error, KeyboardInterrupt):  # some libraries turn it into an error of theirs
            _fail(f"\nInterrupted.{how_to_go_on(sys.argv[1:])}", 130)
        _fail(*_sentence(error))


def how_to_go_on(arguments: list[str]) -> str:
    """Of the commands that keep what is finished."""
    keeps = arguments[:1] in (["run"], ["adapt"], ["pull"], ["eval"], ["experiment"]) or arguments[:2] == ["data", "make"]
    if not keeps or arguments[1:2] == ["compare"]:
        return ""
    anew = any(argument.partition("=")[0] == "--from" for argument in arguments)
    again = " (without --from, which would begin anew)" if anew else ""
    return f" What was finished is kept; run the same command again{again} to go on."


def _sentence(error: BaseException) -> tuple[str, int]:
    """What is printed of an error, and the exit status. Errors that are mistakes of ours are raised again."""
    status = getattr(error, "exit_status", None)
    if status is not None:  # UserError, RunError
        return f"spoutnik: {error}", status
    if isinstance(error, typer.Abort):
        return "Nothing was done.", 1
    if hasattr(error, "format_message"):  # click's errors about options
        text = error.format_message()
        return text if text.startswith("Usage:") else f"spoutnik: {text} Try --help.", 2
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        place = "the output" if error.filename is None else error.filename
        return f"spoutnik: {place}: {error.strerror}. {_OF_THE_MACHINE[error.errno]}", 1
    if is_out_of_memory(error):
        again = how_to_go_on(sys.argv[1:])
        less = ("lower micro_batch_tokens (training) or group_size, max_tokens and prompts_per_step (sampling) in the recipe" if
                again else "take a smaller model, a packed one (--quantize int8) or a shorter context")
        return f"spoutnik: the memory of this machine, or of its GPU, is used up. Close other programs, or {less}.{again}", 1
    raise error


_OF_THE_MACHINE = {errno.ENOSPC: "Free some space and run the same command again.",
                   errno.EDQUOT: "Free some space and run the same command again.",
                   errno.EACCES: "Check the permissions, or name another place.",
                   errno.EPERM: "Check the permissions, or name another place.",
                   errno.EROFS: "Name a place that can be written.",
                   errno.EISDIR: "Name a file.", errno.ENOTDIR: "Correct the path.", errno.ENAMETOOLONG: "Correct the path.",
                   errno.EMFILE: "Raise the limit of open files (ulimit -n).",
                   errno.EIO: "The disk or terminal cannot be read or written."}


def _open_streams() -> None:
    """Standard streams that are closed read and write nothing; characters that a stream's encoding lacks become question
    marks, and what is no text is read as such."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="replace")


def _note_interrupts() -> list[int]:
    """The Ctrl-Cs that were raised so far. A process that was told to ignore them still does."""
    interrupts: list[int] = []

    def on_interrupt(number: int, frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
    return interrupts


def _fail(text: str, status: int) -> None:
    with contextlib.suppress(OSError):
        say(text, console(stderr=True))
    _exit(status)


def _exit(status: int) -> None:
    """Exits without waiting for threads that compute a batch."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
