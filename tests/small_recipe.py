"""A recipe of two stages that take seconds, and a display that listens."""

import contextlib
import json
from pathlib import Path

import yaml

from spoutnik.commands.progress import SilentDisplay

SMALL = Path(__file__).parent / "recipe" / "small.yaml"
TRACES = [{"prompt": f"What is {i} + 1?", "thought": "", "answer": str(i + 1)} for i in range(12)]


def prepared(folder: Path, change=lambda values: None, name: str = "small.yaml") -> Path:
    """The small recipe with its traces, changed."""
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load(SMALL.read_text())
    change(values)
    (folder / name).write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TRACES))
    return folder / name


class Listening(SilentDisplay):
    """Keeps what is said, and the first step of each thing that a stage does; interrupts at `stop` = (stage, step)."""

    def __init__(self, stop: tuple[str, int] | None = None, at_stage=lambda name: None):
        self.said, self.first, self.stop, self.at_stage, self.name = [], {}, stop, at_stage, ""

    def log(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def stage(self, name, kind, position, total):
        self.at_stage(name)
        self.name = name
        yield self.progress

    def progress(self, what: str):
        def progress(done: int, of: int, tokens: int, note: str) -> None:
            self.first.setdefault((self.name, what), done)
            if what == "training" and self.stop == (self.name, done):
                raise KeyboardInterrupt

        return progress
