"""Errors, in the form of the API that was asked: OpenAI's {"error": {"message", "type", "param", "code"}}, Anthropic's
{"type": "error", "error": {"type", "message"}} and Ollama's {"error": message}."""

import logging
import re
import sys
import traceback
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spoutnik.errors import RunError, UserError, hide_paths
from spoutnik.generation.delta import UNUSABLE, Delta
from spoutnik.generation.options import ContextOverflow
from spoutnik.generation.service import Busy
from spoutnik.serve.api.schemas import ErrorResponse, Schema
from spoutnik.text.tokenizer import TextTooLong

log = logging.getLogger("spoutnik.serve")
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 500: "internal_error", 503: "service_unavailable"}
TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
ANTHROPIC_PATH = re.compile(r"(/v1)?/messages(/|$)")
ANTHROPIC_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
                   429: "rate_limit_error", 500: "api_error", 503: "overloaded_error"}
MAX_MESSAGE = 2000  # characters: it may quote what was sent
GENERATION_ERRORS = (400, 401, 404, 413, 415, 429, 503)


class ApiError(Exception):
    """A request that is answered with an error. param: the field it is about."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None,
                 headers: dict[str, str] | None = None):
        message = hide_paths(message[:MAX_MESSAGE])
        super().__init__(message if len(message) < MAX_MESSAGE else f"{message} ...")
        self.status, self.param, self.code, self.headers = status, param, code or CODES.get(status), headers

    @property
    def body(self) -> dict:
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def anthropic_body(self) -> dict:
        message = str(self)
        if self.code == "context_length_exceeded":  # the words by which Claude Code knows that it must compact
            message = f"prompt is too long: {message}"
        kind = ANTHROPIC_TYPES.get(self.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}

    @property
    def ollama_body(self) -> dict:
        return {"error": str(self)}

    def response(self, scope: Scope) -> JSONResponse:
        """In the form of the API that the request's path belongs to."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        sent_by_anthropic = any(name == b"anthropic-version" for name, _ in scope.get("headers", ()))
        if ANTHROPIC_PATH.match(path) or sent_by_anthropic and not path.startswith("/api/"):
            body = self.anthropic_body
        else:
            body = self.ollama_body if path.startswith("/api/") else self.body
        return JSONResponse(body, self.status, self.headers)


BODY_ERRORS = (ApiError, RequestValidationError, RecursionError, UnicodeDecodeError)


def error_responses(*statuses: int, model: type[Schema] = ErrorResponse) -> dict[int | str, dict]:
    """These statuses, for the OpenAPI document."""
    return {status: {"model": model} for status in statuses}


def api_error(error: Exception) -> ApiError:
    """Any exception as the error that the client gets."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _validation_error(error.errors(), error.body)
        case UserError():
            code = "context_length_exceeded" if isinstance(error, ContextOverflow | TextTooLong) else None
            return ApiError(400, str(error), _param(str(error)), code)
        case Busy():
            return ApiError(429, str(error), headers={"Retry-After": str(error.retry_after)})
        case RunError():
            return ApiError(503, str(error))
        case HTTPException(status_code=400) if isinstance(error.__cause__, BODY_ERRORS):
            return api_error(error.__cause__)  # the body could not be read, and FastAPI does not say why
        case HTTPException(status_code=400) if isinstance(error.__cause__, ValueError):
            digits = sys.get_int_max_str_digits()  # Python's limit, whose own sentence names a function of Python
            reason = f"a number in it has more than {digits} digits" if "digits" in str(error.__cause__) else error.__cause__
            return ApiError(400, f"the body cannot be read: {reason}.")
        case HTTPException():
            return ApiError(error.status_code, str(error.detail), headers=error.headers)
        case UnicodeDecodeError():
            return ApiError(400, f"the body is not text in UTF-8 (byte {error.start}).")
        case UnicodeEncodeError():  # JSON can spell what no text can hold
            return ApiError(400, "the request holds half a character (a lone surrogate).")
        case RecursionError():
            return ApiError(400, "the request is nested too deeply.")
    # The message may hold what a user wrote: only the traceback's places are logged.
    log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__, -8)))
    return ApiError(500, "the server made a mistake; its log says where.")


def raise_if_failed(deltas: Sequence[Delta]) -> None:
    """Raises ApiError if a generation ended without an answer."""
    for delta in deltas:
        if delta.finish_reason == "abort":
            raise ApiError(503, "the reply was given up: the server is shutting down.")
        if delta.finish_reason == "error":
            status = 503 if str(delta.stop_reason).startswith(UNUSABLE) else 500
            raise ApiError(status, f"the reply was given up: {delta.stop_reason}", code="engine_error")


def _param(message: str) -> str | None:
    """The field that a message of ours begins with."""
    match = re.match(r"([a-z_][\w.\[\]]*)(?: = |: )", message)
    return match and match[1]


def _validation_error(errors: Sequence[dict], body: object) -> ApiError:
    """The first wrong field. pydantic reports each type of a union by itself: their messages are joined."""
    if errors[0]["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {errors[0]['ctx']['error']} (character {errors[0]['loc'][-1]}).")
    paths = [_field_path(error, body) for error in errors]
    messages = dict.fromkeys("is unknown here; leave it out" if error["type"] == "extra_forbidden"
                             else error["msg"].removeprefix("Value error, ") for error, path in zip(errors, paths)
                             if path[:len(paths[0])] == paths[0])
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in paths[0]).lstrip(".")
    return ApiError(400, f"{param or 'body'}: {'; or: '.join(messages)}.", param or None)


def _field_path(error: dict, value: object) -> list[str | int]:
    """The parts of an error's location that lead through the value; the others name types of a union."""
    path, location = [], error["loc"][1:]
    for number, part in enumerate(location, start=1):
        missing = error["type"] == "missing" and number == len(location)
        if isinstance(value, dict) and (part in value or missing):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        elif error["loc"][0] == "body":
            continue
        path.append(part)
    return path


def install(app: FastAPI) -> None:
    """Call it after all other middleware is added, so that this one is the outermost."""
    async def respond(request: Request, error: Exception) -> JSONResponse:
        return api_error(error).response(request.scope)

    for kind in (ApiError, UserError, RunError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, respond)
    app.add_middleware(UnexpectedErrors)


class UnexpectedErrors:
    """Middleware: an exception that nothing else handles is an error response too."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_noting_start)
        except Exception as error:
            response = api_error(error).response(scope)
            if started:  # too late for a status: the connection must break, without the error's text in the log
                raise RuntimeError("a response was given up") from None
            await response(scope, receive, send)
