"""Who may ask what: API keys, hosts, origins, sizes and rates of requests.

Pure ASGI middleware, which passes streams and disconnects through untouched. It logs neither keys nor conversations.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from spoutnik.errors import RunError, UserError
from spoutnik.generation.service import GenerationHandle
from spoutnik.serve.connection import route_path
from spoutnik.serve.content_encoding import decode
from spoutnik.serve.errors import ApiError
from spoutnik.serve.keys import Key, Keys
from spoutnik.serve.login import BrowserLogin
from spoutnik.serve.origins import is_foreign, netloc_and_host, origin_pattern
from spoutnik.serve.settings import Settings

log = logging.getLogger(__name__)
LOGIN_PATHS = ("/login", "/logout")
KEYLESS_PATHS = ("/health", *LOGIN_PATHS)
# The page may load from, and send to, this server alone: a picture in an answer cannot carry a conversation away. (With
# `no-referrer` browsers would hide the origin of our own forms, too, and be taken for somebody else's page.)
SECURITY_HEADERS = [
    (b"content-security-policy", b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
                                 b"form-action 'self'; base-uri 'self'; object-src 'none'"),
    (b"x-frame-options", b"DENY"), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]


def install(app: FastAPI, settings: Settings, keys: Keys) -> None:
    """Tokens count toward a key's limit where `charge` is one of the service's `on_end`."""
    app.add_middleware(AuthMiddleware, settings=settings, keys=keys)
    if settings.cors_origins:  # outside of that: a browser's preflight request has no key
        anywhere = "*" in settings.cors_origins
        app.add_middleware(CORSMiddleware, allow_origins=["*"] if anywhere else (), allow_methods=["*"], allow_headers=["*"],
                           allow_origin_regex=None if anywhere else origin_pattern(settings.cors_origins).pattern,
                           expose_headers=["Retry-After", "X-Request-Id"], allow_private_network=True)


def check_binding(settings: Settings, keys: Keys) -> None:
    """Raises UserError if others could reach the server without a key, nobody could use it, or an origin is none."""
    origin_pattern(settings.cors_origins)
    if any(not key.revoked for key in keys.list()):
        return
    if not is_local(settings):
        raise UserError(f"--host {settings.host}: others could use this server, and there is no API key that stops them. Make "
                        "one with `spoutnik keys add NAME`, or keep to 127.0.0.1.")
    if settings.require_key:
        raise UserError("--require-key: there is no API key yet, so nobody could use this server. Make one with "
                        "`spoutnik keys add NAME`.")


def is_local(settings: Settings) -> bool:
    """Whether only this machine can reach the server."""
    return settings.uds is not None or is_loopback(settings.host)


def is_loopback(host: str) -> bool:
    """Whether a name or an address always means this machine."""
    host = host.lower().strip("[]").rstrip(".")
    try:
        return host == "localhost" or host.endswith(".localhost") or ip_address(host).is_loopback
    except ValueError:
        return False


class TokenBucket:
    """A rate limit of `per_minute`, of which a minute's worth may be used at once. The level may go below zero."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        self.per_minute, self.clock = per_minute, clock
        self.level, self._updated = float(per_minute), clock()

    def wait(self) -> float:
        """Seconds until there is one to take."""
        now = self.clock()
        self.level = min(self.level + (now - self._updated) * self.per_minute / 60, self.per_minute)
        self._updated = now
        return max(1 - self.level, 0) * 60 / self.per_minute

    def take(self, count: int) -> None:
        self.level -= count


@dataclass
class Caller:
    """Whose request it is (key None: the server asks for none), with their rate limits."""

    key: Key | None
    requests: TokenBucket | None
    tokens: TokenBucket | None


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def spend(tokens: int) -> None:
    """Counts tokens for the sender of the current request."""
    if (caller := _caller.get()) is not None and caller.tokens is not None:
        caller.tokens.take(tokens)


def charge(handle: GenerationHandle) -> None:
    """Counts the tokens of a generation that has ended."""
    spend(len(handle.plan.prompt) + sum(choice.generated for choice in handle.job.choices))


