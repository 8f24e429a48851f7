"""Memory and time of training that is divided among processes, and of its checkpoints beside PyTorch's.

    python benchmarks/sharded.py [--processes 2] [--steps 4] [--tokens 1024] [--ways whole,sharded]

A model of the shape of SmolLM2-135M with random weights, the same AdamW steps on the same documents, on the same cores in all:
by one process; by several that hold it whole; by several that divide it. Told are what each process holds (weights, gradients,
optimizer's state) and its peak memory, the seconds of a step and of a checkpoint, and the largest difference of a step's loss
from one process. Then the same state by PyTorch's distributed checkpoint in its two forms: its own files, whose metadata and
tensors are pickled, and safetensors, whole files of which take a second pass.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from spoutnik.scale.launch import divide, launched, run_together
from spoutnik.world import together, world

SMOLLM2_135M = {"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers":
                30, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
                "rope_theta": 100000.0, "tie_word_embeddings": True}


def trained(way: str, steps: int, tokens: int, folder: Path) -> dict:
    import torch

    from spoutnik.model.config import ModelConfig
    from spoutnik.model.transformer import Transformer
    from spoutnik.train.batches import Document
    from spoutnik.train.language_model import language_model_gradient
    from spoutnik.train.loop import Checkpoints, Cost
    from spoutnik.train.settings import LanguageModelSettings

    config = ModelConfig.parse(SMOLLM2_135M, "benchmark")
    settings = LanguageModelSettings(learning_rate=1e-3, optimizer="adamw", micro_batch_tokens=256)
    with together():
        model = Transformer(config)
        model.init_weights(torch.Generator().manual_seed(0))
        if way == "sharded":
            divide(model)
        optimizer = settings.make_optimizer(model)
        losses, times = [], []
        for step in range(steps):
            rng = random.Random(step)
            documents = [Document([rng.randrange(49152) for _ in range(128)]) for _ in range(tokens // 128)]
            began = time.monotonic()
            gradient, _ = language_model_gradient(model, documents, optimizer.parameters, settings, step)
            optimizer.step(gradient.gradients, 1.0)
            times.append(time.monotonic() - began)
            losses.append(gradient.metrics["loss"])
        held = sum(part.rows.nbytes for part in optimizer.held) + sum(each.nbytes for each in gradient.gradients) + sum(
            each.nbytes for each in optimizer.tensors().values())
        result = {"losses": losses, "step_seconds": median(times[1:]), "held_mb": held / 1e6, "peak_mb": _peak() / 1e6}
        checkpoints, began = Checkpoints(folder), time.monotonic()
        if way == "sharded" or world().is_main:
            checkpoints.save(steps, model, optimizer, [], Cost())
        result["save_seconds"], began = time.monotonic() - began, time.monotonic()
        checkpoints.load(model, optimizer) if way == "sharded" or world().is_main else None
        result["load_seconds"] = time.monotonic() - began
        result["checkpoint_mb"] = sum(file.stat().st_size for file in checkpoints.latest.iterdir()) / 1e6
        return result | (_pytorchs(model, optimizer, folder) if way == "sharded" else {})


def _pytorchs(model, optimizer, folder: Path) -> dict:
    """Seconds and megabytes of PyTorch's distributed checkpoint of weights and moments."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.tensor import DTensor

    model.division.reshard()
    weights = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, DTensor)}
    weights.pop("lm_head.weight")
    specs, state = [parameter._spec for parameter in optimizer.parameters], dict(weights)
    for name, part in optimizer.tensor_parts().items():
        owner, index, _ = name.split(".")
        if part.shape:
            spec = specs[optimizer._owners[owner][int(index)]]
            state[name] = DTensor.from_local(part.rows, spec.mesh, spec.placements, run_check=False, shape=spec.shape,
                                             stride=spec.stride)
    found = {}
    for kind, writer in (("pickled", dcp.FileSystemWriter(folder / "dcp")), ("safetensors", dcp.HuggingFaceStorageWriter(
            str(folder / "hf"), save_distributed=True, enable_consolidation=True))):
        began = time.monotonic()
        dcp.save(state, storage_writer=writer)
        path = folder / ("dcp" if kind == "pickled" else "hf")
        found |= {f"dcp_{kind}_seconds": time.monotonic() - began,
                  f"dcp_{kind}_mb": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6}
    return found


def _peak() -> int:
    """Bytes, of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def in_world(size: int, way: str, options: argparse.Namespace) -> list[dict]:
    """The results of all processes, which share the cores."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        cores = max(1, (os.cpu_count() or 1) // size)
        arguments = [sys.executable, "-W", "ignore", __file__, "--steps", str(options.steps), "--tokens", str(options.tokens),
                     "--ways", way, "--out", folder]
        processes = [subprocess.Popen(arguments, env=os.environ | {
            "RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": str(cores)}) for rank in range(size)]
        assert all(process.wait() == 0 for process in processes), "a process failed"
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(size)]


def work(options: argparse.Namespace) -> int:
    def do() -> None:
        result = trained(options.ways, options.steps, options.tokens, options.out / "files")
        (options.out / f"{os.environ['RANK']}.json").write_text(json.dumps(result))

    if not launched():
        do()
        return 0
    return run_together(do, do, {}, 600, options.out / "stacks", print)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--ways", default="whole,sharded")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out is not None:
        sys.exit(work(options))
    reference, table = None, {}
    for size, way in [(1, "whole"), *((options.processes, way) for way in options.ways.split(","))]:
        of_ranks, name = in_world(size, way, options), f"{way}, {size}"
        row = of_ranks[0] | {key: max(each[key] for each in of_ranks) for key in ("held_mb", "peak_mb")}
        losses = row.pop("losses")
        reference = reference or losses
        row["loss_difference"] = max(abs(a - b) for a, b in zip(losses, reference, strict=True))
        table[name] = {key: float(f"{value:.4g}") for key, value in row.items()}
        print(f"{name:12} " + ", ".join(f"{key} {value:g}" for key, value in table[name].items()))
    print(json.dumps({"cores": os.cpu_count(), "parameters": 134_515_008, **table}))


if __name__ == "__main__":
    main()
