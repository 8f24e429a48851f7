"""The command line. Heavy imports live inside the commands, so that `--help` answers at once."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Optional

# Threads that wait must sleep, not spin: on a busy machine spinning costs ten times (docs/results.md). Read by OpenMP
# when torch loads, so it is set before any command imports it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Compiled products that are kept, one per shape of half a megabyte, by oneDNN and again by each thread of its wrapper: with
# the wrapper's own limits a long run's memory grows by a gigabyte (docs/results.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")
os.environ.setdefault("LRU_CACHE_CAPACITY", "256")

import typer  # noqa: E402

from spoutnik.options import Data, Drafts, Json, Memory, Quantize, Speculate  # noqa: E402
from spoutnik.serve import cli as commands  # noqa: E402
from spoutnik.serve.arena_command import arena  # noqa: E402

app = typer.Typer(
    name="spoutnik", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="The whole DeepSeek-R1 system: train a model that reasons, look at it, talk to it. On hardware you own.")


@app.command(epilog="Example: spoutnik run recipes/nano.yaml --out runs/nano")
def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    out: Annotated[Optional[Path], typer.Option(help="Folder of the run [default: runs/NAME].")] = None,
    from_: Annotated[Optional[str], typer.Option("--from", metavar="STAGE", help="Make this stage and all after it anew."
                                                 )] = None,
    until: Annotated[Optional[str], typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    seed: Annotated[Optional[int], typer.Option(min=0, help="Another seed than the recipe's.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the plan with predicted time and memory, and do nothing.")] = False,
    json_: Json = False,
):
    """Run a recipe: every stage that is not made yet. Interrupt with Ctrl-C and run again to go on."""
    from spoutnik.recipe.schema import load_recipe

    out = out or Path("runs") / load_recipe(recipe).name
    if dry_run:
        from spoutnik.recipe.plan import plan_recipe, print_plan
        plan = plan_recipe(recipe, out, until, from_, seed)
        print(json.dumps(plan.as_json())) if json_ else print_plan(plan)
        return
    from spoutnik.recipe.run import run_recipe
    from spoutnik.recipe.table import as_json, print_table, rows

    began = time.perf_counter()
    result = run_recipe(recipe, out, _display(json_), until, from_, seed)
    table = rows(result.artifacts, result.origins)
    if json_:
        print(json.dumps({"out": str(out), "origins": result.origins, "report": str(out / "report.html"),
                          "stages": as_json(table)}))
        return
    console = _console()
    print_table(table, console)
    made = [name for name, origin in result.origins.items() if origin == "made now"]
    console.print(f"{len(made)} of {len(result.artifacts)} stages made now, in {_duration(time.perf_counter() - began)}. "
                  + ("Nothing had to be done." if not made else ""), highlight=False)
    console.print(f"Report: {out / 'report.html'}\nTalk to it: spoutnik chat {out}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: spoutnik chat runs/nano --stage cold_start")
def chat(
    run: Annotated[Path, typer.Argument(help="A run's folder, a model's, or a name on the hub (org/model).")],
    stage: Annotated[Optional[str], typer.Option(help="Which stage's model [default: the recipe's last].")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Share of the probability to sample from.")] = 0.95,
    max_tokens: Annotated[Optional[int], typer.Option(min=1, help="Longest reply, thought included [default: as many as the "
                                                      "model has room for].")] = None,
    max_thinking_tokens: Annotated[Optional[int], typer.Option(min=0, help="Longest thought; then it is closed and answered.")
                                   ] = None,
    effort: Annotated[Optional[str], typer.Option(help="The thought's share of the reply: none, minimal, low, medium, high, "
                                                  "xhigh, max.")] = None,
    system: Annotated[Optional[str], typer.Option(help="What the model is told before everything.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same reply.")] = 0,
    quantize: Quantize = None,
    memory: Memory = None,
    speculate: Speculate = None,
    drafts: Drafts = 1,
    prompt: Annotated[Optional[str], typer.Option(help="Ask this one question and leave.")] = None,
    no_history: Annotated[bool, typer.Option("--no-history", help="Do not remember questions for the arrow keys of the next "
                                             "time.")] = False,
    data: Data = None,
    json_: Json = False,
):
    """Talk to a model in the terminal: the thought is dimmed, the answer plain. /help shows what else can be said."""
    from spoutnik.chat import Chat, chat_llm
    from spoutnik.engine.llm import NO_DRAFTS
    from spoutnik.engine.params import SamplingParams
    from spoutnik.errors import UserError
    from spoutnik.locate import locate
    from spoutnik.serve.plan import Options

    if json_ and prompt is None:
        raise UserError("--json needs --prompt: a conversation has no single result. Add --prompt \"...\".")
    folder = locate(run, stage)
    options = Options(SamplingParams(temperature=temperature, top_p=top_p), max_tokens, max_thinking_tokens, effort)
    with _quantising(json_) as progress:
        llm = chat_llm(folder, quantize=quantize, memory=memory, speculate=speculate, num_speculative_tokens=drafts,
                        progress=progress)
    if speculate is not None and llm.core.drafter is None:
        print(NO_DRAFTS, file=sys.stderr)
    talk = Chat(llm, options, seed, system)
    if prompt is None:
        from spoutnik.terminal import converse
        converse(talk, _console(), folder, None if no_history else commands.data_folder(data) / "chat_history")
        return
    reply = talk.ask(prompt, None if json_ else _console())
    if json_:
        print(json.dumps({"model": str(folder)} | reply, ensure_ascii=False))


app.command(epilog="Example: spoutnik serve runs/nano")(commands.serve)
app.command(epilog="Example: spoutnik arena runs/nano")(arena)
app.add_typer(commands.keys, name="keys")
app.add_typer(commands.history, name="history")


@app.command("eval", epilog="Example: spoutnik eval runs/nano --bench gsm8k --data test.jsonl --samples 4")
def eval_(
    run: Annotated[Path, typer.Argument(help="A run's folder, a model's, or a name on the hub (org/model).")],
    bench: Annotated[str, typer.Option(help="held-out (our families), gsm8k (needs --data), or gym-countdown, "
                                       "gym-chain_sum, gym-base_conversion, gym-letter_counting (reasoning-gym).")],
    data: Annotated[Optional[Path], typer.Option(help="The benchmark's own file (gsm8k: test.jsonl).")] = None,
    stage: Annotated[Optional[str], typer.Option(help="Which stage's model [default: the recipe's last].")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples per problem; pass@1 is their mean.")] = 4,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only the first N problems.")] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longest completion.")] = 256,
    temperature: Annotated[float, typer.Option(help="R1 uses 0.6.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="R1 uses 0.95.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    quantize: Quantize = None,
    memory: Memory = None,
    json_: Json = False,
):
    """Evaluate a model by R1's protocol: T 0.6, top-p 0.95, k samples, pass@1 as their mean, thought stripped."""
    from spoutnik.evals.benchmarks import evaluate_benchmark
    from spoutnik.locate import locate

    with _display(json_).stage(f"eval {bench}", "benchmark", 1, 1) as reporter:
        result = evaluate_benchmark(locate(run, stage), bench, data, samples, limit, max_tokens, temperature, top_p,
                                    seed, reporter("evaluating"), quantize, memory)
    if json_:
        print(json.dumps(result, ensure_ascii=False))
        return
    console = _console()
    for name, value in result["scores"].items():
        console.print(f"{name}: [bold]{value['mean']:.1%}[/] (95 % interval {value['low']:.1%} to {value['high']:.1%}), "
                      f"{value['problems']} problems x {result['samples']} samples", highlight=False)
    console.print(f"well-formed {result['well_formed']:.1%}, thought {result['thought_tokens']:.0f} tokens, "
                  f"{result['seconds']:.0f} s, {result['note']}", highlight=False)


