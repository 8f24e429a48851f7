"""`spoutnik eval`: a model on a benchmark."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json
from spoutnik.commands.options import Json, Memory, Quantize, Stage
from spoutnik.commands.progress import display
from spoutnik.units import duration


def evaluate(
    run: Annotated[str, typer.Argument(help="A run's folder, a model's, or a name on the hub (org/model).")],
    bench: Annotated[str, typer.Option(help="held-out (our families), gsm8k (needs --data), or gym-countdown, "
                                       "gym-chain_sum, gym-base_conversion, gym-letter_counting (reasoning-gym).")],
    data: Annotated[Optional[Path], typer.Option(help="The benchmark's own file (gsm8k: test.jsonl).")] = None,
    stage: Stage = None,
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

    with display(json_).stage(f"eval {bench}", "benchmark", 1, 1) as reporter:
        result = evaluate_benchmark(locate(run, stage), bench, data, samples, limit, max_tokens, temperature, top_p,
                                    seed, reporter("evaluating"), quantize, memory)
    if json_:
        print_json(result)
        return
    terminal = console()
    for name, value in result["scores"].items():
        terminal.print(f"{name}: [bold]{value['mean']:.1%}[/] (95 % interval {value['low']:.1%} to {value['high']:.1%}), "
                       f"{value['problems']} problems x {result['samples']} samples", highlight=False)
    terminal.print(f"well-formed {result['well_formed']:.1%}, thought {result['thought_tokens']:.0f} tokens, "
                   f"{duration(result['seconds'])}, {result['note']}", highlight=False)
