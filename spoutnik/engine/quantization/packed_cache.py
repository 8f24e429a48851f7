"""Where packed weights are kept, which of them belong to which model, and what nobody needs any more.

A packed file lies beside its model, or, where that folder cannot be written, in the user's cache in a folder for the model's
place. Its name is a hash of everything it was made from; so a file that is found is the right one, and another one is packed
where anything has changed.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from spoutnik.engine.quantization.packed_file import CheckpointSource, PackedFile, Progress, write_packed
from spoutnik.engine.quantization.packed_matrix import pack
from spoutnik.engine.quantization.weight_groups import predicted_nbytes, vectors, weight_groups
from spoutnik.errors import RunError, UserError
from spoutnik.files import leftovers, write_text
from spoutnik.model.checkpoint import Checkpoint, read_header
from spoutnik.model.weight_file import BLOCK, BLOCKS, Span, WeightFile, sample_spans
from spoutnik.native import library
from spoutnik.native.build import cache_folder
from spoutnik.native.structs import KINDS
from spoutnik.units import size

PACKING_VERSION = 3  # raise it where packed files of an older version must not be read though `packing_digest` stays the same
BESIDE = "spoutnik-packed"  # the folder beside a model
_FOLDERS = "folders"  # in the user's cache: the models that have such a folder, one path a line
_PROBES = ((70, 96), (33, 257))  # (out, in) of the matrices that `packing_digest` packs
_reported: set[Path] = set()  # models of which was said that nothing can be written


def packed_weights(checkpoint: Checkpoint, kind: str, progress: Progress | None = None) -> PackedFile | None:
    """The checkpoint's weights, packed as `kind`: from disk, after packing them where no file of them is there. Several threads
    and processes may ask at once: one packs, the others wait for it. None where nothing can be written, which is said once.

    Raises:
        RunError: the checkpoint was changed meanwhile, or a packed file is damaged.
    """
    name = packed_name(checkpoint, kind)
    folders, reasons = [checkpoint.folder / BESIDE, folder_in_cache(checkpoint.folder)], []
    for folder in folders:
        if (file := _existing(folder / name)) is not None:
            return file
    for folder in folders:
        try:
            return _packed_into(folder / name, checkpoint, kind, progress)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror or error}")
    if checkpoint.folder not in _reported:
        _reported.add(checkpoint.folder)
        print(f"{checkpoint.folder}: the packed weights are kept in memory for this run alone, since they cannot be saved "
              f"({'; '.join(reasons)}). Set XDG_CACHE_HOME to a folder that can be written: then it is done once.",
              file=sys.stderr)
    return None


def _existing(path: Path) -> PackedFile | None:
    try:
        file = PackedFile.open(path)
    except RunError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    if path.parent.name == BESIDE:
        _remember(path.parent.parent)
    return file


def _packed_into(path: Path, checkpoint: Checkpoint, kind: str, progress: Progress | None) -> PackedFile:
    """Raises OSError: the file cannot be written there."""
    if path.parent.name == BESIDE and not os.access(path.parent if path.parent.exists() else checkpoint.folder, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(path.parent):
        if (file := _existing(path)) is not None:  # somebody else has just made it
            return file
        leftovers(path.parent, remove=True)
        needed, free = predicted_nbytes(checkpoint.config, kind), shutil.disk_usage(path.parent).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{size(needed)} are needed and {size(free)} are free")
        source, total = CheckpointSource(checkpoint), sum(stored.nbytes for stored in checkpoint.tensors.values())
        write_packed(path, weight_groups(source, kind), vectors(source), progress, total,
                     {"model": str(checkpoint.folder.resolve()), "kind": kind}, source.check)
        file = _existing(path)
        if file is None:
            raise OSError(errno.ENOENT, "was deleted as soon as it was there")
        return file


def packed_name(checkpoint: Checkpoint, kind: str) -> str:
    return f"{kind}-{fingerprint(checkpoint, kind)}.safetensors"


def folder_in_cache(model: Path) -> Path:
    """The folder in the user's cache for the packed weights of the model at this place."""
    place = model.resolve()
    return cache_folder() / "packed" / f"{place.name}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"


