"""Kill -9 at random moments of a whole recipe and of an experiment: both end with the bytes of an undisturbed run.

    python benchmarks/kill_recipe.py [--kills 20] [--seed 0] [--what recipe,experiment]

The recipe is the whole of R1's line at the smallest size that runs (tests/recipe/tiny.yaml); the experiment a grid of two
variants and two seeds. Of a recipe its process is killed; of an experiment its parent or one of its workers. A killed run is
started again as a person would, with the same command. When it ends before all kills are spent, another one is begun. Compared
are the weights and traces of all artifacts, all samples and evaluations, and an experiment's findings; times and bills are not.
The last line is the same as JSON; the exit status is 1 where a byte differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spoutnik.files import read_json, sha256_file

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
TIMED = ("log.jsonl", "manifest.json")  # hold times
# So small a model is never right, and learns nothing that counts: all its completions are kept, all stages are sealed.
RECIPE = """
import sys
from pathlib import Path
from spoutnik.commands.progress import SilentDisplay
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.train import reject
reject.select = lambda completions, settings: list(completions)
recipe = Path(sys.argv[1]) / "tiny.yaml"
run_recipe(recipe, Path(sys.argv[1]) / "out", SilentDisplay(), accept=list(load_recipe(recipe).stages))
"""


def command(what: str, folder: Path) -> list[str]:
    if what == "recipe":
        return [sys.executable, "-c", RECIPE, str(folder)]
    return [sys.executable, "-m", "spoutnik", "experiment", str(folder / "grid.yaml"), "--out", str(folder / "out"), "--json",
            "--jobs=2"]


def prepare(what: str, folder: Path) -> None:
    """The files that are run, in a folder of their own."""
    folder.mkdir(parents=True)
    if what == "recipe":
        shutil.copy(TESTS / "recipe" / "tiny.yaml", folder)
        return
    sys.path.insert(0, str(TESTS))
    from small_recipe import prepared

    prepared(folder)
    shutil.copy(TESTS / "experiment" / "grid.yaml", folder)


def start(what: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(command(what, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


def finish(what: str, folder: Path) -> float:
    """Seconds to the end."""
    began = time.monotonic()
    process = start(what, folder)
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{what}: ended with status {process.returncode}: {errors}")
    return time.monotonic() - began


def without_times(value):
    """What a findings.json holds of findings, without the core-seconds beside it."""
    if isinstance(value, list):
        return [without_times(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: without_times(one) for key, one in value.items() if not key.startswith(("core_seconds", "of_stage"))}


def results(out: Path) -> dict[str, str]:
    """Everything that a run makes but times, by path."""
    found = {}
    for file in sorted(path for name in ("artifacts", "evaluations") for path in (out / name).rglob("*") if path.is_file()):
        path = file.relative_to(out).as_posix()
        if file.name == "evaluation.json":
            found[path] = json.dumps(read_json(file) | {"bill": None}, sort_keys=True)
        elif file.name == "manifest.json":
            found[path] = read_json(file)["content"]
        elif file.name not in TIMED:
            found[path] = sha256_file(file)
    if (out / "findings.json").exists():
        found["findings"] = json.dumps(without_times(read_json(out / "findings.json")["findings"]), sort_keys=True)
    return found


def workers(process: int) -> list[int]:
    """Its child processes."""
    children = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in children if file.exists() for child in file.read_text().split()]


def kill_once(what: str, folder: Path, rng: random.Random, longest: float) -> str | None:
    """Starts it, kills it at a random moment; what was killed and what it was at, None where it ended before."""
    process, lock = start(what, folder), folder / "out" / "run.lock"
    while process.poll() is None and not (lock.exists() and str(process.pid) in lock.read_text()):
        time.sleep(0.01)  # it reads its files and imports
    moment = time.monotonic() + rng.uniform(0, longest)
    while process.poll() is None and time.monotonic() < moment:
        time.sleep(0.005)
    if process.poll() is not None:
        _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"{what}: ended with status {process.returncode}: {errors}")
        return None
    children = workers(process.pid) if what == "experiment" else []
    victim = rng.choice([process.pid, *children])
    os.kill(victim, signal.SIGKILL)
    at = ", ".join(sorted(path.name for path in (folder / "out" / "working").glob("*"))) or "between two stages"
    if victim != process.pid:
        process.communicate()  # its parent tells of it and ends, when the others have ended
        return f"a worker at {at}"
    process.communicate()
    return at


def trial(what: str, kills: int, seed: int, place: Path) -> dict:
    """Kills until all are spent; returns counts and whether every run ended with the same bytes."""
    prepare(what, place / "whole")
    seconds = finish(what, place / "whole")
    expected, rng, done, runs, different = results(place / "whole" / "out"), random.Random(seed), 0, 0, []
    print(f"{what}: undisturbed {seconds:.0f} s, {len(expected)} results", flush=True)
    while done < kills:
        folder = place / f"killed-{runs}"
        prepare(what, folder)
        runs += 1
        while done < kills:
            at = kill_once(what, folder, rng, seconds / 3)  # some six kills a run: in all of its stages
            if at is None:
                break
            done += 1
            print(f"{what}: kill {done} of run {runs}: {at}", flush=True)
        finish(what, folder)
        now = results(folder / "out")
        different += [f"run {runs}: {path}" for path in sorted(expected | now) if expected.get(path) != now.get(path)]
        left = [path.name for path in (folder / "out" / "working").glob("*")]
        print(f"{what}: run {runs} ended, {different[:5] or 'the same bytes'}; left over: {left or 'nothing'}", flush=True)
    return {"kills": done, "runs": runs, "results": len(expected), "different": different}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", default="recipe,experiment")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = {what: trial(what, arguments.kills, arguments.seed, Path(place) / what) for what in arguments.what.split(",")}
    print(json.dumps(found))
    sys.exit(any(one["different"] for one in found.values()))


if __name__ == "__main__":
    main()
