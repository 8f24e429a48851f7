"""A client of OpenAI-compatible chat completions: models that are evaluated or asked to judge, over HTTP.

The key is read from an environment variable when a request is sent. It is in no message, result or representation, and a
server that repeats it has it struck out. Redirections are not followed: the key would go with them.
"""

import asyncio
import json
import math
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import httpx

from spoutnik.endpoint_wire import EndpointReply, Failure, read_reply, retry_after, server_message
from spoutnik.errors import RunError, UserError

_REFUSED = ("HTTP 400", "HTTP 413", "HTTP 422")
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # 529: overloaded, at some providers
LONGEST_PAUSE = 300.0  # seconds: an endpoint that asks for more has no room today
LARGEST_REPLY = 64 << 20  # bytes
_WONDERED_AT, _TOLD_AGAIN = 4.0, 10.0  # seconds: of a pause that is told, and between two such sentences


@dataclass(frozen=True)
class EndpointRequest:
    """One conversation and how its next message is sampled. None leaves the choice to the endpoint.

    messages: {"role", "content"} each. max_tokens: of the whole reply, thought included. top_logprobs: how many of the
    likeliest tokens to report in each place; endpoints that know no such thing are asked without.
    """

    messages: Sequence[dict[str, str]]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


class RequestRefused(RunError):
    """A request that the endpoint does not answer for what is in it: too long, or against its rules. Others it may answer."""


