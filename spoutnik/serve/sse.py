"""Server-sent events, and clients that disconnect."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from spoutnik.serve.errors import ApiError

Result = TypeVar("Result")
# A comment, which clients ignore. Once they have seen an id, OpenAI's take each blank line for an event: no blank line there.
PING, NUMBERED_PING = b": ping\n\n", b": ping\n"
LINE_ENDS = frozenset("\x85\u2028\u2029")  # beside those that JSON escapes
ESCAPES = {ord(end): f"\\u{ord(end):04x}" for end in LINE_ENDS}
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # so that proxies do not buffer
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # json.dumps would build one at each call


def format_event(data: str) -> bytes:
    """data: its text; of a named event, `event: NAME` and, on the next line, `data: TEXT`."""
    return f"{data if data.startswith('event: ') else f'data: {data}'}\n\n".encode()


def number_event(number: int, event: bytes) -> bytes:
    return b"id: %d\n%b" % (number, event)


@dataclass(frozen=True)
class StreamFormat:
    """How a stream is written. write: an event's text, as `format_event` takes it, as bytes. ping: what is sent while there is
    nothing to say."""

    media_type: str
    write: Callable[[str], bytes]
    ping: bytes


SSE = StreamFormat("text/event-stream", format_event, PING)


def encode_json(data: dict) -> str:
    """JSON on one line, also for clients that split lines at more than a line feed (Python's splitlines)."""
    text = _ENCODER.encode(data)
    return text if LINE_ENDS.isdisjoint(text) else text.translate(ESCAPES)


async def wait_for_disconnect(receive: Receive) -> None:
    """Call it when the request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def cancel_on_disconnect(receive: Receive, work: Coroutine[object, object, Result]) -> Result:
    """The work's result. If the client disconnects before, the work is cancelled and ApiError raised: nobody will read it."""
    working, disconnect = asyncio.create_task(work), asyncio.create_task(wait_for_disconnect(receive))
    try:
        await asyncio.wait({working, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client hung up.")
        return working.result()
    finally:
        working.cancel()
        disconnect.cancel()


class EventStreamResponse(Response):
    """Sends chunks of encoded events as they come. on_disconnect: called when the client disconnects before the end."""

    def __init__(self, chunks: AsyncGenerator[bytes], on_disconnect: Callable[[], object] | None = None,
                 headers: Mapping[str, str] | None = None, media_type: str = SSE.media_type):
        self.chunks, self.on_disconnect, self.media_type = chunks, on_disconnect, media_type
        self.status_code, self.background = 200, None
        self.init_headers({**HEADERS, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await cancel_on_disconnect(receive, self._send(send))
        except BaseException as error:
            if self.on_disconnect is not None:
                self.on_disconnect()
            if not isinstance(error, ApiError):  # the disconnect itself
                raise

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self.chunks):
            async for chunk in self.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
