"""The process of one job: makes or evaluates one stage on one core, and tells its parent how far it is.

Started as `python -m spoutnik.experiment.worker` with the job as one line of JSON on standard input. What it says on standard
output is a JSON object a line: {"done", "total", "tokens", "note"} while it works, at last {"folder", "origin"} or {"error"}.
It ends when its standard input does: the parent is gone then, whatever it died of.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from spoutnik.errors import RunError, UserError
from spoutnik.files import exclusive, read_json
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.folder import RunFolder
from spoutnik.recipe.run import evaluated, make_stage, with_seed
from spoutnik.recipe.schema import recipe_of
from spoutnik.recipe.starts import published_starts

_EVERY = 0.5  # seconds between two reports
_PATIENCE = 20.0  # seconds for a worker of a killed parent to end


class _Reports:
    """The display of a stage that tells its parent. It is spoken by one thread at a time."""

    def __init__(self, out: TextIO):
        self.out, self.last = out, 0.0

    def tell(self, **values: object) -> None:
        self.out.write(json.dumps(values) + "\n")
        self.out.flush()

    def log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def stage(self, name: str, kind: str, position: int, total: int) -> Iterator[Callable]:
        yield self.reporter

    def reporter(self, what: str) -> Callable[[int, int, int, str], None]:
        def progress(done: int, total: int, tokens: int, note: str) -> None:
            if time.perf_counter() - self.last > _EVERY or done == total:
                self.last = time.perf_counter()
                self.tell(done=done, total=total, tokens=tokens, note=note, what=what)

        return progress


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a Ctrl-C means
    reports = _Reports(sys.stdout)
    sys.stdout = sys.stderr  # whatever prints does not disturb the reports
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        artifact, origin = _work(job, reports)
    except (UserError, RunError) as error:
        reports.tell(error=str(error))
        return 1
    folder = artifact.evaluation_folder if job["evaluate"] else artifact.folder
    reports.tell(folder=str(folder), origin=origin)
    return 0


def _end_with_the_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _work(job: dict, reports: _Reports) -> tuple[Artifact, str]:
    source, name, run = job["source"], job["stage"], RunFolder(Path(job["out"]))
    recipe = with_seed(recipe_of(job["values"], Path(source)), job["seed"])
    with _alone(run.path / "locks" / job["lock"]):
        if job["evaluate"]:
            model = _artifact(job["model"])
            return evaluated(recipe, recipe.stages[name], model, run, reports.reporter), ""
        inputs = published_starts(recipe.used_checkpoints, source, forms=recipe.start_forms)
        known = {role: _artifact(folder) for role, folder in job["inputs"].items()}
        known |= {role: inputs[origin] for role, origin in recipe.stages[name].inputs.items() if origin in inputs}
        return make_stage(recipe, source, run, name, known, reports, reports.reporter, accept=(name,))


def _artifact(folder: str) -> Artifact:
    """One that the parent has verified."""
    manifest = read_json(Path(folder) / "manifest.json")
    return Artifact(manifest["stage"], Path(folder), manifest)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Holds off the worker of a parent that was killed, until that worker has seen it."""
    began = time.monotonic()
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(exclusive(lock, f"{lock}: {{holder}} makes this stage. Wait for it, or stop it."))
                break
            except RunError as error:
                if not isinstance(error.__cause__, RunError) or time.monotonic() - began > _PATIENCE:
                    raise
                time.sleep(0.1)
        yield


if __name__ == "__main__":
    sys.exit(main())