@dataclass
class Endpoint:
    """A model behind an address.

    Args:
        base_url: up to and without /chat/completions, for instance http://127.0.0.1:8000/v1.
        model: the name that the endpoint knows it by.
        key_variable: the environment variable that holds the key; None sends none.
        timeout: seconds for one whole attempt.
        retries: further attempts after one that failed for a reason that may pass (no connection, busy, garbage).
        backoff: seconds before the first of them; each pause is twice the one before, and up to half as long again by chance.
        sleep: waits so many seconds; tests pass another one.
    """

    base_url: str
    model: str
    key_variable: str | None = None
    timeout: float = 600.0
    retries: int = 6
    backoff: float = 1.0
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)

    def __post_init__(self) -> None:
        self.base_url = _checked_address(self.base_url)
        self._limit_name = "max_tokens"  # newer models of OpenAI's take another word and say so
        self._knows_logprobs = True
        self._told = -math.inf
        self._key()

    async def complete(self, messages: Sequence[dict[str, str]], *, temperature: float | None = None,
                       top_p: float | None = None, max_tokens: int | None = None, seed: int | None = None,
                       stop: tuple[str, ...] = ()) -> EndpointReply:
        """The model's next message. Raises RunError with the reason where none comes."""
        async with self._client(1) as client:
            return await self._reply(client, EndpointRequest(messages, temperature, top_p, max_tokens, seed, stop))

    def complete_all(self, requests: Sequence[EndpointRequest], concurrency: int = 8,
                     on_reply: Callable[[int, EndpointReply], None] | None = None,
                     on_refused: Callable[[int, RequestRefused], None] | None = None) -> list[EndpointReply | None]:
        """The replies to many requests, in their order.

        Args:
            concurrency: requests under way at one time.
            on_reply: called with (index, reply) in this thread as each arrives, so that what is paid for can be kept.
            on_refused: called with (index, reason) where the endpoint refuses one for what is in it; its reply is None.
                Without it that is an error like others.

        Raises:
            RunError: one of them failed in the end. The others are given up; `on_reply` has had those that arrived.
        """
        if concurrency < 1:
            raise UserError(f"concurrency = {concurrency}: must be at least 1.")
        return asyncio.run(self._complete_all(requests, concurrency, on_reply, on_refused))

    async def _complete_all(self, requests: Sequence[EndpointRequest], concurrency: int,
                            on_reply: Callable[[int, EndpointReply], None] | None,
                            on_refused: Callable[[int, RequestRefused], None] | None) -> list[EndpointReply | None]:
        replies: list[EndpointReply | None] = [None] * len(requests)
        waiting = iter(enumerate(requests))

        async def work(client: httpx.AsyncClient) -> None:
            for index, request in waiting:
                try:
                    replies[index] = await self._reply(client, request)
                except RequestRefused as refusal:
                    if on_refused is None:
                        raise
                    on_refused(index, refusal)
                    continue
                if on_reply is not None:
                    on_reply(index, replies[index])

        async with self._client(concurrency) as client:
            workers = [asyncio.ensure_future(work(client)) for _ in range(min(concurrency, len(requests)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return replies

    async def _reply(self, client: httpx.AsyncClient, request: EndpointRequest) -> EndpointReply:
        """The reply to one request, after as many attempts as it takes."""
        attempt, pause = 1, self.backoff
        while True:
            sent = self._limit_name, self._knows_logprobs
            try:
                body = await asyncio.wait_for(self._attempt(client, request), self.timeout)
                return read_reply(body, attempt)
            except TimeoutError:
                failure = Failure(f"no whole answer within {self.timeout:g} s", transient=True)
            except httpx.HTTPError as error:
                failure = Failure(f"{_kind(error)}: {str(error) or type(error).__name__}", transient=True)
            except Failure as error:
                failure = error
            if self._wants_other_words(failure, request, *sent):
                continue
            if not failure.transient or attempt > self.retries or (failure.pause or 0) > LONGEST_PAUSE:
                raise self._error(failure, attempt)
            wait = max(failure.pause or 0.0, pause * (1 + random.random() / 2))
            self._tell(failure, attempt, wait)
            await self.sleep(wait)
            attempt, pause = attempt + 1, min(2 * pause, 60.0)

    async def _attempt(self, client: httpx.AsyncClient, request: EndpointRequest) -> bytes:
        """The body of one answer with a good status."""
        key = self._key()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        async with client.stream("POST", f"{self.base_url}/chat/completions", content=self._body(request),
                                 headers=headers) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LARGEST_REPLY:
                    raise Failure(f"the answer is larger than {LARGEST_REPLY >> 20} MiB", transient=False)
        if response.status_code == 200:
            return bytes(body)
        reason = f"HTTP {response.status_code}{server_message(bytes(body))}"
        transient = response.status_code in TRANSIENT and b"insufficient_quota" not in body
        raise Failure(reason, transient, retry_after(response.headers.get("retry-after", "")))

    def _body(self, request: EndpointRequest) -> bytes:
        settings = {"temperature": request.temperature, "top_p": request.top_p, self._limit_name: request.max_tokens,
                    "seed": request.seed, "stop": list(request.stop) or None}
        if request.top_logprobs and self._knows_logprobs:
            settings |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        body = {"model": self.model, "messages": list(request.messages), "stream": False,
                **{name: value for name, value in settings.items() if value is not None}}
        return json.dumps(body).encode()  # escaped: half a surrogate pair in a prompt has no UTF-8

    def _wants_other_words(self, failure: Failure, request: EndpointRequest, limit_name: str, logprobs: bool) -> bool:
        """Whether the endpoint knows the limit by its newer name, which is used from here on, or no log-probabilities, which it
        is then not asked for. limit_name, logprobs: what this attempt said; others under way may have been taught meanwhile."""
        if request.max_tokens is not None and limit_name == "max_tokens" and "max_completion_tokens" in failure.reason:
            self._limit_name = "max_completion_tokens"
            return True
        if request.top_logprobs and logprobs and "logprobs" in failure.reason:
            self._knows_logprobs = False
            return True
        return False

    def _tell(self, failure: Failure, attempt: int, wait: float) -> None:
        """Says why it waits, where that takes long enough to be wondered at; of many requests at once, now and then."""
        now = time.monotonic()
        if wait >= _WONDERED_AT and now - self._told >= _TOLD_AGAIN:
            self._told = now
            again = f"Asked again in {wait:.0f} s (attempt {attempt + 1} of {self.retries + 1})."
            print(f"{self.base_url}, model {self.model}: {self._without_key(failure.reason)}. {again}", file=sys.stderr)

    def _without_key(self, text: str) -> str:
        key = self._key()
        return text.replace(key, "***") if key else text

    def _error(self, failure: Failure, attempts: int) -> RunError:
        reason = self._without_key(failure.reason)
        if failure.pause and failure.pause > LONGEST_PAUSE:
            reason += f"; it asks to wait {failure.pause:.0f} s"
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        kind = RequestRefused if reason.startswith(_REFUSED) else RunError
        return kind(f"{self.base_url}, model {self.model}: {reason}{tries}. {_remedy(reason, self.key_variable)}")

    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise UserError(f"{self.key_variable}: this environment variable, which should hold the key of {self.base_url}, is "
                            "not set. Set it, or name another one.")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(f"{self.key_variable}: the key in this environment variable has spaces or characters that no "
                            "HTTP header may have. Correct it.")
        return key

    def _client(self, connections: int) -> httpx.AsyncClient:
        try:
            return httpx.AsyncClient(timeout=self.timeout, limits=httpx.Limits(max_connections=connections))
        except (ValueError, ImportError) as error:
            raise UserError(f"The proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used: {error}. Correct the "
                            "variable, or unset it.") from error


def _checked_address(base_url: str) -> str:
    """The address without a slash at its end. Raises UserError for one that is none, or that holds a password."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"{base_url!r} is no address of an endpoint. Give one like http://127.0.0.1:8000/v1.")
    if url.userinfo or url.query or url.fragment:
        raise UserError(f"The address of the endpoint at {url.host} has a password, a query or a fragment in it, and would be "
                        "shown with it. Leave them out and name the environment variable that holds the key.")
    return base_url.strip().rstrip("/").removesuffix("/chat/completions")


def _kind(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectError):
        return "no connection"
    return "the connection timed out" if isinstance(error, httpx.TimeoutException) else "the connection broke"


def _remedy(reason: str, key_variable: str | None) -> str:
    """What helps, by the reason's kind."""
    if reason.startswith(("HTTP 401", "HTTP 403")):
        return f"Correct the key in {key_variable}." if key_variable else "Name the environment variable that holds the key."
    if reason.startswith("HTTP 404"):
        return "Correct the address, which usually ends in /v1, or the model's name."
    if reason.startswith("HTTP 3"):
        return "The endpoint has moved: give its new address."
    if reason.startswith("HTTP 429"):
        return "Ask for fewer requests at one time, or try again later."
    if reason.startswith("no connection"):
        return "Start the endpoint, or correct its address."
    if reason.startswith("HTTP 4"):
        return "Correct the request: the prompt, the limit of tokens or a sampling setting does not suit this model."
    return "Try again, or look into the endpoint's log."
