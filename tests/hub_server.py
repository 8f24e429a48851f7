"""A hub on this machine, with the parts of its protocol that fetching a model uses: file list, headers, ranges of bytes."""

import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMIT = "1" * 40


class HubServer(http.server.ThreadingHTTPServer):
    """repositories: "org/model" -> folder of files. ranges: the ranges of bytes that were asked for, by file. cut_after: breaks
    the connection after so many bytes of a weights' file, once for each entry. sends_ranges: otherwise each answer is a whole
    file. gates: waits after so many bytes of one, each once, until `open_gate`."""

    def __init__(self, repositories: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.ranges: list[tuple[str, str | None]] = []
        self.cut_after: list[int] = []
        self.sends_ranges = True
        self.gates: set[int] = set()
        self.gate_reached, self._gate = threading.Event(), threading.Event()

    def open_gate(self) -> None:
        self._gate.set()

    def wait_at_gate(self) -> None:
        self.gate_reached.set()
        self._gate.wait(60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub_server(repositories: dict[str, Path]) -> Iterator[HubServer]:
    server = HubServer(repositories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path):
            return self._json(match[1], tree=match[2] == "tree", body=body)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(match[1], match[3], body)
        return self._error(404, "RepoNotFound")

    def _json(self, repository: str, tree: bool, body: bool) -> None:
        folder = self.server.repositories.get(repository)
        if folder is None:
            return self._error(401 if body else 404, "RepoNotFound")
        files = sorted(file for file in folder.iterdir())
        if tree:
            answer = [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _etag(file)} for file in files]
        else:
            answer = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}
        return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, repository: str, name: str, body: bool) -> None:
        folder = self.server.repositories.get(repository)
        if folder is None or not (folder / name).exists():
            return self._error(404, "RepoNotFound" if folder is None else "EntryNotFound")
        content = (folder / name).read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(folder / name)}"', "Accept-Ranges": "bytes"}
        asked, status = self.headers.get("Range"), 200
        if body and name.endswith(".safetensors"):
            self.server.ranges.append((name, asked))
        if asked and self.server.sends_ranges and (match := re.fullmatch(r"bytes=(\d+)-", asked)):
            headers["Content-Range"] = f"bytes {match[1]}-{len(content) - 1}/{len(content)}"
            content, status = content[int(match[1]):], 206
        weights = body and name.endswith(".safetensors")
        cut = self.server.cut_after.pop(0) if weights and self.server.cut_after else None
        gate = self.server.gates.pop() if weights and self.server.gates else None
        return self._send(status, content, headers, body, cut, gate)

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, body=True)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool, cut: int | None = None,
              gate: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if gate is not None:
            self.wfile.write(content[:gate])
            self.server.wait_at_gate()
            self.wfile.write(content[gate:])
        elif body:
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.close_connection = True


def _etag(file: Path) -> str:
    """As the hub's: of large files their SHA-256, of others one of git's, with which this has only the length in common."""
    content = file.read_bytes()
    return (hashlib.sha256 if file.suffix == ".safetensors" else hashlib.sha1)(content).hexdigest()
