"""Durable files: written under a temporary name, flushed, renamed."""

import codecs
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from spoutnik.errors import RunError, UserError

_WRITING = ".writing-"  # in the name of a file that is being written


@contextlib.contextmanager
def disk_errors(path: Path, option: str | None = None) -> Iterator[None]:
    """Turns OSErrors while `path` is written into RunErrors with the remedy. option: of the command line, for the path; named
    only by those who know that the command at hand has it."""
    try:
        yield
    except OSError as error:
        elsewhere = "write to another folder" if option is None else f"choose another {option}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"{path}: the disk is full while saving; nothing already made was touched. "
                           f"Free some space (or {elsewhere}) and run the same command again.") from error
        raise RunError(f"{path}: cannot be written ({error.strerror or error}). "
                       f"Check the folder's permissions or {elsewhere}.") from error


@contextlib.contextmanager
def exclusive(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock file `path`, which the system releases when the process ends, however it ends.

    Raises:
        RunError: another process holds it; `refusal` is the sentence, with {holder} for that process.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")
    with file:
        try:
            with disk_errors(path):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except RunError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            file.seek(0)
            raise RunError(refusal.replace("{holder}", file.read(100).strip() or "another process")) from error
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield


def fsync_path(path: Path) -> None:
    """Flushes a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def replacing(path: Path, mode: int | None = None, option: str | None = None) -> Iterator[Path]:
    """`replacing_raw` whose OSErrors are RunErrors. option: says where to write, as in `disk_errors`."""
    with disk_errors(path, option), replacing_raw(path, mode) as temporary:
        yield temporary


@contextlib.contextmanager
def replacing_raw(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yields a temporary name beside `path`; when the block succeeds it is flushed and takes the place of `path`.

    A reader sees the old file or the new one, never half of one. Several threads and processes may write one path at a time;
    the last to end wins. The temporary file is locked for as long as its writer lives, so that what killed ones left behind
    can be told apart and is removed. mode: the file's permissions from its first moment (0o600 for secrets); None: the umask's.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    leftovers(path.parent, path.name, remove=True)
    temporary, descriptor = _locked_temporary(path, 0o666 if mode is None else mode)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask() if mode is None else mode)  # some libraries write for the owner alone
        fsync_path(temporary)
        os.replace(temporary, path)
        fsync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _locked_temporary(path: Path, mode: int) -> tuple[Path, int]:
    """A new, empty file beside `path`, and a descriptor that holds its lock."""
    while True:
        temporary = path.with_name(f".{path.name}{_WRITING}{os.getpid()}-{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # somebody took it for a leftover between the two calls
        temporary.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool | None:
    """Whether this descriptor now holds the file's lock; None where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def leftovers(folder: Path, name: str = "", remove: bool = False) -> list[Path]:
    """The temporary files of writers that were killed. name: of the file that they wrote; "" means any."""
    marked = f".{name}{_WRITING}" if name else "."
    try:
        with os.scandir(folder) as entries:
            paths = sorted(Path(entry.path) for entry in entries if entry.name.startswith(marked) and _WRITING in entry.name
                           and entry.is_file(follow_symlinks=False))
    except OSError:
        return []
    return [path for path in paths if _is_abandoned(path, remove)]


def _is_abandoned(path: Path, remove: bool) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # its writer has just finished, or it belongs to somebody else
        return False
    try:
        abandoned = _lock(descriptor) is True
        if abandoned and remove:  # while the lock is held: nobody begins to write into it
            with contextlib.suppress(OSError):
                path.unlink()
        return abandoned
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> dict:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # some editors write a mark before the text
    except FileNotFoundError as error:
        raise RunError(f"{path}: not found. Check the path, or run the stage that makes it.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        if is_lfs_pointer(path):
            raise RunError(LFS_POINTER.format(path=path)) from error
        raise RunError(f"{path}: is not valid JSON ({error}). Restore it, or delete its folder and run again.") from error


LFS_POINTER = "{path}: is a pointer of git-lfs, not the file itself. Fetch the files: git lfs pull in that folder."


def is_lfs_pointer(path: Path) -> bool:
    """What a clone holds in place of large files where git-lfs is not installed."""
    with open(path, "rb") as file:
        return file.read(40).startswith(b"version https://git-lfs.github.com/")


def write_jsonl(path: Path, rows: list[dict]) -> None:
    write_text(path, json_lines(rows))


def json_lines(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path, required: tuple[str, ...] = (), texts: bool = False) -> list[dict]:
    """The rows of a JSON-lines file.

    Raises:
        UserError: names the file and the line of the first broken row, or of one that lacks a `required` key (or where it
            is not a text, with `texts`).
    """
    rows = []
    for number, line in text_lines(path):
        try:
            row = parse_json_line(line)
            check_row(row, required, texts)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        rows.append(row)
    return rows


def cut_half_line(path: Path) -> None:
    """Takes off a last line without its end, which a process that was killed left while it wrote."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end:  # backwards, a block at a time, to the end of the last whole line
            start = max(end - 65536, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


LONGEST_LINE = 1 << 28  # bytes


def text_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers, without a byte order mark.

    Raises:
        UserError: there is no such file, or it is none that has lines of text.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise UserError(f"{path}: is not a text file of JSON lines, but {kind}. Give the path of a file.")
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
                if len(line) > LONGEST_LINE:
                    raise UserError(f"{path}, line {number}: is longer than {LONGEST_LINE >> 20} MiB. Write one object on each "
                                    "line.")
                if number == 1:
                    _refuse_other_forms(path, line)
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Give the path of a JSON-lines file.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Give a file that you may read.") from error


def _refuse_other_forms(path: Path, first: bytes) -> None:
    """What is easily taken for a file of JSON lines, by its first line."""
    if first.startswith(b"\x1f\x8b"):
        raise UserError(f"{path}: is not a text file of JSON lines: it is compressed. Unpack it first (gunzip).")
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in first[:4]:
        raise UserError(f"{path}: is not a text file of JSON lines in UTF-8, but in UTF-16 or binary. Save it as UTF-8.")
    if first.startswith(b"version https://git-lfs"):
        raise UserError(LFS_POINTER.format(path=path))
    if first.removeprefix(codecs.BOM_UTF8).strip().startswith(b"["):
        raise UserError(f"{path}, line 1: is not valid JSON lines but begins a JSON array. Write one object on each line, "
                        "without brackets around them.")


def parse_json_line(line: bytes) -> object:
    """Raises ValueError with a sentence where the line is not one JSON value in UTF-8."""
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not a text file of JSON lines in UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1}). "
                         "Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at character {error.pos + 1}). Mend or remove it.") from error
    except RecursionError as error:
        raise ValueError("not valid JSON that can be read (nested too deeply). Mend or remove it.") from error
    except _Twice:
        raise
    except ValueError as error:  # Python's limit on the digits of an integer
        raise ValueError("not valid JSON that can be read (a number has too many digits). Mend or remove it.") from error


class _Twice(ValueError):
    """A key that stands twice."""


def _distinct(pairs: list[tuple[str, object]]) -> dict:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise _Twice(f"the key {twice!r} stands twice. Keep one of the two.")
    return values


def check_row(row: object, required: tuple[str, ...], texts: bool) -> None:
    """Raises ValueError where a row lacks a key, or has another thing than text there."""
    missing = [key for key in required if not isinstance(row, dict) or key not in row]
    if missing:
        raise ValueError(f"the key '{missing[0]}' is missing. Each line needs {', '.join(required)}.")
    for key in required if texts else ():
        check_text(key, row[key])


def check_text(key: str, value: object) -> None:
    """Raises ValueError where a value is no text that can be encoded."""
    if not isinstance(value, str):
        shown = repr(value)
        raise ValueError(f"'{key}' must be a text, not {shown if len(shown) < 60 else shown[:60] + '...'}. Mend or remove it.")
    if not value.isascii() and re.search("[\ud800-\udfff]", value):
        raise ValueError(f"'{key}' holds half of a surrogate pair, which is no character. Mend or remove it.")


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def install_folder(temporary: Path, final: Path, aside: Path | None = None) -> None:
    """Renames a finished folder into place after flushing every file in it.

    aside: where a folder that is there already lies meanwhile. It comes back if the renaming fails, else it is removed.
    """
    with disk_errors(final):
        for file in sorted(temporary.rglob("*")):
            fsync_path(file)
        fsync_path(temporary)
        if aside is not None and final.exists():
            remove_folder(aside)
            final.rename(aside)
        try:
            os.replace(temporary, final)
        except BaseException:
            if aside is not None and aside.exists() and not final.exists():
                aside.rename(final)
            raise
        fsync_path(final.parent)
    if aside is not None:
        remove_folder(aside)


def remove_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
