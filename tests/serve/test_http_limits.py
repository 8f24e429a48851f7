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
    """ask(*packets): what the server answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=limited_protocol(1000), lifespan="off", log_level="critical"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()

    def answer(*packets):
        with socket.create_connection(listener.getsockname(), timeout=20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for packet in packets:
                    connection.sendall(packet)
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


@pytest.mark.parametrize("offer", [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n",  # Java, curl
    b"Upgrade: TLS/1.0\r\nConnection: upgrade\r\n", b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket-x\r\n"])
@pytest.mark.parametrize("body, size", [(b"Content-Length: 3000\r\n\r\n" + b"x" * 3000, 3000), (b"\r\n", 0),
                                        (CHUNKED + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n", 2000)])
@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_offers_of_other_protocols_are_ignored_and_the_body_is_read(ask, offer, body, size, piece):
    """However the bytes are cut into packets; and the connection goes on."""
    host = b"POST / HTTP/1.1\r\nHost: a\r\n"
    first, last = host + offer + body, host + b"Connection: close\r\nContent-Length: 4\r\n\r\nlast"
    sent = first + last
    answers = ask(*(sent[place:place + piece] for place in range(0, len(sent), piece)))
    assert [int(answer) for answer in answers.split(b"HTTP/1.1 200 OK")[1:] for answer in [answer[-6:]]] == [size, 4]


def test_a_client_that_waits_until_its_body_is_wanted(ask):
    answer = ask(START + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", b"later")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n") and answer.endswith(b"     5")


def test_a_client_that_takes_it_for_a_proxy(ask):
    assert ask(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 400")