@app.command(epilog="Example: spoutnik inspect deepseek-r1")
def inspect(
    model: Annotated[str, typer.Argument(help="A model's folder, a run's, a name on the hub (org/model), or a preset such "
                                         "as deepseek-r1.")],
    json_: Json = False,
):
    """Show what a model is and what it costs, from its configuration and the headers of its files, without loading it."""
    from spoutnik.model.describe import describe
    from spoutnik.model.inspect import inspect_folder, inspect_preset
    from spoutnik.model.presets import preset

    if Path(model).exists() or "/" in model:
        from spoutnik.locate import locate
        found = inspect_folder(locate(model, weights=False))
    else:
        found = inspect_preset(preset(model))
    if json_:
        print(json.dumps(found.as_json(), ensure_ascii=False))
        return
    for label, text in describe(found):
        print(f"{label:13} {text}")


@app.command(epilog="Example: spoutnik export runs/nano --format gguf --out nano.gguf --dtype q8_0")
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, a model's, or a name on the hub (org/model).")],
    format: Annotated[str, typer.Option(help="hf: a folder for transformers. gguf: a file for llama.cpp.")],
    out: Annotated[Optional[Path], typer.Option(help="The folder, or the .gguf file, to write [default: exports/NAME-STAGE "
                                                "or exports/NAME-STAGE.gguf].")] = None,
    stage: Annotated[Optional[str], typer.Option(help="Which stage's model [default: the recipe's last].")] = None,
    dtype: Annotated[Optional[str], typer.Option(help="f32, bf16, f16; gguf also q8_0, q4_0 [default: as stored].")] = None,
    shard_size: Annotated[str, typer.Option(help="Largest weight file of hf.")] = "5GB",
    licence: Annotated[Optional[str], typer.Option(help="For the model card [default: what the files say; mit where a "
                                                        "recipe trained from random weights on generated data].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
    json_: Json = False,
):
    """Write a model for other programs: transformers (hf) or llama.cpp (gguf)."""
    from dataclasses import asdict

    from spoutnik.export.command import default_target
    from spoutnik.export.command import export as write
    from spoutnik.locate import locate

    folder = locate(run, stage)
    out = out or default_target(run, folder, format)
    written = write(folder, format, out, dtype, shard_size, licence, force)
    if json_:
        print(json.dumps(asdict(written) | {"path": str(written.path)}, ensure_ascii=False))
        return
    console = _console()
    console.print(f"Wrote {written.path}: {written.architecture}, {written.dtype}, {written.size / 1e6:,.1f} MB"
                  + (f" in {len(written.files)} files: {', '.join(written.files)}" if len(written.files) > 1 else ""),
                  highlight=False, markup=False, soft_wrap=True)
    console.print(f"Load it: {written.load}", highlight=False, markup=False, soft_wrap=True)
    for note in written.notes:
        console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)


