"""What lies between clients and endpoints besides authentication: reverse proxies, HEAD, and a server that still starts."""

import re

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from spoutnik.generation.service import GenerationService
from spoutnik.serve.errors import ApiError

PREFIX = re.compile(r"(/[\w.~-]+)+")  # of a path alone: never of another host
RETRY_SECONDS = 2
PATHS_BEFORE_START = ("/health", "/version", "/metrics")
STARTING_PAGE = """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="{seconds}"><title>Spoutnik</title>
<style>:root{{color-scheme:light dark;font-family:system-ui}}body{{display:grid;place-items:center;min-height:90vh}}</style>
<p role="status">{text}</p>"""
STARTING = {"en": "The model is being read. This page comes by itself.",
            "fr": "Le modèle est en cours de lecture. La page s’affichera d’elle-même."}


class ReverseProxy:
    """Middleware for a server that a proxy offers below a path. That path, the setting's or else what the proxy says in
    X-Forwarded-Prefix, becomes the scope's `root_path`, whether or not the proxy cuts it off from the paths it passes on."""

    def __init__(self, app: ASGIApp, root_path: str = ""):
        self.app, self.root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
            prefix = self.root_path or (forwarded[0].rstrip("/") if forwarded else "")
            if PREFIX.fullmatch(prefix):
                scope["root_path"] = prefix
                if not f"{scope['path']}/".startswith(f"{prefix}/"):
                    scope["path"], scope["raw_path"] = prefix + scope["path"], prefix.encode() + scope.get("raw_path", b"")
            # NiceGUI would put it before the root path once more.
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"x-forwarded-prefix"]
        await self.app(scope, receive, send)


class HeadRequests:
    """Middleware: HEAD is answered as GET would be, without the body."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if not ended:
                await send(message)
            if message["type"] == "http.response.start":
                ended = True
                await send({"type": "http.response.body", "body": b""})

        async def receive_until_end() -> Message:
            return {"type": "http.disconnect"} if ended else await receive()

        await self.app({**scope, "method": "GET"}, receive_until_end, send_head)


class Starting:
    """Middleware: while the server reads its first model, clients are asked to come again."""

    def __init__(self, app: ASGIApp, service: GenerationService):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.service.starting and scope["type"] == "websocket":
            await WebSocketClose(1013)(scope, receive, send)
        elif self.service.starting and scope["type"] == "http" and route_path(scope) not in PATHS_BEFORE_START:
            await _starting_response(scope)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _starting_response(scope: Scope) -> ASGIApp:
    request, retry = HTTPConnection(scope), {"Retry-After": str(RETRY_SECONDS)}
    if "text/html" in request.headers.get("accept", ""):
        language = preferred_language(request)
        return HTMLResponse(STARTING_PAGE.format(seconds=RETRY_SECONDS, text=STARTING[language]), 503,
                            retry | {"Cache-Control": "no-store", "Content-Language": language})
    return ApiError(503, "the model is being read. Try again in a few seconds.", code="loading", headers=retry).response(scope)


def preferred_language(request: HTTPConnection) -> str:
    """Of the server's own small pages: en, or fr."""
    return "fr" if request.headers.get("accept-language", "").lower().startswith("fr") else "en"


def route_path(scope: Scope) -> str:
    """The path below the root path."""
    return scope["path"].removeprefix(scope.get("root_path", "")) or "/"
