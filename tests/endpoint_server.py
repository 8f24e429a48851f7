"""An OpenAI-compatible endpoint on this machine that answers as a test tells it to."""

import http.server
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """status, body and headers of one answer. cut: the connection breaks after half of the body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def completion(text: str | None, finish_reason: str = "stop", **message: object) -> Answer:
    """A chat completion as the API's reference shows it; `message`: more entries of the message."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    return Answer(200, json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode())


def failure(status: int, message: str, **headers: str) -> Answer:
    return Answer(status, json.dumps({"error": {"message": message}}).encode(), headers)


class EndpointServer(http.server.ThreadingHTTPServer):
    """respond: gives the answer to a request's body. requests: (headers, body) of each, in the order of their arrival.
    most_at_once: how many were under way together at most."""

    daemon_threads = True

    def __init__(self, respond: Callable[[dict], Answer]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.requests: list[tuple[dict, dict]] = []
        self.most_at_once = self.under_way = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: object, address: object) -> None:
        """A client that has gone is no error: it gives up what it no longer wants."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, address)


@contextmanager
def endpoint_server(respond: Callable[[dict], Answer] | list[Answer]) -> Iterator[EndpointServer]:
    """respond: a function of the request, or the answers one after the other."""
    if isinstance(respond, list):
        answers = iter(respond)
        server = EndpointServer(lambda body: next(answers))
    else:
        server = EndpointServer(respond)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EndpointServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.under_way += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.under_way)
            self.server.requests.append(({"path": self.path, **self.headers}, body))
        answer = self.server.respond(body)
        with self.server.lock:
            self.server.under_way -= 1
        self.send_response(answer.status)
        for name, value in (answer.headers | {"Content-Length": str(len(answer.body))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(answer.body[:len(answer.body) // 2] if answer.cut else answer.body)
        self.close_connection = answer.cut

    def log_message(self, *_) -> None:
        pass
