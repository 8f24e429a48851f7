"""What people say about answers, kept as JSON lines from which models can learn.

In the folder of the feedback, `given.jsonl` holds every word of it as it came: {"id", "time", "model", "messages" (up to the
question), "thought", "answer", "rating" ("up", "down" or null), "correction" (a text or null)}. A later line on the same id
replaces an earlier one. The other files follow from it and are written anew each time:

  traces.jsonl   {"prompt", "thought", "answer", "model"}: liked answers. The `file` of a recipe's sft or distill stage.
  tasks.jsonl    {"prompt", "answer"}: questions whose right answer a person wrote.
  pairs.jsonl    {"prompt", "chosen", "rejected"}: a correction and what it corrects, a liked answer and a disliked one.

A line's prompt is one text, so only first questions become lines: a later one means nothing without what was said before it.
"""

import itertools
import json
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from spoutnik.errors import UserError
from spoutnik.files import disk_errors, read_jsonl, write_jsonl
from spoutnik.text.chat_template import Message

Thumb = Literal["up", "down"]


@dataclass(frozen=True)
class Opinion:
    """Of one answer. id: of the answer. messages: the conversation up to the question."""

    id: str
    model: str
    messages: list[Message]
    thought: str
    answer: str
    rating: Thumb | None = None
    correction: str | None = None
    time: float = field(default_factory=time.time)

    @property
    def prompt(self) -> str | None:
        """The question, where nothing was said before it."""
        return self.messages[0]["content"] if len(self.messages) == 1 else None


class Feedback:
    """The files in `folder`; it is made when something is said."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._lock = threading.Lock()

    @property
    def given(self) -> Path:
        return self.folder / "given.jsonl"

    def give(self, opinion: Opinion) -> None:
        with self._lock, disk_errors(self.given, "--data"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self.given, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(opinion), ensure_ascii=False) + "\n")
            for name, rows in lessons(self.opinions().values()).items():
                write_jsonl(self.folder / f"{name}.jsonl", rows)

    def opinions(self) -> dict[str, Opinion]:
        """The last one on each answer, by its id."""
        if not self.given.exists():
            return {}
        keys = tuple(Opinion.__dataclass_fields__)
        return {row["id"]: Opinion(**{key: row[key] for key in keys}) for row in read_jsonl(self.given, keys)}


def lessons(opinions: Iterable[Opinion]) -> dict[str, list[dict]]:
    """The lines of traces, tasks and pairs, each once."""
    traces, tasks, pairs = [], [], []
    liked: dict[str, list[str]] = {}
    disliked: dict[str, list[str]] = {}
    for one in opinions:
        if one.prompt is None or not one.answer:
            continue
        if one.correction:
            tasks.append({"prompt": one.prompt, "answer": one.correction})
            pairs.append((one.prompt, one.correction, one.answer))
        elif one.rating == "up":
            traces.append({"prompt": one.prompt, "thought": one.thought, "answer": one.answer, "model": one.model})
            liked.setdefault(one.prompt, []).append(one.answer)
        elif one.rating == "down":
            disliked.setdefault(one.prompt, []).append(one.answer)
    for prompt, good in liked.items():
        pairs += [(prompt, *pair) for pair in itertools.product(good, disliked.get(prompt, []))]
    return {"traces": _once(traces), "tasks": _once(tasks),
            "pairs": _once([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in pairs if c != r])}


def _once(rows: Sequence[dict]) -> list[dict]:
    return list({json.dumps(row, sort_keys=True): row for row in rows}.values())


def read_tasks(path: Path) -> list[dict]:
    """Questions with their right answers: {"prompt", "answer"}.

    Raises:
        UserError: names the file and the line of the first that is not one.
    """
    rows = read_jsonl(path, ("prompt", "answer"), texts=True)
    _check(path, rows, ("prompt", "answer"))
    return rows


def read_pairs(path: Path) -> list[dict]:
    """Preference pairs: {"prompt", "chosen", "rejected"}, the first answer better than the second. Raises as `read_tasks`."""
    rows = read_jsonl(path, ("prompt", "chosen", "rejected"), texts=True)
    _check(path, rows, ("prompt", "chosen", "rejected"))
    for number, row in enumerate(rows, start=1):
        if row["chosen"] == row["rejected"]:
            raise UserError(f"{path}, row {number}: chosen and rejected are the same text, {row['chosen'][:60]!r}. A pair "
                            "needs two answers of which one is better; mend or remove it.")
    return rows


def _check(path: Path, rows: list[dict], keys: Sequence[str]) -> None:
    if not rows:
        raise UserError(f"{path}: is empty. Give at least one line with {', '.join(keys)}.")
    for number, row in enumerate(rows, start=1):
        for key in keys:
            if not row[key].strip():
                raise UserError(f"{path}, row {number}: '{key}' is empty. Write a text, or remove the line.")
