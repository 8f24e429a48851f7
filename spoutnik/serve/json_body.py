"""Request bodies of megabytes, which must not stop everybody else.

The event loop, the engine and the clients share one interpreter: a single call into C (a parser, a validator, a tokenizer) that
takes a second is a second in which no stream moves. Large bodies are therefore read in a thread, by code that gives way.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from json.decoder import JSONArray, JSONObject
from json.scanner import py_make_scanner
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi._compat import ModelField
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute

from spoutnik.model.checkpoint import collector_paused
from spoutnik.serve.errors import ApiError

Result = TypeVar("Result")
LARGE_BODY = 128 << 10  # bytes, from which on a body is large; smaller ones take less time than waking a thread
MAX_VALUES = 500_000  # in one body: each takes memory and time that its bytes do not tell
# One at a time: several threads that compute in Python would each hold the interpreter in turn.
_large_requests = ThreadPoolExecutor(1, "large-requests")
_is_large: ContextVar[bool] = ContextVar("is_large", default=False)


async def off_loop(call: Callable[..., Result], *arguments) -> Result:
    """Calls something in a thread; what belongs to large requests waits until that of others is done."""
    if not _is_large.get():
        return await asyncio.to_thread(call, *arguments)
    return await asyncio.get_running_loop().run_in_executor(_large_requests, copy_context().run, call, *arguments)


def parse_json(body: bytes) -> object:
    """As json.loads, but between two values other threads may run, and there is an end to how many values are read.

    Raises:
        ApiError: there are too many. json.JSONDecodeError, UnicodeDecodeError, RecursionError: as json.loads.
    """
    return _CountingDecoder().decode(body.decode(json.detect_encoding(body), "surrogatepass"))


class _CountingDecoder(json.JSONDecoder):
    """The standard library's decoder in Python; texts are read by its C function."""

    def __init__(self):
        super().__init__()
        self._values = 0
        self.parse_array, self.parse_object = self._counted(JSONArray), self._counted(JSONObject)
        self.scan_once = py_make_scanner(self)

    def _counted(self, parse: Callable) -> Callable:
        def parse_and_count(*arguments) -> tuple[list | dict, int]:
            values, end = parse(*arguments)
            self._values += 1 + len(values)
            if self._values > MAX_VALUES:
                raise ApiError(413, f"the body of a request may hold {MAX_VALUES:,} values (texts, numbers, objects, arrays).")
            return values, end

        return parse_and_count


class _JsonRequest(Request):
    """A request whose body, where it is large, comes read and validated."""

    body_field: ModelField

    async def json(self) -> object:
        body = await self.body()
        if len(body) < LARGE_BODY:
            return await super().json()
        _is_large.set(True)
        return await off_loop(self._validated, body)

    def _validated(self, body: bytes) -> object:
        with collector_paused():  # it would walk through all that is being made, again and again, while everybody waits
            parsed = parse_json(body)
            value, errors = self.body_field.validate(parsed, {}, loc=("body",))
        if errors:
            raise RequestValidationError(errors, body=parsed)
        return value


class JsonRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            request = _JsonRequest(request.scope, request.receive)
            request.body_field = self.body_field
            return await handle(request)

        return handle_json


def api_router() -> APIRouter:
    """A router of endpoints that read JSON."""
    return APIRouter(route_class=JsonRoute)
