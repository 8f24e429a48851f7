"""Kills at random, on purpose: a run of GRPO with rollout workers whose workers and whose process (Ray's driver) are killed
again and again must end with the bytes of one that nobody disturbed.

    python benchmarks/ray_kills.py [--kills 10] [--seed 0] [--workers 2] [--max-staleness 0]

The undisturbed run samples in its own process. After each kill of the driver the same command is started again, and what Ray
left behind is counted after a grace period: it must be nothing. At the end: the policies' bytes, and that every step's prompts
were trained on once.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from common import machine, print_result

from spoutnik.files import read_jsonl, sha256_file
from spoutnik.parallel import cores

RECIPE = """
name: kills
seed: 0
dtype: float32
checkpoint_seconds: 0.2
vocab_size: 600
tokenizer_documents: 500
families: [arithmetic]
evaluation: {{problems_per_family: 2, samples: 1, max_tokens: 24}}
validation: {{problems: 8, looks: 1}}
scale: {{rollout_workers: {workers}, max_staleness: {staleness}, virtual_shards: 2}}
models:
  nano: {{model_type: qwen2, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4,
         num_key_value_heads: 2, max_position_embeddings: 512}}
stages:
  base: {{kind: pretrain, model: nano, settings: {{steps: 30, tokens_per_step: 2048, learning_rate: 1.0e-2}}}}
  cold: {{kind: sft, from: base, cold_start: {{traces: 200}},
         settings: {{epochs: 2, tokens_per_step: 2048, learning_rate: 1.0e-2}}}}
  rl: {{kind: grpo, from: cold, settings: {{steps: {steps}, prompts_per_step: 16, group_size: 8, max_tokens: 64,
       learning_rate: 1.0e-3, max_mismatch_kl: 1.0}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-staleness", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    os.environ["OMP_NUM_THREADS"] = str(max(cores(), chosen.workers))  # each worker is given one, whoever starts this
    with TemporaryDirectory() as folder:
        runs = {}
        for name, workers in (("undisturbed", 0), ("killed", chosen.workers)):
            recipe = Path(folder) / f"{name}.yaml"
            recipe.write_text(RECIPE.format(workers=workers, staleness=chosen.max_staleness, steps=chosen.steps))
            runs[name] = [sys.executable, "-m", "spoutnik", "run", str(recipe), "--out", str(Path(folder) / name),
                          "--accept", "rl", "--accept", "cold"]
        began = time.perf_counter()
        subprocess.run(runs["undisturbed"], check=True, stdout=subprocess.DEVNULL)
        undisturbed = time.perf_counter() - began
        killed, left = disturbed(runs["killed"], chosen.kills, rng)
        policies = {name: next((Path(folder) / name / "artifacts").glob("rl-*")) for name in runs}
        hashes = {name: sha256_file(path / "model.safetensors") for name, path in policies.items()}
        steps = [row["step"] for row in read_jsonl(policies["killed"] / "log.jsonl")]
    same, whole = hashes["undisturbed"] == hashes["killed"], steps == list(range(chosen.steps))
    print(f"{killed}: {'the same bytes' if same else 'OTHER BYTES'}; steps {'all, once' if whole else steps}; "
          f"{len(left)} Ray processes left")
    print_result({"name": "random kills", "unit": "kills", "ours": float(sum(killed.values())), "same_bytes": same,
                  "steps_once": whole, "left": left, "undisturbed_seconds": undisturbed, "machine": machine()} | killed)
    sys.exit(0 if same and whole and not left else 1)


def disturbed(command: list[str], kills: int, rng: random.Random) -> tuple[dict[str, int], list[str]]:
    """Runs the command to its end, killing now a worker, now the run itself; how many of each, and what of Ray is left."""
    killed = {"workers": 0, "drivers": 0}
    while True:
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        ours: set[Process] = set()
        while run.poll() is None:
            time.sleep(rng.uniform(1.0, 4.0))
            now = descendants({run.pid})
            ours |= now.keys()
            workers = [process.pid for process, name in now.items() if "RolloutWorker" in name]
            if run.poll() is not None or sum(killed.values()) >= kills or not workers:
                continue  # only while workers are there: what is tested is their part
            victim = "drivers" if rng.random() < 0.4 else "workers"
            killed[victim] += 1
            print(f"kill {sum(killed.values())}: {victim[:-1]}", flush=True)
            os.kill(run.pid if victim == "drivers" else rng.choice(workers), signal.SIGKILL)
            if victim == "drivers":
                run.wait()
        left = outlived(ours)
        if run.returncode == 0:
            return killed, left
        if run.returncode != -signal.SIGKILL:
            sys.exit(f"the run ended with status {run.returncode}")
        if left:
            sys.exit(f"{len(left)} processes of Ray outlived their driver: {left}")


@dataclass(frozen=True)
class Process:
    """began: when, in clock ticks since the machine started: numbers are given out again."""

    pid: int
    began: str


def processes() -> dict[Process, tuple[int, str]]:
    """Those of this machine that live: process -> (parent's number, command)."""
    alive = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:  # it has ended since
            continue
        if state != "Z":  # it has ended, and nobody has asked how (a container's first process may never do so)
            alive[Process(int(folder.name), rest[17])] = int(parent), command
    return alive


def descendants(ancestors: set[int]) -> dict[Process, str]:
    """What descends from processes, process -> command: of a run Ray and its workers, and no other Ray of this machine."""
    every, found = processes(), set(ancestors)
    while more := {process.pid for process, (parent, _) in every.items() if parent in found and process.pid not in found}:
        found |= more
    return {process: args for process, (_, args) in every.items() if process.pid in found - ancestors}


def outlived(ours: set[Process], grace: float = 120.0) -> list[str]:
    """Which of these processes, and of what they began since they were last seen, do not end within `grace` seconds. (Ray's
    agents look for their raylet now and then; on a machine with other work they took more than 20 s to miss it.)"""
    began = time.monotonic()
    while True:
        alive = processes().keys() & ours
        ours |= descendants({process.pid for process in alive}).keys()
        left = [args[:120] for process, (_, args) in processes().items() if process in ours]
        seconds = time.monotonic() - began
        if not left or seconds > grace:
            print(f"{len(left)} processes of Ray are left after {seconds:.1f} s", flush=True)
            return left
        time.sleep(0.5)


if __name__ == "__main__":
    main()