class AuthMiddleware:
    """As soon as there is a key, or other machines can reach the server, every request must bring one: in a header, or in the
    cookie of the login page. `request.state.key` is that key, None where none is required."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys, clock: Callable[[], float] = time.monotonic):
        self.app, self.settings, self.keys, self.clock = app, settings, keys, clock
        self.login = BrowserLogin(keys)
        self._key_required = settings.require_key or not is_local(settings)
        self._origins = origin_pattern(settings.cors_origins)
        self._callers: dict[str | None, Caller] = {}

    @property
    def key_required(self) -> bool:
        """Stays true when the last key is revoked: that must not open the server to everybody."""
        self._key_required = self._key_required or bool(self.keys.list())
        return self._key_required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request, app = HTTPConnection(scope), self.app
        try:
            caller = self._authorize(request)
            if scope["type"] == "http":
                send = _with_security_headers(send)
                receive = await _buffer_body(request, receive, self.settings.max_body_bytes)
                app = self.login if route_path(scope) in LOGIN_PATHS else app
        except (ApiError, RunError) as error:
            if isinstance(error, RunError):  # the file of keys
                log.error("%s", error)
                error = ApiError(503, "the server's API keys cannot be read; its log says why.")
            refusal = WebSocketClose(1008) if scope["type"] == "websocket" else error.response(scope)
            await refusal(scope, receive, send)
            return
        token = _caller.set(caller)
        try:
            await app(scope, receive, send)
        finally:
            _caller.reset(token)

    def _authorize(self, request: HTTPConnection) -> Caller | None:
        """Who is asking, None on paths without limits. Raises ApiError if the request may not be served."""
        key_required, path = self.key_required, route_path(request.scope)
        self._check_header_size(request)
        if not key_required:
            _check_host(request)
        if path in KEYLESS_PATHS:
            self._check_origin(request)
            return None
        key = self._find_key(request) if key_required else None
        if key is None or not _secret(request):
            self._check_origin(request)
        request.scope.setdefault("state", {})["key"] = key
        caller = self._find_caller(key)
        if request.scope.get("method") == "POST" and not path.startswith("/_nicegui"):
            _check_rate(caller)
        return caller

    def _check_header_size(self, request: HTTPConnection) -> None:
        size = len(request.scope["path"]) + len(request.scope["query_string"])
        if sum([len(name) + len(value) for name, value in request.scope["headers"]], size) > self.settings.max_header_bytes:
            raise ApiError(431, f"the headers of a request may have {self.settings.max_header_bytes} bytes together.")

    def _find_key(self, request: HTTPConnection) -> Key:
        secret = _secret(request)
        key = self.keys.find(secret) if secret else self.login.find_key(request.cookies)
        if key is not None:
            return key
        if not secret and request.scope["type"] == "http" and "text/html" in request.headers.get("accept", ""):
            query = f"?{request.url.query}" if request.url.query and route_path(request.scope) == "/" else ""
            raise ApiError(303, "log in first.", headers={"location": f"{request.scope.get('root_path', '')}/login{query}"})
        reason = "the API key is unknown, or was revoked" if secret else "this server asks for an API key, and there is none"
        raise ApiError(401, f"{reason}. Send one as `Authorization: Bearer ...`.", headers={"www-authenticate": "Bearer"})

    def _check_origin(self, request: HTTPConnection) -> None:
        """Other sites' pages must use neither an open server nor a login."""
        if is_foreign(request, self._origins):
            raise ApiError(403, f"Origin {request.headers['origin']!r}: pages of others may not use this server. Allow this "
                                "one with --cors-origin (a proxy must pass on the Host header).")

    def _find_caller(self, key: Key | None) -> Caller:
        name = None if key is None else key.name
        caller = self._callers.get(name)
        if caller is None or caller.key != key:
            limits = [getattr(key, limit, None) or getattr(self.settings, limit)
                      for limit in ("requests_per_minute", "tokens_per_minute")]
            caller = Caller(key, *(limit and TokenBucket(limit, self.clock) for limit in limits))
            self._callers[name] = caller
        return caller


def _check_host(request: HTTPConnection) -> None:
    """Against DNS rebinding: another site's name that resolves to this machine, so that its page may read our answers."""
    host = request.headers.get("host", "")
    if not is_loopback(netloc_and_host(f"//{host}")[1]):
        raise ApiError(403, f"Host {host!r}: this server answers to localhost alone. To use it by another name, make an "
                            "API key (`spoutnik keys add NAME`).")


def _check_rate(caller: Caller) -> None:
    for unit, bucket in (("requests", caller.requests), ("tokens", caller.tokens)):
        seconds = 0 if bucket is None else math.ceil(bucket.wait())
        if seconds > 0:
            raise ApiError(429, f"this key may use {bucket.per_minute} {unit} a minute. Try again in {seconds} s.",
                          headers={"Retry-After": str(seconds)})
    if caller.requests is not None:
        caller.requests.take(1)


def _secret(request: HTTPConnection) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


async def _buffer_body(request: HTTPConnection, receive: Receive, max_bytes: int) -> Receive:
    """Reads the body, as every endpoint would, but not beyond the limit, whether or not its length was announced; unpacks it
    where it came compressed."""
    too_large = ApiError(413, f"the body of a request may have {max_bytes} bytes.", headers={"connection": "close"})
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large
    messages, size, more = [], 0, True
    while more:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        more = messages[-1].get("more_body", False)
        if size > max_bytes:
            raise too_large
    if codings := _codings(request):
        body = b"".join(message.get("body", b"") for message in messages)
        body = await asyncio.to_thread(decode, body, codings, max_bytes)
        messages = [{"type": "http.request", "body": body}]
        request.scope["headers"] = [header for header in request.scope["headers"]
                                    if header[0] not in (b"content-encoding", b"content-length", b"transfer-encoding")]
        request.scope["headers"].append((b"content-length", str(len(body)).encode()))
    messages.reverse()

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _codings(request: HTTPConnection) -> list[str]:
    """What was done to the body: by the client, then on its way."""
    values = [*request.headers.getlist("content-encoding"), *request.headers.getlist("transfer-encoding")]
    codings = [coding.strip().lower() for coding in ",".join(values).split(",")]
    return [coding for coding in codings if coding not in ("", "chunked", "identity")]


def _with_security_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
        await send(message)

    return send_with_headers
