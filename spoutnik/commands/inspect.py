"""`spoutnik inspect`: what a model is, without loading it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from spoutnik.commands.options import Json


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