@app.command("bench", epilog="Example: spoutnik bench runs/nano --quantize int8")
def bench_(
    model: Annotated[Path, typer.Argument(help="A model's folder, a run's, or a name on the hub (org/model).")],
    stage: Annotated[Optional[str], typer.Option(help="Which stage's model [default: the recipe's last].")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where the processor multiplies "
                                       "it.")] = "auto",
    quantize: Annotated[Optional[str], typer.Option(help="int8 or int4 weights; what they cost in perplexity is measured "
                                                    "too.")] = None,
    memory: Memory = None,
    text: Annotated[Optional[Path], typer.Option(help="A text file to measure that on [default: a text that the "
                                                 "unquantised model writes].")] = None,
    batch: Annotated[Optional[list[int]], typer.Option(min=1, help="Sequences that decode together; may be repeated "
                                                       "[default: 1, 8, 32].")] = None,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompts.")] = 512,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens to decode.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each; the median counts.")] = 3,
    json_: Json = False,
):
    """Measure a model's speed on this machine: prompts, decoding, memory, and how near that is to the memory's own speed."""
    from spoutnik.bench import BATCHES, bench, print_bench
    from spoutnik.locate import locate

    console = _console(stderr=True)
    with contextlib.nullcontext() if json_ else console.status("") as status:
        found = bench(locate(model, stage), dtype, quantize, memory, text, tuple(batch or BATCHES), prompt, tokens, rounds,
                      lambda said: status and status.update(f"Measuring: {said}"))
    print(json.dumps(found.as_json(), ensure_ascii=False)) if json_ else print_bench(found, _console())


