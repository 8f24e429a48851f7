"""A GRPO run under torchrun whose processes are killed at random, the launcher among them: what it ends with.

    python benchmarks/kills.py [--kills 10] [--processes 3] [--seed 0]

First the recipe runs undisturbed, in one process. Then torchrun runs it in several; kill -9 takes one of them at a random
moment: a rank, whereupon torchrun starts all anew, or torchrun itself, which is then started again, with another number of
processes; so many times, then it may end. Compared are the bytes of all weights and samples, and the log of each step: its
losses, rewards and lengths, each step once.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from spoutnik.files import sha256_file

TINY = Path(__file__).parents[1] / "tests" / "recipe" / "tiny.yaml"
STAGES = ("student_base", "cold_start", "reasoning_rl")


def recipe(folder: Path, steps: int) -> Path:
    values = yaml.safe_load(TINY.read_text())
    stages = {name: values["stages"][name] for name in STAGES}
    stages["cold_start"]["from"] = "student_base"
    stages["reasoning_rl"]["settings"].update(steps=steps, prompts_per_step=8, group_size=4, max_tokens=32)
    path = folder / "kills.yaml"
    path.write_text(yaml.safe_dump(values | {"scale": {"timeout": 60}, "stages": stages}, sort_keys=False))
    return path


def command(path: Path, out: Path, processes: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--max-restarts", "100"]
    run = ["-m", "spoutnik", "run", str(path), "--out", str(out), *(f"--accept={name}" for name in STAGES)]
    return [sys.executable, *(launcher if processes > 1 else []), *run]


def ranks_of(launcher: int) -> list[int]:
    """The processes that a launcher has started."""
    try:
        return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
    except OSError:
        return []


def wait_for_progress(out: Path, launcher: subprocess.Popen) -> None:
    """Until a checkpoint has been written since now."""
    began = time.time()
    while launcher.poll() is None:
        states = list(out.glob("working/*.progress/checkpoint/state.json"))
        with contextlib.suppress(OSError):  # it is being replaced
            if any(state.stat().st_mtime > began for state in states):
                return
        time.sleep(0.05)


def results(out: Path) -> dict[str, object]:
    """Everything but times: weights and samples by hash, the log of each step."""
    files = [*out.glob("artifacts/*/model.safetensors"), *out.glob("evaluations/*/*.jsonl")]
    found = {file.relative_to(out).as_posix(): sha256_file(file) for file in files}
    for file in out.glob("artifacts/*/log.jsonl"):
        rows = [json.loads(line) | {"seconds": 0} for line in file.read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(len(rows))), f"{file}: a step is missing or there twice"
        found[file.relative_to(out).as_posix()] = rows
    return found


def disturbed(path: Path, out: Path, processes: int, kills: int, rng: random.Random, log: Path) -> dict[str, int]:
    """Runs it to its end in spite of the kills; returns how often a rank and how often the launcher was killed."""
    killed = {"rank": 0, "launcher": 0}
    with open(log, "w") as file:
        launcher = subprocess.Popen(command(path, out, processes), stdout=file, stderr=file)
        while launcher.poll() is None and sum(killed.values()) < kills:
            if rng.random() < 0.7:  # else it may still be starting
                wait_for_progress(out, launcher)
            time.sleep(rng.uniform(0, 5))
            ranks = ranks_of(launcher.pid)
            if launcher.poll() is not None or not ranks:
                continue
            what = "launcher" if rng.random() < 0.4 else "rank"
            os.kill(launcher.pid if what == "launcher" else rng.choice(ranks), signal.SIGKILL)
            killed[what] += 1
            print(f"  {what} killed", flush=True)
            if what == "launcher":
                launcher.wait()
                launcher = subprocess.Popen(command(path, out, rng.randint(2, processes)), stdout=file, stderr=file)
        status = launcher.wait(timeout=600)
    assert status == 0, f"it ended with status {status}: {log.read_text()[-2000:]}"
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=3, help="the most")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        path = recipe(folder, options.steps)
        subprocess.run(command(path, folder / "undisturbed", 1), check=True, capture_output=True)
        undisturbed = time.monotonic() - began
        killed = disturbed(path, folder / "killed", options.processes, options.kills, random.Random(options.seed),
                           folder / "log")
        seconds = time.monotonic() - began - undisturbed
        same = results(folder / "killed") == results(folder / "undisturbed")
        left = [file.name for file in (folder / "killed" / "working").iterdir()]
    print(f"{killed['rank']} ranks and {killed['launcher']} launchers killed; {undisturbed:.0f} s undisturbed in one process, "
          f"{seconds:.0f} s with kills; the same bytes: {same}; left over: {left or 'nothing'}")
    print(json.dumps({"killed": killed, "same": same, "steps": options.steps, "processes": options.processes,
                      "seconds_undisturbed": round(undisturbed, 1), "seconds_killed": round(seconds, 1)}))
    sys.exit(not same)


if __name__ == "__main__":
    main()
