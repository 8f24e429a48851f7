"""`spoutnik adapt`: a model that is open, taught from a file of one's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, print_pairs, say
from spoutnik.commands.options import Columns, Json, Learn, column_names
from spoutnik.commands.progress import display

if TYPE_CHECKING:
    from spoutnik.recipe.adapt_report import Measured
    from spoutnik.recipe.adaptation import Prepared


def adapt(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What is adapted: a model's folder, a run's, or a name on the "
                                         "hub (org/model).")],
    data: Annotated[Path, typer.Option(help="What it learns: a file of rows, a folder of such, or a pattern in quotes, in any "
                                       "shape that `spoutnik data` knows.")],
    method: Annotated[Optional[str], typer.Option(help="sft learns the replies; grpo is reinforcement learning from a "
                                                  "verifier; dpo and kto learn from opinions on replies [default: what the "
                                                  "data fits].")] = None,
    verifier: Annotated[Optional[str], typer.Option(help="How answers are graded: exact, math or numeric; a Python file with "
                                                    "verify(prompt, answer, gold); the name of a task (spoutnik tasks); none "
                                                    "[default: by the look of the answers].")] = None,
    exempt: Annotated[Optional[str], typer.Option(metavar="REASON", help="grpo: train by the verifier although its audit "
                                                  "refuses it, and why; the recipe keeps it.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the run [default: runs/adapt-DATA].")] = None,
    rank: Annotated[Optional[int], typer.Option(min=1, help="Of the adapter [default: 16].")] = None,
    alpha: Annotated[Optional[float], typer.Option(min=0, help="Of the adapter, which is multiplied by alpha / rank [default: "
                                                   "twice the rank].")] = None,
    full: Annotated[bool, typer.Option("--full", help="Train the whole model, not an adapter.")] = False,
    epochs: Annotated[Optional[float], typer.Option(min=0, help="Passes over the data; not of grpo [default: sft 4, dpo and "
                                                    "kto 2].")] = None,
    steps: Annotated[Optional[int], typer.Option(min=1, help="grpo: optimizer steps of 64 replies [default: 50].")] = None,
    learning_rate: Annotated[Optional[float], typer.Option(min=0, help="[default: sft 5e-4, others 5e-5; with --full sft "
                                                           "5e-5, grpo 2e-6, dpo and kto 1e-6].")] = None,
    max_tokens: Annotated[Optional[int], typer.Option(min=8, help="Longest sampled reply, thought included [default: by the "
                                                      "data].")] = None,
    held_out_share: Annotated[Optional[float], typer.Option(help="The share that is never trained on, by the hash of the first "
                                                            "question [default: a tenth; of few rows so much that one "
                                                            "in five is held out].")] = None,
    general: Annotated[Optional[Path], typer.Option(help="A text of which nothing must be forgotten: .txt, or rows with the "
                                                    "key text [default: a shipped sample].")] = None,
    anchor: Annotated[Optional[Path], typer.Option(help="General text of your own that training holds the model to [default: "
                                                   "a shipped one, not that of --general].")] = None,
    no_anchor: Annotated[bool, typer.Option("--no-anchor", help="Do not: a little faster, and it forgets.")] = False,
    columns: Columns = None,
    learn: Learn = "last",
    micro_batch_tokens: Annotated[int, typer.Option(min=64, help="That a core works on at a time: less takes less memory."
                                                    )] = 2048,
    seed: Annotated[int, typer.Option(min=0, max=2 ** 32 - 1)] = 0,
    accept: Annotated[bool, typer.Option("--accept", help="Keep the result though it learned nothing or ended worse.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the data, print the recipe and the plan, and do nothing."
                                          )] = False,
    json_: Json = False,
):
    """Teach a model that is open from a file of your own: checks the data, plans time and memory, trains an adapter, and says
    what was learned and what was forgotten. Interrupt with Ctrl-C and give the same command again to go on."""
    from spoutnik.recipe.adapt_options import AdaptOptions
    from spoutnik.recipe.adapt_report import NOTE
    from spoutnik.recipe.adaptation import adapt as run
    from spoutnik.recipe.adaptation import prepare

    options = AdaptOptions(model, data, method, verifier, column_names(columns), learn, held_out_share, general, rank, alpha,
                           full, epochs, steps, learning_rate, max_tokens, anchor, no_anchor, micro_batch_tokens, seed, exempt)
    prepared = prepare(options, out, (lambda sentence: None) if json_ else (lambda sentence: say(sentence)))
    if dry_run:
        _print_plan(prepared, json_)
        return
    if not json_:
        say(prepared.plan_sentence())
    result = run(prepared, display(json_, {stage.name: stage.seconds for stage in prepared.plan.stages}), accept)
    if json_:
        print_json({"out": str(result.out), "method": result.method, "data": prepared.said,
                    "table": [row.as_json() for row in result.rows], "adapted": str(result.artifact.folder),
                    "commands": result.commands, "report": str(result.report)})
        return
    _print_rows(result.rows)
    say(NOTE.format(general=prepared.general.name))
    print_pairs(console(), [("Report", str(result.report)), *((label, command) for label, command in result.commands.items())])


def _print_plan(prepared: "Prepared", json_: bool) -> None:
    if json_:
        print_json(prepared.plan.as_json() | {"data": prepared.said, "recipe_text": prepared.recipe, "out": str(prepared.out),
                                              "seconds": prepared.seconds, "peak_memory_bytes": prepared.memory})
        return
    say(f"\n{prepared.recipe}\n{prepared.plan_sentence()} Nothing was done.")


def _print_rows(rows: "list[Measured]") -> None:
    from rich.table import Table

    from spoutnik.tables import print_table

    table = Table(padding=(0, 1, 0, 0))
    for name in ("", "before", "after", "difference (95 % interval)"):
        table.add_column(name, justify="left" if not name else "right")
    for row in rows:
        table.add_row(*row.cells())
    print_table(console(), table)