class TerminalDisplay:
    """A line per stage, with a bar that shows rate and remaining time."""

    def __init__(self):
        self.console = _console(stderr=True)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        began = time.perf_counter()
        wide = self.console.width >= 110  # on 80 columns the numbers matter more than the bar and its words
        bar = Progress(TextColumn("[bold]{task.description}"), *([BarColumn(10)] if wide else []), MofNCompleteColumn(),
                       TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
                       TextColumn("<"), TimeRemainingColumn(), console=self.console, refresh_per_second=4)

        def reporter(what: str) -> Callable[[int, int, int, str], None]:
            task = None
            first: list[tuple[float, int]] = []

            def progress(done: int, of: int, tokens: int, note: str) -> None:
                nonlocal task
                now = time.perf_counter()
                if task is None:
                    title = f"{position}/{total} {name}" + (f": {what}" if wide else "")
                    task = bar.add_task(title, total=of, rate="", note="")
                    first.append((now, tokens))
                rate = (tokens - first[0][1]) / max(now - first[0][0], 1e-3)
                bar.update(task, completed=done, total=of, note=note,
                           rate=f"{rate:,.0f} tok/s" if now - first[0][0] > 1 else "")

            return progress

        with bar:
            yield reporter
        if not self.console.is_terminal and time.perf_counter() - began > 2:
            self.console.print(f"{position}/{total} {name}: done in {_duration(time.perf_counter() - began)}",
                               highlight=False)


class SilentDisplay:
    """Nothing: for --json and for tests."""

    def say(self, text: str) -> None:
        pass

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        yield lambda what: lambda done, of, tokens, note: None


def _display(silent: bool) -> TerminalDisplay | SilentDisplay:
    return SilentDisplay() if silent else TerminalDisplay()


@contextlib.contextmanager
def _quantising(silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar that shows up only where weights are quantised, which happens once for a model."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(TextColumn("Quantising, once"), BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
                  console=_console(stderr=True), disable=silent, transient=True) as bar:
        tasks: list = []

        def progress(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bar.add_task("", total=total))
            bar.update(tasks[0], completed=done)

        yield progress


def _console(stderr: bool = False):
    from rich.console import Console

    return Console(stderr=stderr)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def main() -> None:
    """Runs a command; what the user did wrong is a sentence on stderr, without a traceback."""
    try:
        status = app(standalone_mode=False)  # typer returns 130 after Ctrl-C
        if status == 130:
            print("\nInterrupted. What was finished is kept; run the same command again to go on.", file=sys.stderr)
        if isinstance(status, int) and status:
            _leave(status)
    except typer.Abort:
        print("Nothing was done.", file=sys.stderr)
        _leave(1)
    except Exception as error:
        status = getattr(error, "exit_status", None)
        if status is not None:  # UserError, RunError
            print(f"spoutnik: {error}", file=sys.stderr)
            _leave(status)
        if hasattr(error, "format_message"):  # click's own complaints about options
            print(f"spoutnik: {error.format_message()} Try --help.", file=sys.stderr)
            _leave(2)
        raise


def _leave(status: int) -> None:
    """At once: threads in the middle of a batch would otherwise be waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
