"""What a teacher answered, kept as it arrives: none is asked, and paid for, twice, however a run ends."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.files import cut_half_line, disk_errors, parse_json_line, text_lines


@dataclass(frozen=True)
class TeacherReply:
    """text: without its thought. finished: it ended by itself. tokens: of the whole reply, 0 where nobody counts. yes: the
    probability of yes against no, where that was asked and is known. refusal: why an endpoint would not answer, or ""."""

    text: str
    finished: bool
    tokens: int = 0
    yes: float | None = None
    refusal: str = ""


class Journal:
    """Replies by the hash of all that decides them, in a file of JSON lines that only grows. A line that was cut while it was
    written, by a process that was killed, is taken off.

    Raises:
        UserError: a line is none of this program's.
    """

    def __init__(self, path: Path):
        self.path = path
        with disk_errors(path, "--out"):
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_half_line(path)
            self._replies = {} if not path.exists() else dict(_read(path))
            self._file = open(path, "a", encoding="utf-8", errors="replace")  # noqa: SIM115 - until `close`

    def __contains__(self, key: str) -> bool:
        return key in self._replies

    def __getitem__(self, key: str) -> TeacherReply:
        return self._replies[key]

    def __len__(self) -> int:
        return len(self._replies)

    def add(self, key: str, reply: TeacherReply) -> None:
        line = json.dumps({"key": key, **asdict(reply)}, ensure_ascii=False)
        with disk_errors(self.path, "--out"):
            self._file.write(line + "\n")
            self._file.flush()
        # As it will be read again: half a surrogate pair is a question mark in UTF-8.
        self._replies[key] = reply_of(json.loads(line.encode("utf-8", "replace")))

    def close(self) -> None:
        self._file.close()


def reply_of(row: dict) -> TeacherReply:
    return TeacherReply(str(row["text"]), bool(row["finished"]), int(row["tokens"]), row["yes"], str(row["refusal"]))


def _read(path: Path):
    for number, line in text_lines(path):
        try:
            row = parse_json_line(line)
            yield row["key"], reply_of(row)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: is no reply that this program kept ({error}). Remove the line: it is "
                            "asked for again.") from error
