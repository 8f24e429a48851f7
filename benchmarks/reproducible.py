"""What sums in a fixed order cost, and what they change: training steps of the nano model, by one process and by several.

    python benchmarks/reproducible.py [--steps 20] [--processes 2,4,8] [--tokens 8192]

The same pretraining steps on the same cores in all: by one process and by each number of several, with plain sums and with 8
virtual shards. Told are the seconds of a step (the median, the first ones left out) and rank 0's processor time, their ratios
to plain sums in the same world, the largest difference of a step's loss from one process with plain sums, and whether the
weights' bytes are the same in all worlds.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from statistics import median

from spoutnik.scale.launch import launched, run_together
from spoutnik.world import together

NANO = Path(__file__).parents[1] / "recipes" / "nano.yaml"
WARM = 3  # steps that are not timed


def steps_of(steps: int, tokens: int) -> dict:
    """Losses, seconds and the hash of the weights, with both kinds of sums."""
    import torch

    from spoutnik.model.transformer import Transformer
    from spoutnik.recipe.schema import load_recipe
    from spoutnik.train.loop import Checkpoints
    from spoutnik.train.pretrain import PretrainSettings, pretrain, train_tokenizer

    recipe = load_recipe(NANO)
    tokenizer = train_tokenizer(0, recipe.vocab_size, 1000)
    settings = PretrainSettings(steps=steps, tokens_per_step=tokens, learning_rate=3.0e-3, warmup=5)
    found = {}
    for name, shards in (("plain", None), ("fixed", 8)):
        model = Transformer(recipe.model_config_of("nano", str(NANO)), torch.float32)
        model.init_weights(torch.Generator().manual_seed(0))
        with tempfile.TemporaryDirectory() as folder, together(shards):
            log, cost = pretrain(model, tokenizer, recipe.solved_tasks, settings, 0, "base", Checkpoints(Path(folder), 1e9),
                              lambda done, total, tokens, note: None)
        times = [b["seconds"] - a["seconds"] for a, b in zip(log[WARM:], log[WARM + 1:])]
        weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
        found[name] = {"losses": [row["loss"] for row in log], "step_seconds": median(times),
                       "core_seconds": cost.core_seconds / steps, "weights": sha256(weights).hexdigest()}
    return found


def in_world(size: int, options: argparse.Namespace) -> dict:
    """The results of rank 0, of `size` processes that share the cores."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    arguments = [sys.executable, __file__, "--steps", str(options.steps), "--tokens", str(options.tokens)]
    with tempfile.TemporaryDirectory() as folder:
        out, cores = Path(folder) / "results.json", max(1, (os.cpu_count() or 1) // size)
        processes = [subprocess.Popen([*arguments, "--out", str(out)], env=os.environ | {
            "RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": str(cores)}) for rank in range(size)]
        assert all(process.wait() == 0 for process in processes), "a process failed"
        return json.loads(out.read_text())


def work(options: argparse.Namespace) -> int:
    def lead() -> None:
        options.out.write_text(json.dumps(steps_of(options.steps, options.tokens)))

    if not launched():
        lead()
        return 0
    return run_together(lead, lambda: steps_of(options.steps, options.tokens), {}, 600, options.out.parent / "stacks", print)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--processes", default="2", help="numbers of processes beside one: 2,4,8")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out is not None:
        sys.exit(work(options))
    began = time.monotonic()
    found = {size: in_world(size, options) for size in (1, *map(int, options.processes.split(",")))}
    reference, table = found[1]["plain"], {}
    for size, kinds in found.items():
        for kind, values in kinds.items():
            ratio, cpu = (values[key] / kinds["plain"][key] for key in ("step_seconds", "core_seconds"))
            difference = max(abs(a - b) for a, b in zip(values["losses"], reference["losses"], strict=True))
            table[f"{kind}, {size}"] = {"step_seconds": round(values["step_seconds"], 3), "ratio": round(ratio, 3),
                                        "work_ratio": round(cpu, 3), "loss_difference": difference}
            print(f"{kind:6} sums, {size} process(es): {values['step_seconds']:.3f} s a step, {ratio:.3f} of plain; "
                  f"{values['core_seconds']:.3f} core-seconds of rank 0, {cpu:.3f} of plain; "
                  f"losses differ from plain in one process by at most {difference:.1e}")
    same, plain = (len({kinds[kind]["weights"] for kinds in found.values()}) == 1 for kind in ("fixed", "plain"))
    print(f"the same bytes after {options.steps} steps by {', '.join(map(str, found))} processes with fixed sums: {same}; with "
          f"plain sums: {plain}; {time.monotonic() - began:.0f} s in all")
    print(json.dumps({"cores": os.cpu_count(), "same": same, **table}))
    sys.exit(not same)


if __name__ == "__main__":
    main()
