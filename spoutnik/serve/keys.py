"""API keys, of which only hashes are kept.

A secret is 256 random bits, so a plain SHA-256 is the right hash: nobody can try so many, and slow salted hashes, made for
passwords, would only delay each request.
"""

from __future__ import annotations  # `list` is a method here

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.files import disk_errors, replacing

PREFIX = "sk-spoutnik-"
FILE = "keys.json"  # in the data folder


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
    """The keys in a JSON file, and those of the given secrets. Other processes may change the file, so each method looks at it
    again. All raise RunError if it is damaged or cannot be written."""

    def __init__(self, path: Path, secrets: Sequence[str] = ()):
        self.path = Path(path)
        self._given = tuple(Key(f"--api-key {number}", hash_secret(secret), 0, secret[-4:])
                            for number, secret in enumerate(secrets, start=1))
        self._stamp: tuple | None = None  # of the file's version in _keys
        self._keys: tuple[Key, ...] = ()

    def add(self, name: str, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> str:
        """Makes a key and returns its secret, which nothing can show again."""
        if not name.isprintable() or not 0 < len(name.strip()) <= 64:
            raise UserError(f"NAME = {name!r}: must be a text of 1 to 64 letters, digits or signs.")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = Key(name.strip(), hash_secret(secret), int(time.time()), secret[-4:], False, requests_per_minute,
                  tokens_per_minute)
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
        """All keys, revoked ones too: the given ones, then the file's, oldest first."""
        return self._given + self._in_file()

    def _in_file(self) -> tuple[Key, ...]:
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            self._stamp, self._keys = None, ()
            return ()
        stamp = stat.st_mtime_ns, stat.st_ino, stat.st_size
        if stamp != self._stamp:
            self._keys, self._stamp = _read(self.path), stamp
        return self._keys

    def find(self, secret: str) -> Key | None:
        """The key with that secret, if it is in use. Takes the same time whichever it is, and if it is none."""
        hashed, match = hash_secret(secret), None
        for key in self.list():
            if hmac.compare_digest(key.hash, hashed) and not key.revoked:
                match = key
        return match

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, written back when the block succeeds. Other processes that change them wait."""
        with disk_errors(self.path, "--data"):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self.path.with_name(self.path.name + ".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = [*self._in_file()]
                yield keys
                with replacing(self.path, 0o600, "--data") as temporary:
                    temporary.write_text(json.dumps({"keys": [asdict(key) for key in keys]}, indent=1), "utf-8")


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _read(path: Path) -> tuple[Key, ...]:
    try:
        keys = tuple(Key(**key) for key in json.loads(path.read_text("utf-8"))["keys"])
        if all(isinstance(key.name, str) and isinstance(key.hash, str) and isinstance(key.revoked, bool) for key in keys):
            return keys
    except (ValueError, TypeError, KeyError):
        pass
    raise RunError(f"{path}: is not a file of API keys. Restore it; or delete it, and make all keys anew.")
