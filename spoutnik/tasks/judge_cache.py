"""Votes of judges that were paid for, in memory or in a file as well."""

import json
import threading
from pathlib import Path

from spoutnik.errors import RunError, UserError


class VerdictCache:
    """Votes by their key. With a path each is written to a file as it arrives: one line of JSON, {"key", "word"}.

    Raises:
        UserError: a line of the file is broken; the last one may be, by a run that was killed while it wrote it.
    """

    def __init__(self, path: Path | None = None):
        self._path, self._words, self._lock = path, {}, threading.Lock()
        if path is not None and path.exists():
            self._read(path)

    def __contains__(self, key: str) -> bool:
        return key in self._words

    def __getitem__(self, key: str) -> str | None:
        return self._words[key]

    def __len__(self) -> int:
        return len(self._words)

    def add(self, key: str, word: str | None) -> None:
        """Keeps a vote. Raises RunError where the file cannot be written."""
        with self._lock:
            self._words[key] = word
            if self._path is None:
                return
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "word": word}) + "\n")
            except OSError as error:
                raise RunError(f"{self._path}: the judge's votes cannot be kept ({error.strerror}). Make room or name another "
                               "file.") from error

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        lines = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                vote = json.loads(line) if line.strip() else None
                if vote is not None:
                    self._words[vote["key"]] = vote["word"]
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines):
                    raise UserError(f"{path}, line {number}: no vote of a judge. Remove the line, or the file.") from error
                path.write_bytes(content[:len(content) - len(line)])  # cut while it was written
