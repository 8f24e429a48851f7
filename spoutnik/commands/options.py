"""Options that several commands share. `--help` imports this file, so it imports nothing heavy."""

from pathlib import Path
from typing import Annotated, Optional

import typer

Stage = Annotated[Optional[str], typer.Option(help="Which stage's model [default: the recipe's last].")]
Adapter = Annotated[Optional[Path], typer.Option(help="Folder of an adapter of this model, as PEFT writes it: what is read "
                                                 "is their sum.")]
AdapterList = Annotated[Optional[list[str]], typer.Option(
    "--adapter", metavar="[NAME=]PATH", help="Adapter of this model, as PEFT writes it. NAME=PATH: it stands beside the base "
    "under this name; may be repeated. A path alone: it is merged into the base.")]
Quantize = Annotated[Optional[str], typer.Option(help="int8 or int4 weights, made once and kept beside the model.")]
Memory = Annotated[Optional[str], typer.Option(help="What weights and cache may take together, as 16GB. Routed experts "
                                               "beyond it stay on disk.")]
Device = Annotated[str, typer.Option(help="Where it is computed: cpu, cuda, cuda:1 ...; auto is the GPU where there is one, "
                                     "but the processor with --quantize.")]
Speculate = Annotated[Optional[str], typer.Option(help="The same reply in fewer steps: mtp (the model's own module drafts) or "
                                                  "prompt_lookup (what was said before). Not where the model lies in the "
                                                  "processor's caches: there drafts cost more than they save.")]
Drafts = Annotated[int, typer.Option(min=1, help="Tokens drafted in a step, with --speculate.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text (for machines).")]
Data = Annotated[Optional[Path], typer.Option(help="Folder of keys, history and feedback [default: ~/.local/share/spoutnik].")]
Passphrase = Annotated[bool, typer.Option("--passphrase", help="The history is encrypted: ask for its passphrase. Where nobody "
                                          "can be asked it is read from SPOUTNIK_PASSPHRASE.")]
Columns = Annotated[Optional[str], typer.Option(help="What the keys are called where the shape is not recognized, as "
                                                "prompt=question,answer=final.")]
Learn = Annotated[str, typer.Option(help="Of conversations: last (reply) or all.")]


def column_names(text: str | None) -> dict[str, str]:
    """--columns as key -> name. Raises UserError where it is no list of pairs."""
    from spoutnik.errors import UserError

    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    if any(not key.strip() or not name.strip() for key, _, name in pairs):
        raise UserError(f"--columns {text}: must be pairs with commas, such as prompt=question,answer=final.")
    return {key.strip(): name.strip() for key, _, name in pairs}
