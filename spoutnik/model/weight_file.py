"""A file of weights from its first byte read to its last: opened once, so that another file that takes its place does no harm,
and checked to stay as it is. Does not import torch."""

import hashlib
import mmap
import os
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from spoutnik.errors import RunError

BLOCK, BLOCKS = 8 << 10, 4096  # bytes of a sample, and how many are taken; what is no larger than all of them is hashed whole
_PIECE = 1 << 20  # bytes read at a time
Span = tuple[int, int]  # first byte, bytes


class FileState(NamedTuple):
    """What tells that a file has been written to, or is another one."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @staticmethod
    def of(stat: os.stat_result) -> "FileState":
        return FileState(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def states(paths: Iterable[Path]) -> dict[Path, FileState]:
    """Of those that are there."""
    return {path: FileState.of(os.stat(path)) for path in paths if path.exists()}


class WeightFile:
    """A file, open until nobody holds it.

    Args:
        state: what it was when its header was read; None: whatever it is now.
    Raises:
        RunError: it cannot be opened, or is not what it was.
    """

    def __init__(self, path: Path, state: FileState | None = None):
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        weakref.finalize(self, os.close, self._descriptor)
        stat = os.fstat(self._descriptor)
        self.state, self._ctime_ns = FileState.of(stat), stat.st_ctime_ns
        self._samples = ""
        self._faults: Callable[[], int] = lambda: 0
        if state is not None and state != self.state:
            raise self._changed()

    def fileno(self) -> int:
        return self._descriptor

    def read_into(self, start: int, target: memoryview) -> None:
        """Fills `target` with the bytes from `start` on."""
        done = 0
        try:
            while done < len(target):  # one call reads at most 2 GiB
                count = os.preadv(self._descriptor, [target[done:]], start + done)
                if not count:
                    raise self._cut_off()
                done += count
        except OSError as error:
            raise self._unreadable(error) from error

    def check_read(self, status: int) -> None:
        """Raises RunError where native code that read the descriptor failed. status: 0, an errno, or -1: the file ended."""
        if status:
            raise self._cut_off() if status < 0 else self._unreadable(OSError(status, os.strerror(status)))

    def map(self, guard: Callable[[int, int], tuple[Callable[[], int], Callable[[], None]]] | None = None) -> mmap.mmap:
        """The file in the address space: read where it is used; writing changes private copies of its pages.

        guard: takes address and bytes of the mapping, keeps the process alive where the file is cut off under it, and returns
            a counter of such faults and a function that ends this.
        """
        mapping = mmap.mmap(self._descriptor, self.state.size, access=mmap.ACCESS_COPY)
        if guard is not None:
            address = _address(mapping)
            self._faults, release = guard(address, self.state.size)
            weakref.finalize(mapping, release).atexit = False
        self._samples = self.hash(sample_spans(self.state.size))
        return mapping

    def check(self) -> None:
        """Takes a microsecond. A file that was renamed, deleted or linked is the same file.

        Raises:
            RunError: it was written to or cut off since it was opened.
        """
        try:
            stat = os.fstat(self._descriptor)
        except OSError as error:  # of a network disk
            raise self._unreadable(error) from error
        if FileState.of(stat) != self.state:
            raise self._changed()
        if self._faults():
            raise RunError(f"{self.path}: could not be read while it was in use (the disk failed, or the file was cut off for "
                           "a while). Start again.")
        if stat.st_ctime_ns != self._ctime_ns:  # its name, rights or times; or its bytes by somebody who set the time back
            if self._samples and self.hash(sample_spans(self.state.size)) != self._samples:
                raise self._changed()
            self._ctime_ns = stat.st_ctime_ns

    def hash(self, spans: Iterable[Span]) -> str:
        """Of these parts of the file."""
        digest = hashlib.sha256()
        try:
            for start, size in spans:
                for position in range(start, start + size, _PIECE):
                    digest.update(os.pread(self._descriptor, min(_PIECE, start + size - position), position))
        except OSError as error:
            raise self._unreadable(error) from error
        return digest.hexdigest()

    def _changed(self) -> RunError:
        return RunError(f"{self.path}: was changed while it was in use, and what was read from it can no longer be trusted. "
                        "Start again, and leave files alone that are in use (a new file may take their name).")

    def _cut_off(self) -> RunError:
        return RunError(f"{self.path}: became shorter while it was read. Leave the file alone and try again.")

    def _unreadable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be read ({error.strerror or error}). Restore the file.")


def sample_spans(size: int, blocks: int = BLOCKS) -> list[Span]:
    """Blocks all over a file of that size, from its first byte to its last; all of a small one."""
    if size <= blocks * BLOCK:
        return [(0, size)]
    return [((size - BLOCK) * number // (blocks - 1), BLOCK) for number in range(blocks)]


def _address(mapping: mmap.mmap) -> int:
    import ctypes
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))
