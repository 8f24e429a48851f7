"""The door: who may come in, how often, and with how much.

Pure ASGI, in front of everything: it looks at headers, and hands streams and disconnections through untouched. It writes no
log: neither keys nor what people say can end up in one.
"""

import logging
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spoutnik.errors import RunError, UserError
from spoutnik.generation.service import GenerationHandle
from spoutnik.serve.errors import ApiError
from spoutnik.serve.keys import Key, Keys
from spoutnik.serve.login import Logins
from spoutnik.serve.settings import LOOPBACK, Settings

log = logging.getLogger(__name__)
OPEN = ("/health", "/login")  # to those without a key
# The page may load from, and send to, nothing but this server: a picture in an answer cannot carry a question away.
PROTECTION = [
    (b"content-security-policy", b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
                                 b"form-action 'self'; base-uri 'self'; object-src 'none'"),
    (b"x-frame-options", b"DENY"), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


def install(app: FastAPI, settings: Settings, keys: Keys) -> None:
    """Puts the door before an app. Its tokens are counted where `charge` is one of the service's `on_end`."""
    app.add_middleware(Guard, settings=settings, keys=keys)
    if settings.cors_origins:  # outermost: a browser asks without a key whether it may ask
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"],
                           expose_headers=["Retry-After"])


def check_binding(settings: Settings, keys: Keys) -> None:
    """Raises UserError where the server could be reached by others without a key, or by nobody."""
    if any(not key.revoked for key in keys.list()):
        return
    if not is_loopback(settings.host):
        raise UserError(f"--host {settings.host}: others could use this server, and there is no API key that stops them. Make "
                        "one with `spoutnik keys add NAME`, or keep to 127.0.0.1.")
    if settings.require_key:
        raise UserError("--require-key: there is no API key yet, so nobody could use this server. Make one with "
                        "`spoutnik keys add NAME`.")


def is_loopback(host: str) -> bool:
    """Does a name or an address mean this machine, and can nobody else say so?"""
    host = host.lower().strip("[]").rstrip(".")
    try:
        return host in LOOPBACK or host.endswith(".localhost") or ip_address(host).is_loopback
    except ValueError:
        return False


