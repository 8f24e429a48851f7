"""What the protocol keeps before any app is called has an end."""

import asyncio
import socket
import threading
import time

import pytest
import uvicorn

from spoutnik.serve.http_limits import limited_protocol

START = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
HEADER = b"X-Long: " + b"x" * 100 + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


async def app(scope, receive, send):
    """Says how long the body is."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"%6d" % size})


@pytest.fixture(scope="module")
def ask():
    """ask(bytes): what the server answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=limited_protocol(1000), lifespan="off", log_level="critical"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()

    def answer(request):
        with socket.create_connection(listener.getsockname(), timeout=20) as connection:
            try:
                connection.sendall(request)
                return connection.makefile("rb").read()
            except (ConnectionResetError, BrokenPipeError):  # cut off while it was still talking
                return b""

    while not server.started:
        time.sleep(0.01)
    yield answer
    server.should_exit = True
    thread.join(20)


def test_bodies_may_be_long_and_headers_not_too_long(ask):
    assert ask(START + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000).endswith(b"  5000")
    assert ask(START + HEADER * 5 + b"Content-Length: 0\r\n\r\n").endswith(b"     0")
    assert ask(START + CHUNKED + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n").endswith(b"  2000")


@pytest.mark.parametrize("endless", [HEADER * 5000, CHUNKED + b"1;" + b"x" * 500_000, CHUNKED + b"0\r\n" + HEADER * 5000])
def test_what_has_no_end_is_cut_off(ask, endless):
    assert not ask(START + endless).startswith(b"HTTP/1.1 200")
