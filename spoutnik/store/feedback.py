"""Ratings and corrections of answers, kept as JSON lines that models can be trained on.

`given.jsonl` is the log, one line for each time somebody rates or corrects: {"id", "time", "model", "messages" (up to the
question), "thought", "answer", "rating" ("up", "down" or null), "correction" (a text or null)}. A later line on the same id
replaces an earlier one. The other files are derived from it and rewritten each time:

  traces.jsonl   {"prompt", "thought", "answer", "model"}: liked answers. The `file` of a recipe's sft or distill stage.
  tasks.jsonl    {"prompt", "answer"}: questions whose right answer a person wrote.
  pairs.jsonl    {"prompt", "chosen", "rejected"}: a correction and what it corrects, a liked answer and a disliked one.

A prompt is one text, so only first questions become training rows: a later one means nothing without the messages before it.
"""

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from spoutnik.files import disk_errors, read_jsonl, write_jsonl
from spoutnik.text.chat_template import Message

Thumb = Literal["up", "down"]


@dataclass(frozen=True)
class AnswerFeedback:
    """Feedback on one answer. id: the answer's. messages: the conversation up to the question."""

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
        """The question, where it is the first message."""
        return self.messages[0]["content"] if len(self.messages) == 1 else None


class FeedbackStore:
    """The files in `folder`, which is created with the first feedback."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.log = self.folder / "given.jsonl"
        self._lock = threading.Lock()

    def record(self, feedback: AnswerFeedback) -> None:
        with self._lock, disk_errors(self.log, "--data"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(feedback), ensure_ascii=False) + "\n")
            for name, rows in training_rows(self.latest().values()).items():
                write_jsonl(self.folder / f"{name}.jsonl", rows)

    def latest(self) -> dict[str, AnswerFeedback]:
        """The last feedback on each answer, by the answer's id."""
        if not self.log.exists():
            return {}
        keys = tuple(AnswerFeedback.__dataclass_fields__)
        return {row["id"]: AnswerFeedback(**{key: row[key] for key in keys}) for row in read_jsonl(self.log, keys)}


def training_rows(feedback: Iterable[AnswerFeedback]) -> dict[str, list[dict]]:
    """The rows of traces, tasks and pairs, without duplicates."""
    traces, tasks, pairs = [], [], []
    liked, disliked = defaultdict(list), defaultdict(list)  # prompt -> answers
    for entry in feedback:
        if entry.prompt is None or not entry.answer:
            continue
        if entry.correction:
            tasks.append({"prompt": entry.prompt, "answer": entry.correction})
            pairs.append((entry.prompt, entry.correction, entry.answer))
        elif entry.rating == "up":
            traces.append({"prompt": entry.prompt, "thought": entry.thought, "answer": entry.answer, "model": entry.model})
            liked[entry.prompt].append(entry.answer)
        elif entry.rating == "down":
            disliked[entry.prompt].append(entry.answer)
    for prompt, answers in liked.items():
        pairs += [(prompt, *pair) for pair in itertools.product(answers, disliked[prompt])]
    return {"traces": _unique(traces), "tasks": _unique(tasks),
            "pairs": _unique([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in pairs if c != r])}


def _unique(rows: Sequence[dict]) -> list[dict]:
    return list({json.dumps(row, sort_keys=True): row for row in rows}.values())