class Bucket:
    """So many a minute, of which a minute's worth may be taken at once. What is taken beyond that is waited for."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        self.per_minute, self.clock = per_minute, clock
        self.level, self._filled = float(per_minute), clock()

    def wait(self) -> float:
        """Seconds until there is one to take."""
        now = self.clock()
        self.level = min(self.level + (now - self._filled) * self.per_minute / 60, self.per_minute)
        self._filled = now
        return max(1 - self.level, 0) * 60 / self.per_minute

    def take(self, count: int) -> None:
        self.level -= count


@dataclass
class Caller:
    """Whose request it is (key None: the server asks for none) and what is left to them."""

    key: Key | None
    requests: Bucket | None
    tokens: Bucket | None


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def spend(tokens: int) -> None:
    """Counts tokens for whoever sent the request that is being served."""
    caller = _caller.get()
    if caller is not None and caller.tokens is not None:
        caller.tokens.take(tokens)


def charge(handle: GenerationHandle) -> None:
    """The same for a reply that has ended."""
    spend(len(handle.plan.prompt) + sum(choice.generated for choice in handle.job.choices))


class Guard:
    """As soon as there is a key, or other machines can reach the server, every request must bring one: in a header, or in the
    cookie that the login page gives. `request.state.key` is that key, None where none is asked for."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys, clock: Callable[[], float] = time.monotonic):
        self.app, self.settings, self.keys, self.clock = app, settings, keys, clock
        self.logins = Logins(keys)
        self._locked = settings.require_key or not is_loopback(settings.host)
        self._callers: dict[str | None, Caller] = {}

    @property
    def locked(self) -> bool:
        """Stays so when the last key is revoked: that must not open the door."""
        self._locked = self._locked or bool(self.keys.list())
        return self._locked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request, app = HTTPConnection(scope), self.app
        try:
            caller = self._admit(request)
            if scope["type"] == "http":
                send = _protecting(send)
                receive = await _whole_body(request, receive, self.settings.max_body_bytes)
                app = self.logins if scope["path"] == "/login" else app
        except RunError as error:  # the file of keys
            log.error("%s", error)
            await _answer(ApiError(503, "the server's API keys cannot be read; its log says why."), scope, receive, send)
            return
        except ApiError as refused:
            await _answer(refused, scope, receive, send)
            return
        token = _caller.set(caller)
        try:
            await app(scope, receive, send)
        finally:
            _caller.reset(token)

    def _admit(self, request: HTTPConnection) -> Caller | None:
        """Raises ApiError where the headers are enough for that; None: nobody's limits are touched."""
        locked, path = self.locked, request.scope["path"]
        self._check_size_and_name(request, locked)
        if path in OPEN:
            self._refuse_foreign(request)
            return None
        key = self._key(request) if locked else None
        if key is None or not _secret(request):
            self._refuse_foreign(request)
        request.scope.setdefault("state", {})["key"] = key
        caller = self._caller_with(key)
        if request.scope.get("method") == "POST" and not path.startswith("/_nicegui"):
            _keep_to_rate(caller)
        return caller

    def _check_size_and_name(self, request: HTTPConnection, locked: bool) -> None:
        size = len(request.scope["path"]) + len(request.scope["query_string"])
        if sum([len(name) + len(value) for name, value in request.scope["headers"]], size) > self.settings.max_header_bytes:
            raise ApiError(431, f"the headers of a request may have {self.settings.max_header_bytes} bytes together.")
        host = request.headers.get("host", "")
        if not locked and not is_loopback(_split(f"//{host}")[1]):
            # Somebody's own name that was made to mean this machine: their page would be the one that asks.
            raise ApiError(403, f"Host {host!r}: this server answers to localhost alone. To use it by another name, make an "
                                "API key (`spoutnik keys add NAME`).")

    def _key(self, request: HTTPConnection) -> Key:
        """Raises ApiError where there is none that is known."""
        secret = _secret(request)
        key = self.keys.find(secret) if secret else self.logins.key(request.cookies)
        if key is not None:
            return key
        if not secret and request.scope["type"] == "http" and "text/html" in request.headers.get("accept", ""):
            raise ApiError(303, "log in first.", headers={"location": "/login"})
        said = "the API key is unknown, or was revoked" if secret else "this server asks for an API key, and there is none"
        raise ApiError(401, f"{said}. Send one as `Authorization: Bearer ...`.", headers={"www-authenticate": "Bearer"})

    def _refuse_foreign(self, request: HTTPConnection) -> None:
        """Browsers say whose page a request comes from. Those of others must use neither an open server nor a login."""
        origin, allowed = request.headers.get("origin"), self.settings.cors_origins
        if origin is None or "*" in allowed or origin in allowed:
            return
        if _split(origin)[0] != request.headers.get("host", "").lower():
            raise ApiError(403, f"Origin {origin!r}: pages of others may not use this server. Allow this one with "
                                "--cors-origin (a proxy must pass on the Host header).")

    def _caller_with(self, key: Key | None) -> Caller:
        name = None if key is None else key.name
        known = self._callers.get(name)
        if known is None or known.key != key:
            own, all_ = key or self.settings, self.settings
            known = self._callers[name] = Caller(key, self._bucket(own.requests_per_minute or all_.requests_per_minute),
                                                 self._bucket(own.tokens_per_minute or all_.tokens_per_minute))
        return known

    def _bucket(self, per_minute: int | None) -> Bucket | None:
        return None if per_minute is None else Bucket(per_minute, self.clock)


def _keep_to_rate(caller: Caller) -> None:
    for what, bucket in (("requests", caller.requests), ("tokens", caller.tokens)):
        seconds = 0 if bucket is None else math.ceil(bucket.wait())
        if seconds > 0:
            raise ApiError(429, f"this key may use {bucket.per_minute} {what} a minute. Try again in {seconds} s.",
                          headers={"Retry-After": str(seconds)})
    if caller.requests is not None:
        caller.requests.take(1)


def _secret(request: HTTPConnection) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _split(url: str) -> tuple[str, str]:
    """Name with port, and name alone; empty where it is no address."""
    try:
        return urlsplit(url).netloc.lower(), urlsplit(url).hostname or ""
    except ValueError:
        return "", ""


async def _whole_body(request: HTTPConnection, receive: Receive, most: int) -> Receive:
    """Reads the body, as every endpoint would, but no more of it than is allowed, whether or not its length was announced."""
    refused = ApiError(413, f"the body of a request may have {most} bytes.", headers={"connection": "close"})
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise refused
    messages, size, more = [], 0, True
    while more:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        more = messages[-1].get("more_body", False)
        if size > most:
            raise refused
    messages.reverse()

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _protecting(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *PROTECTION]
        await send(message)

    return sending


async def _answer(refused: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    await refused.response(scope, receive, send)
