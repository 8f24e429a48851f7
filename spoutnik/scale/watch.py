"""How the processes of a run hear of each other's end, whatever they are at.

A thread of each process writes a line into the store that they share, twice a second: that it lives, how many pieces of work
it has finished, and whether it works or waits. Rank 0 reads all lines. Where no rank has finished anything in `timeout` seconds
the run hangs: all write their stacks to a folder that is named, and end. Times are each process's own: clocks need not agree.
"""

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from spoutnik.world import pulse

_INTERVAL = 0.5  # seconds between two lines, of few processes
_ENDING = 5.0  # seconds in which a process must have ended by itself once another has failed
_TELLING = 3.0  # seconds in which whoever tells an error has told it
_AGAIN = ("What was finished is kept: run the same command again to go on from the last checkpoint, or have torchrun do so by "
          "itself (--max-restarts 3).")


class Watch:
    """Of one process. say: prints a sentence. The store's keys: beat/RANK; failed, hung: the first error, the verdict; told."""

    def __init__(self, store: object, rank: int, size: int, timeout: float, stacks: Path, say: Callable[[str], None],
                 name: str):
        self.store, self.rank, self.size, self.timeout, self.stacks, self.say = store, rank, size, timeout, stacks, say
        self.name, self.launcher = name, os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._interval = _INTERVAL * max(1.0, size / 128)  # one store serves all
        self._own = store.clone()  # of the thread: a client serves one request at a time
        self._ticks, self._stopped = 0, threading.Event()
        self._seen: dict[int, tuple[list[str], float]] = {}  # of each rank its last line, and when its tick last changed
        self._finished: tuple[object, float] = (None, time.monotonic())  # all ranks' beats, and when they last changed
        self._answered = time.monotonic()  # when the store last did
        self._telling = False  # this process has an error of its own, or has noticed another's end
        self._threads = [threading.Thread(target=work, name="watch", daemon=True) for work in (self._talk, self._guard)]

    def __enter__(self) -> "Watch":
        self._beat()
        self._own.wait([f"beat/{rank}" for rank in range(self.size)])
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * self._interval)
        self._set(f"ended/{self.rank}", "")
        if self._telling and self.rank == 0 and self.launcher is None:  # the others hear of it through the store that it serves
            deadline = time.monotonic() + _TELLING
            for rank in range(self.size):
                self._has(f"ended/{rank}", deadline - time.monotonic())

    # By the process itself, when it ends

    def tell(self, sentence: str) -> None:
        """An error of this process, once: where all ranks met the same one, whoever is first tells it, and the others wait
        until that is done, since a launcher ends all as soon as one has ended."""
        self._telling = True
        rank, first = self._first("failed", sentence)
        if rank != self.rank and first == sentence and self._has("told", _TELLING):
            return
        self.say(f"{self.name}: {sentence}")
        self._set("told", "")

    def tell_lost(self, sentence: str) -> None:
        """Another process is gone. One that had an error has told it; else this says who is missing."""
        self._telling = True
        if self._has("failed", self._interval):  # it sets that before it ends
            self._has("told", _TELLING)
            return
        missing = self._missing()
        who = " and ".join(f"rank {rank}" for rank in missing[:4]) + (" ..." if len(missing) > 4 else "")
        self.tell(f"{who} ended without a word: killed, out of memory, or its machine went down. {_AGAIN}" if missing
                  else sentence)

    def _missing(self) -> list[int]:
        """The ranks that give no sign of life while two lines could have been written."""
        try:
            before = self._lines(self.store)
            time.sleep(4 * self._interval)
            after = self._lines(self.store)
        except RuntimeError:  # the store went with them
            return [0] if self.launcher is None else []
        return [rank for rank in range(self.size) if rank != self.rank and before[rank][0] == after[rank][0]]

    def _first(self, key: str, sentence: str) -> tuple[int, str]:
        """Who was the first to set a key, and to what; without a store this process."""
        value = f"{self.rank} {sentence}"
        with contextlib.suppress(RuntimeError):
            value = self.store.compare_set(key, "", value).decode()
        rank, _, first = value.partition(" ")
        return int(rank), first

    def _set(self, key: str, value: str) -> None:
        with contextlib.suppress(RuntimeError):  # who hosted the store may be gone, and nobody listens
            self.store.set(key, value)

    def _has(self, key: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        try:
            while not self.store.check([key]):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
        except RuntimeError:
            return False
        return True

    # The threads: one talks with the store, the other watches over what needs none

    def _guard(self) -> None:
        while not self._stopped.wait(self._interval):
            if self.launcher is not None and os.getppid() != self.launcher:
                self._end(f"the launcher (torchrun) ended. {_AGAIN}" if self.rank == 0 else None)
            if time.monotonic() - self._answered > self.timeout + _ENDING:
                self._write_stacks(tell=False)
                self._end(f"the run hangs: what rank 0 serves has not answered for {self.timeout:g} s. What this process is at "
                          f"stands in {self.stacks}. {_AGAIN}" if self.rank == 1 else None, wait=False)

    def _talk(self) -> None:
        over_since, failed, gone = None, False, False
        while not self._stopped.wait(self._interval):
            try:
                self._beat()
                failed = self._own.check(["failed"])
                if self._own.check(["hung"]):
                    self._write_stacks()
                    self._end(None)
                elif not failed:
                    self._judge()
            except RuntimeError:
                gone = True
            self._answered = time.monotonic()
            if failed and pulse.state != "works" and not self._telling:  # it waits for one that will not come
                self._end(None)
            over_since = over_since or (time.monotonic() if failed or gone else None)
            if over_since is not None and time.monotonic() - over_since > _ENDING:
                self._end(f"rank 0 is gone, or the launcher. {_AGAIN}" if gone and not self._telling else None)

    def _beat(self) -> None:
        self._ticks += 1
        self._own.set(f"beat/{self.rank}", f"{self._ticks} {pulse.beats} {pulse.state}")

    def _lines(self, store: object) -> list[list[str]]:
        return [line.decode().split() for line in store.multi_get([f"beat/{rank}" for rank in range(self.size)])]

    def _judge(self) -> None:
        """Rank 0 about all; the others about rank 0, which may be what stands still."""
        now = time.monotonic()
        lines = self._lines(self._own) if self.rank == 0 else [self._own.get("beat/0").decode().split()]
        for rank, line in enumerate(lines):
            if rank not in self._seen or self._seen[rank][0][0] != line[0]:
                self._seen[rank] = line, now
        if self.rank:
            if now - self._seen[0][1] > self.timeout + _ENDING:
                self._hang("rank 0 gives no sign of life")
            return
        finished = [line[1] for line in lines]
        if pulse.state == "idle" or finished != self._finished[0]:
            self._finished = finished, now
        if now - self._finished[1] > self.timeout:
            self._hang(self._culprits(lines, now))

    def _culprits(self, lines: list[list[str]], now: float) -> str:
        silent = [rank for rank in range(self.size) if now - self._seen[rank][1] > 4 * self._interval]
        working = [rank for rank, line in enumerate(lines) if line[2] == "works" and rank not in silent]
        what = [f"rank {rank} gives no sign of life" for rank in silent]
        what += [f"rank {rank} is at one piece of work that does not end" for rank in working]
        return " and ".join(what) or "all ranks wait for each other"

    def _hang(self, what: str) -> None:
        verdict = (f"the run hangs: nothing was finished for {self.timeout:g} s, and {what}. What each process is at stands in "
                   f"{self.stacks}. {_AGAIN} If one piece of work may take longer, raise scale.timeout in the recipe.")
        first, _ = self._first("hung", verdict)
        self._write_stacks()
        if first == self.rank:
            for rank in range(self.size):  # as far as they can still write
                self._has(f"stacks/{rank}", _TELLING if rank != self.rank else 0)
            self.say(f"{self.name}: {verdict}")
            self._set("told", "")
        self._end(None)

    def _write_stacks(self, tell: bool = True) -> None:
        try:
            self.stacks.mkdir(parents=True, exist_ok=True)
            with open(self.stacks / f"rank-{self.rank}.txt", "w", encoding="utf-8") as file:
                print(f"{self.name}, process {os.getpid()}, {pulse.state}", file=file, flush=True)
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            self.say(f"{self.name}: its stacks cannot be written ({error.strerror}).")
        if tell:
            self._set(f"stacks/{self.rank}", "")

    def _end(self, sentence: str | None, wait: bool = True) -> None:
        """Ends this process without waiting for what its main thread is at."""
        if sentence is not None:
            self.say(f"{self.name}: {sentence}")
        elif wait:
            self._has("told", _TELLING)
        self._set(f"ended/{self.rank}", "")
        os._exit(1)
