"""Many clients that stream chat completions, in a process of their own: raw sockets, and as little reading as will do.

    python benchmarks/streaming_client.py < request      (serve_load.py calls it)

request: JSON with host, port, bodies (of requests), clients, seconds; of streams to be cut off: cuts, how many. Prints JSON:
what came, and this process's own processor time, since it shares the cores with the server that it measures.
"""

import asyncio
import json
import random
import re
import statistics
import sys
import time

_TOKENS = re.compile(rb'"completion_tokens":(\d+)')
_CONTENT = re.compile(rb'"content":"(?!")')  # something, not the empty text of the first event
_END = b"\r\n0\r\n\r\n"  # of a body in chunks


class Stream(asyncio.Protocol):
    """One connection, one request at a time. What comes is kept as it is and looked at once, at the end."""

    def __init__(self):
        self.pieces: list[bytes] = []
        self.first = self.latest = self.longest = 0.0  # moments of the first and the latest piece; the longest wait between two
        self.over: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[bool]:
        """Done when all of the answer is there: False where the server hung up."""
        self.pieces.clear()
        self.began, self.first, self.longest = time.perf_counter(), 0.0, 0.0
        self.over = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.over

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.first:
            self.first = now
        elif now - self.latest > self.longest:
            self.longest = now - self.latest
        self.latest = now
        self.pieces.append(data)
        if data.endswith(b"0\r\n\r\n") and not self.over.done() and b"".join(self.pieces[-2:]).endswith(_END):
            self.over.set_result(True)

    def connection_lost(self, _: Exception | None) -> None:
        if self.over is not None and not self.over.done():
            self.over.set_result(False)


class Load:
    """All clients together."""

    def __init__(self, request: dict):
        self.host, self.port, self.clients = request["host"], request["port"], request["clients"]
        self.requests = [self._request(body) for body in request["bodies"]]
        self.counts, self.tokens, self.bytes, self.events = [0] * self.clients, 0, 0, 0
        self.errors: list[str] = []
        self.firsts: list[float] = []
        self.waits: list[float] = []
        self.lengths: list[float] = []

    def _request(self, body: dict) -> bytes:
        text = json.dumps(body).encode()
        return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(text)}\r\n\r\n").encode() + text

    async def connect(self) -> Stream:
        return (await asyncio.get_running_loop().create_connection(Stream, self.host, self.port))[1]

    async def one(self, number: int, until: float) -> None:
        stream = await self.connect()
        while time.monotonic() < until:
            place = number + self.clients * self.counts[number]
            ended = await stream.ask(self.requests[place % len(self.requests)])
            self._read(stream, ended)
            self.counts[number] += 1
            if not ended:
                stream = await self.connect()
        stream.transport.close()

    def _read(self, stream: Stream, ended: bool) -> None:
        response = b"".join(stream.pieces)
        tokens = _TOKENS.search(response)
        if not ended or b" 200 " not in response[:20] or tokens is None:
            self.errors.append(response[:20].decode(errors="replace") + " ... " + response[-300:].decode(errors="replace"))
            return
        if not _CONTENT.search(response):
            self.errors.append("no answer")
        self.tokens += int(tokens[1])
        self.bytes += len(response)
        self.events += response.count(b"\ndata: ")
        self.firsts.append(stream.first - stream.began)
        self.waits.append(max(stream.longest, stream.first - stream.began))
        self.lengths.append(stream.latest - stream.began)

    async def load(self, seconds: float) -> dict:
        """Everybody asks again and again until the time is over; whatever has begun is read to its end."""
        began = time.perf_counter()
        await asyncio.gather(*(self.one(number, time.monotonic() + seconds) for number in range(self.clients)))
        elapsed = time.perf_counter() - began
        return {"seconds": elapsed, "tokens": self.tokens, "replies": sum(self.counts), "fewest_of_a_client": min(self.counts),
                "errors": len(self.errors), "first_error": self.errors[0] if self.errors else "", "events": self.events,
                "bytes": self.bytes, "seconds_to_first_event": statistics.median(self.firsts or [0.0]),
                "longest_wait": max(self.waits, default=0.0), "seconds_of_a_reply": statistics.median(self.lengths or [0.0]),
                "client_cpu_seconds": time.process_time()}

    async def cut_off(self, count: int) -> dict:
        """So many streams, each cut off at a random moment, `clients` at a time."""
        draw, left = random.Random(0), iter(range(count))

        async def one() -> None:
            for number in left:
                stream = await self.connect()
                over = stream.ask(self.requests[number % len(self.requests)])
                await asyncio.wait([over], timeout=draw.uniform(0, 0.05))
                stream.transport.abort()

        await asyncio.gather(*(one() for _ in range(self.clients)))
        return {"cut_off": count}


def main() -> None:
    request = json.load(sys.stdin)
    load = Load(request)
    work = load.cut_off(request["cuts"]) if request.get("cuts") else load.load(request["seconds"])
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
