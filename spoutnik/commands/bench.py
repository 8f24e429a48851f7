"""`spoutnik bench`: how fast a model runs here."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json
from spoutnik.commands.options import Json, Memory, Stage

if TYPE_CHECKING:
    from spoutnik.engine.bench import Bench


def bench(
    model: Annotated[str, typer.Argument(help="A model's folder, a run's, a GGUF file, or a name on the hub (org/model).")],
    stage: Stage = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where the native kernels run "
                                       "or the device multiplies it.")] = "auto",
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
    from spoutnik.engine import bench as engine_bench
    from spoutnik.locate import locate

    terminal = console(stderr=True)
    with contextlib.nullcontext() if json_ else terminal.status("") as status:
        result = engine_bench.bench(locate(model, stage), dtype, quantize, memory, text, tuple(batch or engine_bench.BATCHES),
                                    prompt, tokens, rounds, lambda what: status and status.update(f"Measuring: {what}"))
    print_json(asdict(result)) if json_ else _print_table(result)


def _print_table(result: "Bench") -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for justify in ("left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column()
    for row in _rows(result):
        table.add_row(*row)
    console().print(table)


def _rows(result: "Bench") -> Iterator[tuple[str, str, str]]:
    yield ("prompt", f"{result.prompt_tokens_per_second:,.1f}", f"tokens/s, {result.prompt_tokens} tokens alone; the first "
           f"new token after {result.first_token_seconds * 1000:,.0f} ms")
    for batch, rate in result.decode_tokens_per_second.items():
        yield f"decode {batch} at once", f"{rate:,.1f}", "tokens/s" + (f", {rate / batch:,.1f} each" if batch > 1 else "")
    if result.share is not None:
        yield ("of memory's speed", f"{result.share:.0%}", f"by one sequence, reading "
               f"{result.weight_bytes_per_token / 1e6:,.1f} MB of weights a token; this machine reads "
               f"{result.read_bandwidth / 1e9:.1f} GB/s")
    yield ("memory", f"{result.peak_memory / 1e9:,.2f}", f"GB at most; the weights are {result.weight_bytes / 1e9:,.3f} GB "
           f"({result.quantize or result.dtype})")
    yield "kernels", "", result.kernels
    if result.exactness is not None:
        cost = result.exactness
        yield ("perplexity", f"{cost.quantised_perplexity:,.3f}", f"with {result.quantize}, {cost.perplexity:,.3f} without: "
               f"{cost.cost:+.4f} nats a token (standard error {cost.cost_error:.4f})")
        yield "", "", f"on {cost.tokens:,} tokens; text: {cost.text}"
