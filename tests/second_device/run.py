"""Every kind of stage on a second device for torch, made of the processor's memory (device.cpp): where a GPU is not at hand,
this finds tensors that would lie on the wrong one. Prints how far the losses are from the processor's; fails beyond rounding.

    python tests/second_device/run.py          (make second-device; needs a C++ compiler; about a minute)
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch
from torch.utils import cpp_extension

from spoutnik.model.transformer import Transformer
from spoutnik.recipe import adaptation, stages
from spoutnik.recipe.run import run_recipe

HERE = Path(__file__).parent
NAME, ROUNDING = "second", 2e-3


def add_device(folder: Path) -> torch.device:
    """Compiles device.cpp into the folder and registers it."""
    library, lib = folder / "device.so", Path(torch.__file__).parent / "lib"
    subprocess.run([os.environ.get("CXX", "g++"), "-O1", "-std=c++20", "-shared", "-fPIC", HERE / "device.cpp", "-o", library,
                    *(f"-I{path}" for path in cpp_extension.include_paths()), f"-L{lib}", "-ltorch_cpu", "-lc10", "-ltorch",
                    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"], check=True)
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(NAME)
    module.is_available, module.device_count, module.current_device = lambda: True, lambda: 1, lambda: 0
    module._is_in_bad_fork, module.manual_seed_all = lambda: False, lambda seed: None
    module.get_amp_supported_dtype = lambda: []
    torch._register_device_module(NAME, module)
    return torch.device(NAME, 0)


class Silent:
    @contextlib.contextmanager
    def stage(self, name, kind, position, total):
        yield lambda label: lambda *progress: None

    def log(self, text):
        pass


def losses(recipe: Path, out: Path, device: torch.device) -> dict[str, list[float]]:
    """Of each stage's steps."""
    for module in (stages, adaptation):
        assert hasattr(module, "compute_device")
        module.compute_device = lambda *_: device
    used, hidden = set(), Transformer.hidden

    def watched(model, *arguments, **options):
        used.add(model.device)
        return hidden(model, *arguments, **options)

    Transformer.hidden = watched
    stages.machine = lambda *_: {"cpu": str(device), "cores": 1, "system": "test", "kernels": "plain"}
    names = ["base", "sft", "dpo", "kto", "reward_model", "rl"]
    result = run_recipe(recipe, out, Silent(), accept=names)
    Transformer.hidden = hidden
    assert used == {device}, used
    return {artifact.stage: [json.loads(line)["loss"] for line in (artifact.folder / "log.jsonl").open()]
            for artifact in result.artifacts}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        device = add_device(Path(folder))
        there, here = (losses(HERE / "recipe.yaml", Path(folder) / each.type, each) for each in (device, torch.device("cpu")))
    far = {stage: max(abs(a - b) for a, b in zip(there[stage], here[stage])) for stage in there}
    for stage, distance in far.items():
        print(f"{stage:12} {len(there[stage]):3} steps, losses at most {distance:.1e} from the processor's")
    # What RL samples may differ by a token where rounding decides, and its loss is near 0 whatever happens.
    sys.exit(max(distance for stage, distance in far.items() if stage != "rl") > ROUNDING)


if __name__ == "__main__":
    main()