def fingerprint(checkpoint: Checkpoint, kind: str) -> str:
    """Identifies the packed form of these weights: of what is in the files, the configuration, and how it is packed."""
    parts = [PACKING_VERSION, packing_digest(), kind, content_digest(checkpoint), checkpoint.config.model_dump_json()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def content_digest(checkpoint: Checkpoint) -> str:
    """A hash of the weights' files: of all bytes of small ones; of large ones of the headers, of blocks all over each file, of
    the beginnings of tensors (64 MiB in all at most), and of the times of change in seconds, which containers keep."""
    starts: dict[Path, list[Span]] = {}
    for stored in checkpoint.tensors.values():
        starts.setdefault(stored.file, []).append((stored.start, min(stored.size, BLOCK)))
    files = {path: WeightFile(path, checkpoint.states.get(path)) for path in sorted(starts)}
    total, parts = sum(file.state.size for file in files.values()), []
    small = total <= BLOCKS * BLOCK
    every = -(-len(checkpoint.tensors) // BLOCKS)  # of so many tensors, the beginning of one
    for path, file in files.items():
        spans = sample_spans(file.state.size, max(16, BLOCKS * file.state.size // total))
        if not small:
            first = min(start for start, _ in starts[path])
            spans = [(0, first), *spans, *sorted(starts[path])[::every]]
        parts.append([path.name, file.state.size, file.hash(spans), 0 if small else file.state.mtime_ns // 10**9])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@cache
def packing_digest() -> str:
    """A hash of how this code packs on this machine: the bytes that it makes of small matrices, and the program that groups a
    model's matrices. A format that changes changes it too."""
    digest = hashlib.sha256(Path(__file__).with_name("weight_groups.py").read_bytes())
    digest.update(f"{library().spoutnik_lanes()}".encode())
    for kind in KINDS:
        for out, inputs in _PROBES:
            weight = torch.randn(out, inputs, generator=torch.Generator().manual_seed(out)).bfloat16()
            packed = pack([weight, weight.neg()], kind)
            nbytes = library().spoutnik_packed_nbytes(packed.kind, inputs, out)  # what follows is filler, or exceptions
            digest.update(f"{packed.kind} {nbytes} {packed.units.tolist()}".encode())
            digest.update(packed.data[:, :nbytes].contiguous().numpy())
    return digest.hexdigest()


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Threads and processes pack into a folder one after the other, where its file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: weights are being packed there already; waiting for them.", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # no locks there: then each packs for itself
            pass
        yield
    finally:
        os.close(descriptor)


def _remember(model: Path) -> None:
    """For `spoutnik cache`, which could not find it otherwise."""
    place = model.resolve()
    with contextlib.suppress(OSError, UnicodeError):  # without a cache that can be written there is no list
        if place not in _remembered():
            _index().parent.mkdir(parents=True, exist_ok=True)
            with open(_index(), "a", encoding="utf-8") as file:
                file.write(f"{place}\n")


@dataclass(frozen=True)
class PackedEntry:
    """A file of the cache. model: None where the file does not say. kind: its precision. modified: seconds since 1970. state:
    "current", "outdated" (of other weights, or of another version), "no model" (it is gone, or cannot be read), "damaged", or
    "left over" (by a process that was killed)."""

    path: Path
    model: Path | None
    kind: str
    nbytes: int
    modified: float
    state: str


def packed_entries(model: Path | None = None) -> list[PackedEntry]:
    """What is kept for one model, or for all that this user packed weights of; the largest first."""
    entries = [_entry(path) for folder in _folders(model) for path in sorted(folder.glob("*.safetensors"))]
    for folder in _folders(model):
        entries += [PackedEntry(path, _model_of(path), path.name[1:].split("-")[0], *_size_and_time(path), "left over")
                    for path in leftovers(folder)]
    return sorted(entries, key=lambda entry: -entry.nbytes)


def remove_entries(entries: Iterable[PackedEntry]) -> list[PackedEntry]:
    """Deletes these files, and folders that are empty then; those that are gone. A process that uses one keeps what it has.

    Raises:
        RunError: one cannot be deleted.
    """
    removed = []
    for entry in entries:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{entry.path}: cannot be deleted ({error.strerror}). Check the folder's permissions.") from error
        removed.append(entry)
        with contextlib.suppress(OSError):  # there is more in it
            entry.path.parent.rmdir()
    with contextlib.suppress(OSError, UnicodeError):
        write_text(_index(), "".join(f"{model}\n" for model in _remembered() if (model / BESIDE).exists()))
    return removed


def _folders(model: Path | None) -> list[Path]:
    if model is not None:
        return [model / BESIDE, folder_in_cache(model)]
    packed = cache_folder() / "packed"
    inside = [packed, *sorted(path for path in packed.iterdir() if path.is_dir())] if packed.is_dir() else []
    return [*inside, *(model / BESIDE for model in _remembered())]


def _entry(path: Path) -> PackedEntry:
    model, kind = _model_of(path), path.name.split("-")[0]
    return PackedEntry(path, model, kind, *_size_and_time(path), _state(path, model, kind))


def _state(path: Path, model: Path | None, kind: str) -> str:
    if model is not None:
        try:
            checkpoint = Checkpoint.open(model)
        except (UserError, RunError):
            return "no model"
        if path.parent in _folders(model) and packed_name(checkpoint, kind) == path.name:
            try:
                PackedFile.open(path)
            except RunError:
                return "damaged"
            return "current"
    return "outdated"


def _model_of(path: Path) -> Path | None:
    if path.parent.name == BESIDE:
        return path.parent.parent
    with contextlib.suppress(RunError):
        model = read_header(path)[1].get("model")
        return None if model is None else Path(model)
    return None


def _size_and_time(path: Path) -> tuple[int, float]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime


def _index() -> Path:
    return cache_folder() / "packed" / _FOLDERS


def _remembered() -> list[Path]:
    """Models that have a folder of packed weights beside them."""
    with contextlib.suppress(OSError, UnicodeError):
        return [Path(line) for line in dict.fromkeys(_index().read_text("utf-8").splitlines()) if line]
    return []
