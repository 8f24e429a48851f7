"""`spoutnik inspect`: what a model is, without loading it; or what this machine is."""

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from spoutnik.commands.console import console, print_json, print_pairs
from spoutnik.commands.options import Json


def inspect(
    model: Annotated[Optional[str], typer.Argument(help="A model's folder, a run's, a GGUF file (.gguf), "
                                                  "a name on the hub (org/model), or a preset "
                                                   "such as deepseek-r1.")] = None,
    machine: Annotated[bool, typer.Option("--machine", help="Show this machine instead: processor, memory, threads, the dtype "
                                          "that auto means, and which kernels run.")] = False,
    json_: Json = False,
):
    """Show what a model is and what it costs, from its configuration and the headers of its files, without loading it."""
    from spoutnik.errors import UserError

    if machine == (model is not None):
        raise UserError("MODEL: name a model, or give --machine to see what this machine is; not both.")
    facts, lines = _inspect_machine() if machine else _inspect_model(model)
    if json_:
        print_json(facts)
        return
    print_pairs(console(), lines, width=13)


Lines = list[tuple[str, str]]  # labels and texts


def _inspect_model(model: str) -> tuple[dict, Lines]:
    from spoutnik.model.describe import describe
    from spoutnik.model.inspect import inspect_folder, inspect_preset
    from spoutnik.model.presets import preset

    if Path(model).exists() or "/" in model:
        from spoutnik.locate import locate
        inspection = inspect_folder(locate(model, weights=False))
    else:
        inspection = inspect_preset(preset(model))
    return inspection.as_json(), describe(inspection)


def _inspect_machine() -> tuple[dict, Lines]:
    import torch

    from spoutnik.engine.llm_checks import dtype_of
    from spoutnik.hardware import available_memory, compute_dtype, machine
    from spoutnik.native import describe
    from spoutnik.units import size

    facts = machine() | {
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "available_memory_bytes": available_memory(),
        "torch_threads": torch.get_num_threads(),
        "auto_dtype": str(dtype_of("auto")).removeprefix("torch."),
        "training_dtype": str(compute_dtype("auto")).removeprefix("torch."),
        "kernels": str(describe()),
    }
    return facts, [
        ("system", facts["system"]),
        ("processor", f"{facts['cpu']}, {facts['cores']} cores for this process"),
        ("GPU", ", ".join(facts["gpus"]) or "none"),
        ("memory", f"{size(facts['memory_bytes'])}, {size(facts['available_memory_bytes'])} available"),
        ("threads", f"{facts['torch_threads']} of torch"),
        ("dtype", f"auto means {facts['auto_dtype']} where a model answers, {facts['training_dtype']} where it learns"),
        ("kernels", facts["kernels"]),
    ]
