"""Ctrl-C in the midst of training by `spoutnik adapt`, for each method: the same command again ends with the same bytes.

    python benchmarks/kill_adapt.py [--model nano] [--kills 3] [--seed 0] [--methods sft,grpo,dpo,kto] [--signal INT]

Each method runs undisturbed first. Then the same command gets the signal when it has written the checkpoint of a random step,
and is given again as a person would, until all kills are spent; then it may end. Checked are what is said (one sentence on how
to go on, no traceback), the bytes of the adapter, the weights, all samples and what was measured, and that the log has each
step once. Data are those of recipes/adapt.yaml; opinions are made of them: the right answer, and another row's. For grpo a
verifier pays for short replies, since a model that is never right would not move: its audit refuses it, so it is exempted. The
last line is the same as JSON; the exit status is 1 where something differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from kill_recipe import results

from spoutnik.errors import RunError
from spoutnik.files import read_json, write_jsonl

ROOT = Path(__file__).parents[1]
OPTIONS = {"sft": ["--epochs", "4", "--learning-rate", "2e-3", "--rank", "8", "--max-tokens", "16"], "dpo": ["--epochs", "3"],
           "kto": ["--epochs", "3"], "grpo": ["--steps", "6", "--max-tokens", "128", "--exempt", "rewards that differ"]}
GO_ON = "Interrupted. What was finished is kept; run the same command again to go on."
# A checkpoint after each step, not each half minute: so short a run would have none.
COMMAND = """
from spoutnik.commands.main import main
from spoutnik.recipe.schema import Recipe
Recipe.model_fields["checkpoint_seconds"].default = 0.01
Recipe.model_rebuild(force=True)
main()
"""
VERIFIER = """
def verify(prompt: str, answer: str, gold: str) -> float:
    return 1 / (1 + len(answer))
"""


def prepare(folder: Path) -> None:
    """The data of each method."""
    rows = [json.loads(line) for line in (ROOT / "recipes" / "adapt.jsonl").read_text().splitlines()]
    plain = [{"prompt": row["prompt"], "answer": row["answer"]} for row in rows]
    others = [row["answer"] for row in rows[7:] + rows[:7]]
    write_jsonl(folder / "sft.jsonl", plain)
    write_jsonl(folder / "grpo.jsonl", plain)
    write_jsonl(folder / "dpo.jsonl", [{"prompt": row["prompt"], "chosen": row["answer"], "rejected": other}
                                       for row, other in zip(plain, others)])
    write_jsonl(folder / "kto.jsonl", [{"prompt": row["prompt"], "completion": (row["answer"], other)[number % 2],
                                        "label": number % 2 == 0} for number, (row, other) in enumerate(zip(plain, others))])
    (folder / "short.py").write_text(VERIFIER)


def start(model: str, method: str, folder: Path, out: Path) -> subprocess.Popen:
    verifier = ["--verifier", str(folder / "short.py")] if method == "grpo" else []
    command = ["adapt", model, "--data", str(folder / f"{method}.jsonl"), "--method", method, "--out", str(out), "--accept",
               *OPTIONS[method], *verifier]
    return subprocess.Popen([sys.executable, "-c", COMMAND, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)


def finish(process: subprocess.Popen, method: str) -> None:
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{method}: ended with status {process.returncode}: {errors}")


def step_reached(out: Path, since: float) -> int | None:
    """Of the last checkpoint, where it was written since that time."""
    for state in out.glob("working/*.progress/checkpoint/state.json"):
        with suppress(OSError, RunError):  # it is being replaced
            if state.stat().st_mtime > since:
                return read_json(state)["step"]
    return None


def kill_once(process: subprocess.Popen, out: Path, target: int, number: int) -> tuple[int, str] | None:
    """Sends the signal when the checkpoint of a step has been written: the step, and what was said. None where the run ended
    before."""
    began, step = time.time(), None
    while process.poll() is None and (step is None or step < target):
        time.sleep(0.005)
        step = step_reached(out, began)
    if process.poll() is not None:
        return None
    process.send_signal(number)
    _, errors = process.communicate()
    return step, errors


def complaint(errors: str, status: int, number: int) -> list[str]:
    """What is wrong with how it ended."""
    if number != signal.SIGINT:
        return []
    return [what for what, wrong in ((f"status {status}", status != 130), ("a traceback", "Traceback" in errors),
                                     ("no word on how to go on", not errors.rstrip().endswith(GO_ON))) if wrong]


def outcome(out: Path) -> dict[str, str]:
    """Everything that must be the same."""
    for log in out.glob("artifacts/*/log.jsonl"):
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps == [*range(len(steps))], f"{log}: a step is missing or there twice"
    return results(out) | {"measured.json": (out / "measured.json").read_text()}


def trial(model: str, method: str, kills: int, seed: int, number: int, folder: Path) -> dict:
    began = time.monotonic()
    finish(start(model, method, folder, folder / f"{method}-whole"), method)
    seconds, expected = time.monotonic() - began, outcome(folder / f"{method}-whole")
    log = [json.loads(line) for file in folder.glob(f"{method}-whole/artifacts/*/log.jsonl")
           for line in file.read_text().splitlines()]
    steps = len(log)
    assert any(row["grad_norm"] for row in log), f"{method}: nothing moved, so nothing would be told"
    print(f"{method}: undisturbed {seconds:.0f} s, {steps} steps, {len(expected)} results", flush=True)
    out, rng, at, wrong = folder / f"{method}-killed", random.Random(f"{seed} {method}"), [], []
    for target in sorted(rng.sample(range(1, steps), min(kills, steps - 1))):
        if at and at[-1] >= target:  # the last signal came late
            continue
        process = start(model, method, folder, out)
        killed = kill_once(process, out, target, number)
        if killed is None:
            break
        at.append(killed[0])
        wrong += complaint(killed[1], process.returncode, number)
        print(f"{method}: killed after the checkpoint of step {killed[0]} of {steps}", flush=True)
    finish(start(model, method, folder, out), method)
    now = outcome(out)
    different = sorted(path for path in expected | now if expected.get(path) != now.get(path))
    print(f"{method}: {different or 'the same bytes'}; said: {wrong or 'how to go on'}", flush=True)
    return {"kills": len(at), "at": at, "steps": steps, "results": len(expected), "different": different, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--kills", type=int, default=3, help="of each method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=",".join(OPTIONS))
    parser.add_argument("--signal", default="INT", choices=("INT", "KILL"))
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else a shell's background jobs hand on that it is ignored
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        found = {method: trial(arguments.model, method, arguments.kills, arguments.seed,
                               getattr(signal, f"SIG{arguments.signal}"), folder) for method in arguments.methods.split(",")}
    print(json.dumps(found))
    sys.exit(any(one["different"] or one["wrong"] or not one["kills"] for one in found.values()))


if __name__ == "__main__":
    main()
