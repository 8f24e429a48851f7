"""Resumable streams: the events of a generation, kept while it runs and for a while after."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from starlette.responses import Response

from spoutnik.serve.errors import ApiError, api_error
from spoutnik.serve.sse import NUMBERED_PING, SSE, EventStreamResponse, StreamFormat, encode_json, number_event

MAX_STREAM_BYTES = 8 << 20  # of one stream; beyond, its first events are dropped
MAX_FINISHED, MAX_FINISHED_BYTES = 1024, 64 << 20  # of all finished streams together


class StreamRecording:
    """The events of one generation."""

    def __init__(self, format: StreamFormat = SSE):
        self.format = format
        self.start = self.size = self.readers = 0  # number of the first event kept; bytes
        self.finished = False
        self.last_used = time.monotonic()  # by a reader or a new event
        self.task: asyncio.Task | None = None
        self._events: deque[bytes] = deque()
        self._waiters: list[asyncio.Future[bool]] = []

    @property
    def end(self) -> int:
        return self.start + len(self._events)

    async def record(self, events: AsyncIterator[str]) -> None:
        """An exception becomes the last event."""
        try:
            async for data in events:
                self._append(data)
        except Exception as error:
            self._append(encode_json(api_error(error).body))
        finally:
            self.finished = True
            self._notify()

    def _append(self, data: str) -> None:
        self._events.append(self.format.write(data))
        self.size += len(self._events[-1])
        while self.size > MAX_STREAM_BYTES:
            self.size -= len(self._events.popleft())
            self.start += 1
        self.last_used = time.monotonic()
        self._notify()

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            _set_result(waiter, True)

    async def follow(self, start: int, ping_seconds: float, numbered: bool) -> AsyncGenerator[bytes]:
        """The events from number `start` on, as many at a time as there are, with pings while there are none. numbered: with
        ids, for clients that will resume."""
        self.readers += 1
        numbered = numbered and self.format.media_type == SSE.media_type
        try:
            while not (self.finished and start >= self.end):
                if start < self.start:
                    yield self.format.write(encode_json(ApiError(404, "the events after this one are forgotten.").body))
                    return
                if start < self.end:
                    events = [self._events[number - self.start] for number in range(start, self.end)]
                    yield b"".join(map(number_event, range(start, self.end), events) if numbered else events)
                    start = self.end
                elif not await self._wait_for_event(ping_seconds):
                    yield NUMBERED_PING if numbered else self.format.ping
        finally:
            self.readers -= 1
            self.last_used = time.monotonic()

    async def _wait_for_event(self, seconds: float) -> bool:
        """False after so many seconds without one. (A future and a timer cost a third of an Event under a timeout.)"""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(seconds, _set_result, waiter, False)
        try:
            return await waiter
        finally:
            timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)


def _set_result(waiter: asyncio.Future[bool], result: bool) -> None:
    if not waiter.done():
        waiter.set_result(result)


class StreamRegistry:
    """The streams that run, and those that finished at most `seconds` ago."""

    def __init__(self, seconds: float, ping_seconds: float):
        self.seconds, self.ping_seconds = seconds, ping_seconds
        self.recordings: dict[str, StreamRecording] = {}
        self._opened, self._evicted = 0, time.monotonic()  # since the last eviction, and when that was

    def open(self, name: str, events: AsyncIterator[str], resumable: bool = False,
             headers: Mapping[str, str] | None = None, format: StreamFormat = SSE) -> EventStreamResponse:
        """Records the events. If the client of this response disconnects, they end, except those of a resumable stream, which
        have numbers."""
        self._opened += 1
        if self._opened > MAX_FINISHED // 8 or time.monotonic() > self._evicted + 1.0:  # not for each of hundreds a second
            self._evict()
        recording = self.recordings[name] = StreamRecording(format)
        recording.task = asyncio.create_task(recording.record(events))
        on_disconnect = None if resumable else recording.task.cancel
        return EventStreamResponse(recording.follow(0, self.ping_seconds, resumable), on_disconnect, headers, format.media_type)

    def resume(self, name: str, start: int) -> Response:
        """From event number `start` on; 204 if it has ended before. Raises ApiError if there is no such stream (any more)."""
        self._evict()
        recording = self.recordings.get(name)
        if recording is None:
            raise ApiError(404, f"id = {name!r}: there is no such stream. It is kept for {self.seconds:g} s after its end.",
                           "id")
        if recording.finished and start >= recording.end:
            return Response(status_code=204)
        return EventStreamResponse(recording.follow(start, self.ping_seconds, True), media_type=recording.format.media_type)

    def _evict(self) -> None:
        """Drops unread streams: those without an event for too long, and the oldest finished ones beyond the limits."""
        self._opened, self._evicted = 0, time.monotonic()
        before = self._evicted - self.seconds
        unread = {name: recording for name, recording in self.recordings.items() if not recording.readers}
        finished = [name for name, recording in unread.items() if recording.finished and recording.last_used >= before]
        size = sum(unread[name].size for name in finished)
        while size > MAX_FINISHED_BYTES or len(finished) > MAX_FINISHED:
            size -= self.recordings.pop(finished.pop(0)).size
        for name, recording in unread.items():
            if recording.last_used < before:
                recording.task.cancel()
                del self.recordings[name]
