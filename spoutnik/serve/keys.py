"""API keys, of which only hashes are kept.

A secret is 256 random bits, so a plain SHA-256 is the right hash: nobody can try so many, and slow hashes with salt, made for
what people think up, would only delay each request.
"""

from __future__ import annotations  # `list` is a method here

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.files import disk_errors, fsync_path

PREFIX = "sk-spoutnik-"
FILE = "keys.json"  # in the folder of data


@dataclass(frozen=True)
class Key:
    """hash: SHA-256 of the secret. created: seconds since 1970. ending: its last four characters, to tell keys apart.
    requests_per_minute, tokens_per_minute: None takes the server's."""

    name: str
    hash: str
    created: int
    ending: str
    revoked: bool = False
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Keys:
    """The keys in a JSON file, which may change under a running server: it is looked at each time.

    Raises (all methods):
        RunError: the file is damaged or cannot be written.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._seen: tuple | None = None
        self._keys: tuple[Key, ...] = ()

    def add(self, name: str, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> str:
        """Makes a key and returns its secret, which nothing can show again."""
        if not name.isprintable() or not 0 < len(name.strip()) <= 64:
            raise UserError(f"NAME = {name!r}: must be a text of 1 to 64 letters, digits or signs.")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = Key(name.strip(), _hash(secret), int(time.time()), secret[-4:], False, requests_per_minute, tokens_per_minute)
        with self._changing() as keys:
            if any(other.name == key.name for other in keys):
                raise UserError(f"NAME = {key.name!r}: there is, or was, a key of that name. Choose another.")
            keys.append(key)
        return secret

    def revoke(self, name: str) -> None:
        with self._changing() as keys:
            if name not in [key.name for key in keys if not key.revoked]:
                raise UserError(f"NAME = {name!r}: no key of that name is in use. `spoutnik keys list` shows them.")
            keys[:] = [replace(key, revoked=True) if key.name == name else key for key in keys]

    def list(self) -> tuple[Key, ...]:
        """All of them, revoked ones too, in the order in which they were made."""
        try:
            about = os.stat(self.path)
        except FileNotFoundError:
            self._seen, self._keys = None, ()
            return ()
        seen = about.st_mtime_ns, about.st_ino, about.st_size
        if seen != self._seen:
            self._keys, self._seen = _read(self.path), seen
        return self._keys

    def find(self, secret: str) -> Key | None:
        """The key with that secret, if it is in use. Takes as long whichever it is, and if it is none."""
        wanted, found = _hash(secret), None
        for key in self.list():
            if hmac.compare_digest(key.hash, wanted) and not key.revoked:
                found = key
        return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, written back when the block succeeds. Others who change them wait."""
        with disk_errors(self.path, "--data"):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self.path.with_name(self.path.name + ".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = [*self.list()]
                yield keys
                _write(self.path, {"keys": [asdict(key) for key in keys]})


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _read(path: Path) -> tuple[Key, ...]:
    try:
        keys = tuple(Key(**key) for key in json.loads(path.read_text("utf-8"))["keys"])
        if all(isinstance(key.name, str) and isinstance(key.hash, str) and isinstance(key.revoked, bool) for key in keys):
            return keys
    except (ValueError, TypeError, KeyError):
        pass
    raise RunError(f"{path}: is not a file of API keys. Restore it; or delete it, and make all keys anew.")


def _write(path: Path, value: dict) -> None:
    """Readable for the owner alone from its first moment; a reader sees the old file or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    fsync_path(path.parent)
