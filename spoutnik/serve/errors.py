"""What goes wrong, as clients of the API expect to hear it: {"error": {"message", "type", "param", "code"}}."""

import logging
import re
import traceback
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spoutnik.errors import RunError, UserError
from spoutnik.generation.options import ContextOverflow
from spoutnik.generation.service import Busy

log = logging.getLogger("spoutnik.serve")
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 500: "internal_error", 503: "service_unavailable"}
KINDS = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ApiError(Exception):
    """A refusal. param: the field it is about."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None,
                 headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code or CODES.get(status), headers

    @property
    def object(self) -> dict:
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.object, self.status, self.headers)


class ErrorDetails(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: ErrorDetails


ANY = (400, 401, 404, 413, 415, 429, 503)


def may_fail(*statuses: int) -> dict[int | str, dict]:
    """These statuses, for the OpenAPI document."""
    said = {400: "The request is wrong", 401: "The API key is missing or wrong", 404: "There is no such thing",
            409: "It is not possible now", 413: "The request is too large", 415: "The body is not JSON",
            429: "Too many requests: try again after Retry-After seconds", 503: "The model cannot be used now"}
    return {status: {"model": ErrorBody, "description": said[status]} for status in statuses}


def api_error(error: Exception) -> ApiError:
    """Whatever was raised, as a refusal."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error.errors(), error.body)
        case ContextOverflow():
            return ApiError(400, str(error), _param(str(error)), "context_length_exceeded")
        case UserError():
            return ApiError(400, str(error), _param(str(error)))
        case Busy():
            return ApiError(429, str(error), headers={"Retry-After": str(error.retry_after)})
        case RunError():
            return ApiError(503, str(error))
        case HTTPException(status_code=400) if isinstance(error.__cause__, (RecursionError, UnicodeDecodeError)):
            return api_error(error.__cause__)  # the body could not be read, and FastAPI does not say why
        case HTTPException():
            return ApiError(error.status_code, str(error.detail), headers=error.headers)
        case UnicodeDecodeError():
            return ApiError(400, f"the body is not text in UTF-8 (byte {error.start}).")
        case UnicodeEncodeError():  # JSON can spell what no text can hold
            return ApiError(400, "the request holds half a character (a lone surrogate).")
        case RecursionError():
            return ApiError(400, "the request is nested too deeply.")
    # The message may hold what a user wrote: the log gets the places alone.
    log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__, -8)))
    return ApiError(500, "the server made a mistake; its log says where.")


def _param(message: str) -> str | None:
    """Our sentences begin with the key that they are about."""
    found = re.match(r"([a-z_][\w.\[\]]*)(?: = |: )", message)
    return found and found[1]


def _invalid(errors: Sequence[dict], body: object) -> ApiError:
    """The first field that is wrong. Where a value may be of several kinds, each kind complains by itself."""
    if errors[0]["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {errors[0]['ctx']['error']} (character {errors[0]['loc'][-1]}).")
    paths = [_path(error, body) for error in errors]
    said = dict.fromkeys(error["msg"].removeprefix("Value error, ") for error, path in zip(errors, paths)
                         if path[:len(paths[0])] == paths[0])
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in paths[0]).lstrip(".")
    return ApiError(400, f"{param or 'body'}: {'; or: '.join(said)}.", param or None)


def _path(error: dict, value: object) -> list[str | int]:
    """Where an error is: the parts of its place that lead through the value; others are names of kinds."""
    path, place = [], error["loc"][1:]
    for number, part in enumerate(place, start=1):
        missing = error["type"] == "missing" and number == len(place)
        if isinstance(value, dict) and (part in value or missing):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        elif error["loc"][0] == "body":
            continue
        path.append(part)
    return path


def install(app: FastAPI) -> None:
    """Last of all middleware, so that it is outside of the others."""
    async def answer(request: Request, error: Exception) -> JSONResponse:
        return api_error(error).response

    for kind in (ApiError, UserError, RunError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
    app.add_middleware(Unexpected)


class Unexpected:
    """Middleware: what nobody has foreseen is an error object too, and the server goes on."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as error:
            refusal = api_error(error)
            if started:  # too late to say so: the connection must break, without the error's text in the log
                raise RuntimeError("a response was given up") from None
            await refusal.response(scope, receive, send)
