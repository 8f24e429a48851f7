"""Server-sent events, and clients that hang up."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from spoutnik.serve.errors import ApiError

Result = TypeVar("Result")
PING = b": ping\n\n"  # a comment: a sign of life that no client reads
ENDS = frozenset("\x85\u2028\u2029")  # beside those that JSON escapes
ESCAPED = {ord(end): f"\\u{ord(end):04x}" for end in ENDS}
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # no proxy shall wait for more


def event(number: int, data: str) -> bytes:
    """data: its text; of an event with a name, `event: NAME` and, on the next line, `data: TEXT`."""
    return f"id: {number}\n{data if data.startswith('event: ') else f'data: {data}'}\n\n".encode()


_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # json.dumps would make one at each call


def compact(data: dict) -> str:
    """JSON on one line, in the eyes of clients too that take more than a line feed for the end of one (Python's splitlines)."""
    text = _COMPACT.encode(data)
    return text if ENDS.isdisjoint(text) else text.translate(ESCAPED)


async def gone(receive: Receive) -> None:
    """Returns when the client has hung up. The request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[object, object, Result]) -> Result:
    """What the work returns; it is cancelled where the client hangs up before.

    Raises:
        ApiError: then; nobody will read it.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(gone(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client hung up.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


class EventStream(Response):
    """Sends pieces as they come. cut: called when the client hangs up before the end."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes], cut: Callable[[], None], headers: Mapping[str, str]):
        self.pieces, self.cut = pieces, cut
        self.status_code, self.background = 200, None
        self.init_headers({**HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending, leaving = asyncio.create_task(self._send(send)), asyncio.create_task(gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not sending.done() or sending.cancelled() or sending.exception() is not None:
                self.cut()
            sending.cancel()
            leaving.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self.pieces):
            async for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
