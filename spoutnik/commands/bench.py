"""`spoutnik bench`: how fast a model runs here."""

import contextlib
import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.options import Json, Memory, Stage
from spoutnik.commands.progress import console


def bench(
    model: Annotated[Path, typer.Argument(help="A model's folder, a run's, or a name on the hub (org/model).")],
    stage: Stage = None,
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
    from spoutnik.engine.bench import BATCHES, print_bench
    from spoutnik.engine.bench import bench as measure
    from spoutnik.locate import locate

    terminal = console(stderr=True)
    with contextlib.nullcontext() if json_ else terminal.status("") as status:
        result = measure(locate(model, stage), dtype, quantize, memory, text, tuple(batch or BATCHES), prompt, tokens, rounds,
                         lambda what: status and status.update(f"Measuring: {what}"))
    print(json.dumps(result.as_json(), ensure_ascii=False)) if json_ else print_bench(result, console())
