"""A real server on a free port of the loopback, in a thread of the tests."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

PATIENCE = 30  # seconds, for a server that was told to end


@contextmanager
def listening(app) -> Iterator[str]:
    """Its address. A server that does not end when it is told to fails the test, and never keeps the tests from ending."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"the server has not ended after {PATIENCE} s"
