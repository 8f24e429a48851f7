"""`spoutnik export`: a model for other programs."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.console import print_json, say
from spoutnik.commands.options import Adapter, Json, Stage
from spoutnik.units import size


def export(
    run: Annotated[str, typer.Argument(help="A run's folder, a model's, a GGUF file, or a name on the hub (org/model).")],
    format: Annotated[str, typer.Option(help="hf: a folder for transformers. gguf: a file for llama.cpp. With --adapter, or of "
                                        "a stage that trained one: merged, a folder of the base with the adapter in it; lora, "
                                        "the adapter alone, as PEFT and vLLM read it; lora-gguf, the adapter as llama.cpp "
                                        "reads it.")],
    out: Annotated[Optional[Path], typer.Option(help="The folder, or the .gguf file, to write [default: exports/NAME-STAGE "
                                                "or exports/NAME-STAGE.gguf].")] = None,
    adapter: Adapter = None,
    lossy: Annotated[bool, typer.Option("--lossy", help="Write a merged model even where rounding takes most of the adapter "
                                        "away, and an adapter even where others put it beside weights that are far from those "
                                        "it was trained with.")] = False,
    readers: Annotated[Optional[Path], typer.Option(help="The Python interpreter of an environment that has PEFT, transformers "
                                                    "or llama-cpp-python: they read the adapter's export, and what they "
                                                    "compute is compared with ours [default: this one].")] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Have the export of an adapter read.")] = True,
    stage: Stage = None,
    dtype: Annotated[Optional[str], typer.Option(help="f32, bf16, f16; gguf also q8_0, q4_0; lora f32, lora-gguf "
                                                    "f32, f16 [default: as stored; of adapters f32].")] = None,
    shard_size: Annotated[str, typer.Option(help="Largest weight file of hf.")] = "5GB",
    licence: Annotated[Optional[str], typer.Option(help="For the model card [default: what the files say; mit where a "
                                                        "recipe trained from random weights on generated data].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
    json_: Json = False,
):
    """Write a model for other programs: transformers (hf), llama.cpp (gguf), or with an adapter (merged, lora, lora-gguf)."""
    import sys
    from dataclasses import asdict

    from spoutnik.errors import UserError
    from spoutnik.export.adapter import FORMATS
    from spoutnik.export.writer import default_target
    from spoutnik.export.writer import export as write
    from spoutnik.locate import locate, path_of

    folder = locate(run, stage)
    out = out or default_target(path_of(run), folder, format)
    if readers is not None and format not in FORMATS:
        raise UserError(f"--readers {readers}: is of --format {', '.join(FORMATS)}, not of {format}. Leave it out.")
    asked = (readers or Path(sys.executable)) if check else None
    written = write(folder, format, out, dtype, shard_size, licence, force, adapter, lossy, asked)
    if json_:
        print_json(asdict(written) | {"path": str(written.path)})
        return
    say(f"Wrote {written.path}: {written.architecture}, {written.dtype}, {size(written.size)}"
          + (f" in {len(written.files)} files: {', '.join(written.files)}" if len(written.files) > 1 else ""))
    say(f"Load it: {written.load}")
    for note in written.notes:
        say(f"Note: {note}")
