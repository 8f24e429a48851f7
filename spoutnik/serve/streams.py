"""Streams that can be read again: the events of a reply, numbered, while it is made and for a while after."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from spoutnik.serve.errors import ApiError, api_error
from spoutnik.serve.sse import PING, EventStream, compact, event

MOST_BYTES = 8 << 20  # of one stream; beyond, its beginning is forgotten
KEPT, KEPT_BYTES = 1024, 64 << 20  # of streams that are over, all together


class Recording:
    """One reply's events. resumable: it goes on when its reader hangs up. over: nothing follows. touched: when it last had a
    reader or an event."""

    def __init__(self, name: str, resumable: bool):
        self.name, self.resumable = name, resumable
        self.first = self.size = self.readers = 0  # number of the first event that is kept; bytes
        self.over = False
        self.touched = time.monotonic()
        self.task: asyncio.Task | None = None
        self._events: deque[bytes] = deque()
        self._waiting: list[asyncio.Future[bool]] = []  # for news

    @property
    def end(self) -> int:
        return self.first + len(self._events)

    async def record(self, texts: AsyncIterator[str]) -> None:
        """What goes wrong is the last event."""
        try:
            async for text in texts:
                self._add(text)
        except Exception as error:
            self._add(compact(api_error(error).object))
        finally:
            self.over = True
            self._tell()

    def _add(self, text: str) -> None:
        self._events.append(event(self.end, text))
        self.size += len(self._events[-1])
        while self.size > MOST_BYTES:
            self.size -= len(self._events.popleft())
            self.first += 1
        self.touched = time.monotonic()
        self._tell()

    def _tell(self) -> None:
        """Those who wait go on."""
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            _settle(news, True)

    async def follow(self, start: int, ping_seconds: float) -> AsyncGenerator[bytes]:
        """The events from number `start` on, as many at a time as there are, with pings while there are none."""
        self.readers += 1
        try:
            while not (self.over and start >= self.end):
                if start < self.first:
                    yield event(start, compact(ApiError(404, "the events after this one are forgotten.").object))
                    return
                if start < self.end:
                    yield b"".join(self._events[i - self.first] for i in range(start, self.end))
                    start = self.end
                elif not await self._something(ping_seconds):
                    yield PING
        finally:
            self.readers -= 1
            self.touched = time.monotonic()

    async def _something(self, seconds: float) -> bool:
        """Has something come in so many seconds? (A future and a timer: a third of what an Event under a timeout costs, for
        every event of every stream.)"""
        loop = asyncio.get_running_loop()
        news = loop.create_future()
        self._waiting.append(news)
        silence = loop.call_later(seconds, _settle, news, False)
        try:
            return await news
        finally:
            silence.cancel()
            if news in self._waiting:
                self._waiting.remove(news)


def _settle(news: asyncio.Future[bool], come: bool) -> None:
    if not news.done():
        news.set_result(come)


class Streams:
    """Those under way, and those that were over not long ago. seconds: how long they are kept."""

    def __init__(self, seconds: float, ping_seconds: float):
        self.seconds, self.ping_seconds = seconds, ping_seconds
        self.recordings: dict[str, Recording] = {}
        self._opened, self._looked = 0, time.monotonic()  # since when it was last looked what is to be forgotten

    def open(self, name: str, texts: AsyncIterator[str], resumable: bool = False,
             headers: Mapping[str, str] | None = None) -> EventStream:
        """Starts to take down what comes; the response to the one who asked for it, and who cuts it off by hanging up."""
        self._opened += 1
        if self._opened > KEPT // 8 or time.monotonic() > self._looked + 1.0:  # not for each of hundreds a second
            self._forget()
        recording = self.recordings[name] = Recording(name, resumable)
        recording.task = asyncio.create_task(recording.record(texts))
        return self._response(recording, 0, headers or {}, owner=True)

    def resume(self, name: str, start: int) -> EventStream:
        """From event number `start` on.

        Raises:
            ApiError: there is no such stream (any more).
        """
        self._forget()
        if name not in self.recordings:
            raise ApiError(404, f"id = {name!r}: there is no such stream. It is kept for {self.seconds:g} s after its end.",
                           "id")
        return self._response(self.recordings[name], start, {})

    def _response(self, recording: Recording, start: int, headers: Mapping[str, str], owner: bool = False) -> EventStream:
        def cut() -> None:
            if owner and not recording.resumable:
                recording.task.cancel()

        return EventStream(recording.follow(start, self.ping_seconds), cut, headers)

    def _forget(self) -> None:
        """What is over for too long, or more than may be kept; and replies that nobody reads and that say nothing (they are
        paused)."""
        self._opened, self._looked = 0, time.monotonic()
        before = self._looked - self.seconds
        for recording in list(self.recordings.values()):
            if recording.touched < before and not recording.readers:
                recording.task.cancel()
                del self.recordings[recording.name]
        over = [recording for recording in self.recordings.values() if recording.over and not recording.readers]
        size = sum(recording.size for recording in over)
        for number, recording in enumerate(over):
            if size <= KEPT_BYTES and len(over) - number <= KEPT:
                break
            size -= recording.size
            del self.recordings[recording.name]
