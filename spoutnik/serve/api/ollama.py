"""Ollama's `/api/chat` and `/api/generate`: an object of JSON on each line of a stream."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import MutableHeaders

from spoutnik.errors import UserError
from spoutnik.generation.completion import Completions
from spoutnik.generation.service import ServedModel
from spoutnik.generation.tools.calls import whole_calls
from spoutnik.serve.api import completions
from spoutnik.serve.api.chat import ChatChunkBuilder, ChatReply
from spoutnik.serve.api.chat_request import plan_of
from spoutnik.serve.api.common import Reply, Serving, State, iso_time, warning_field
from spoutnik.serve.api.completions import CompletionReply, CompletionRequest
from spoutnik.serve.api.logprobs import chat_logprobs
from spoutnik.serve.api.ollama_request import FIELD_NAMES, OllamaChatRequest, OllamaGenerateRequest, OllamaRequest, Options
from spoutnik.serve.api.schemas import Schema, TokenLogprob
from spoutnik.serve.api.translation import plan_fitting, rename_fields, renamed_notes
from spoutnik.serve.errors import GENERATION_ERRORS, api_error, error_responses
from spoutnik.serve.json_body import JsonRoute, off_loop
from spoutnik.serve.sse import StreamFormat, cancel_on_disconnect, encode_json


class OllamaRoute(JsonRoute):
    """Ollama's documentation has its users send JSON that is declared as a form, which browsers, too, would send unasked: it is
    read where no browser sends it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            if {"origin", "sec-fetch-site"}.isdisjoint(request.headers.keys()):
                MutableHeaders(scope=request.scope)["content-type"] = "application/json"
            return await handle(request)

        return handle_json


router = APIRouter(route_class=OllamaRoute)


class OllamaError(Schema):
    error: str


class Timed(Schema):
    """What both endpoints answer with, durations in nanoseconds. Our own fields come last."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load"] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[TokenLogprob] | None = None
    warning: str | None = None
    applied: dict[str, Any] | None = None


class OllamaToolCall(Schema):
    class Function(Schema):
        index: int
        name: str
        arguments: dict[str, Any]

    id: str
    function: Function


class OllamaMessage(Schema):
    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaToolCall] | None = None


class OllamaChat(Timed):
    message: OllamaMessage


class OllamaGenerated(Timed):
    response: str
    thinking: str | None = None


ollama_errors = partial(error_responses, model=OllamaError)


def responses(model: type[Schema]) -> dict[int | str, dict]:
    return ollama_errors(*GENERATION_ERRORS) | {
        200: {"model": model, "content": {"application/x-ndjson": {}}, "description": "The answer, or its stream of lines"}}


@router.post("/chat", responses=responses(OllamaChat))
async def chat(body: OllamaChatRequest, request: Request, serving: State) -> Response:
    return await cancel_on_disconnect(request.receive, create(body, serving, ChatLines))


@router.post("/generate", responses=responses(OllamaGenerated))
async def generate(body: OllamaGenerateRequest, request: Request, serving: State) -> Response:
    return await cancel_on_disconnect(request.receive, create(body, serving, GenerateLines))


async def create(body: OllamaChatRequest | OllamaGenerateRequest, serving: Serving, lines: type["Lines"]) -> Response:
    began = time.perf_counter()
    served = await serving.model(body.model)
    load_seconds = time.perf_counter() - began
    shape = lines(body.model or served.id)
    if body.is_empty:
        return JSONResponse(shape.line({}, done=True, done_reason="load"))
    reply = await off_loop(_plan, body, served)
    warnings = (body.options or Options()).warnings(served)
    return await OllamaReply(body, reply(serving), shape, warnings, load_seconds).respond(serving.streams)


def _plan(body: OllamaChatRequest | OllamaGenerateRequest,
          served: ServedModel) -> Callable[[Serving], ChatReply | CompletionReply]:
    """What starts the reply."""
    asked, name = body.for_chat, f"ollama-{secrets.token_hex(12)}"
    try:
        if isinstance(asked, CompletionRequest):
            prompts, plan = completions.plan_of(asked, served)
            return lambda serving: CompletionReply(
                asked, prompts, serving.service.generate(served, plan, name, Completions))
        asked, plan, options = (asked, *plan_of(asked, served)) if body.truncate is False else plan_fitting(asked, served)
        return lambda serving: ChatReply(asked, plan, options, serving.service.generate(served, plan, name))
    except UserError as error:
        raise rename_fields(error, FIELD_NAMES) from error


class Lines:
    """How what is new of an answer is written. model: under the name that the client used."""

    model_class: type[Timed]

    def __init__(self, model: str):
        self.model = model

    def line(self, fields: dict, done: bool = False, **more) -> dict:
        """fields: content, thinking, tool_calls, logprobs."""
        logprobs = {"logprobs": fields["logprobs"]} if "logprobs" in fields else {}
        body = self.body({name: value for name, value in fields.items() if name != "logprobs"})
        return {"model": self.model, "created_at": iso_time(time.time()), **body, "done": done, **logprobs, **more}

    def body(self, fields: dict) -> dict:
        raise NotImplementedError


class ChatLines(Lines):
    model_class = OllamaChat

    def body(self, fields: dict) -> dict:
        return {"message": {"role": "assistant", "content": "", **fields}}


class GenerateLines(Lines):
    model_class = OllamaGenerated

    def body(self, fields: dict) -> dict:
        return {"response": fields.get("content", ""), **({"thinking": fields["thinking"]} if "thinking" in fields else {})}


class OllamaReply(Reply):
    def __init__(self, body: OllamaRequest, reply: ChatReply | CompletionReply, lines: Lines, warnings: list[str],
                 load_seconds: float):
        super().__init__(reply.body, reply.handle)
        self.request, self.reply, self.lines, self.load_seconds = body, reply, lines, load_seconds
        self.warnings = [*warnings, *renamed_notes(reply.handle.plan, FIELD_NAMES)]
        # A client reads each line as JSON: what keeps the connection alive is one that adds nothing.
        self.stream_format = StreamFormat("application/x-ndjson", lambda line: f"{line}\n".encode(),
                                          f"{encode_json(lines.line({}))}\n".encode())

    async def complete(self) -> Timed:
        parts = [fields async for fields in self._fields()]
        whole: dict[str, Any] = {"content": ""}
        for fields in parts:
            for name, value in fields.items():
                whole[name] = whole[name] + value if name in whole else value
        return self.lines.model_class(**self.lines.line(whole, **self._end))

    async def events(self) -> AsyncIterator[str]:
        try:
            async for fields in self._fields():
                yield encode_json(self.lines.line(fields))
            yield encode_json(self.lines.line({}, **self._end))
        except Exception as error:  # the stream has begun: its status can no longer tell
            yield encode_json(api_error(error).ollama_body)

    async def _fields(self) -> AsyncIterator[dict]:
        """What is new: content, thinking, tool_calls (whole ones), logprobs."""
        builder = ChatChunkBuilder(self.body, self.served) if isinstance(self.reply, ChatReply) else None
        calls = CallCollector()
        async for delta in self.reply.deltas():
            self.warnings += map(str, delta.warnings)
            given = {"content": delta.answer} if builder is None else builder.feed(delta)
            fields = {"content": given.get("content"), "thinking": given.get("reasoning_content"),
                      "tool_calls": calls.feed(given.get("tool_calls", []))}
            if self.request.logprobs:
                fields["logprobs"] = chat_logprobs(self.served.tokenizer, delta.ids, delta.top_logprobs,
                                                   self.request.top_logprobs or 0)
            if fields := {name: value for name, value in fields.items() if value}:
                yield fields

    @property
    def _end(self) -> dict:
        """The fields of the last line."""
        usage, timings = self.reply.usage, self.reply.timings
        reason = "length" if self.reply.replies[0].finish_reason == "length" else "stop"
        prompt, answer = (max(round(1e6 * ms), 1) for ms in (timings.prompt_ms, timings.predicted_ms))
        load = round(1e9 * self.load_seconds)
        return {"done": True, "done_reason": reason, "total_duration": load + prompt + answer, "load_duration": load,
                "prompt_eval_count": usage.prompt_tokens, "prompt_eval_duration": prompt,
                "eval_count": usage.completion_tokens, "eval_duration": answer, **warning_field(self.warnings),
                **self.reply.applied_field}


class CallCollector:
    """Collects calls of tools until they are whole: Ollama's clients do not put pieces together."""

    def __init__(self):
        self._deltas: list[dict] = []
        self._delivered = 0

    def feed(self, deltas: list[dict]) -> list[dict]:
        """deltas: of a chat completion. Returns the calls that are whole now."""
        if not deltas:
            return []
        self._deltas += deltas
        start, calls = self._delivered, whole_calls(self._deltas)
        self._delivered = len(calls)
        return [{"id": call["id"], "function": {"index": index, "name": call["function"]["name"],
                                                "arguments": json.loads(call["function"]["arguments"])}}
                for index, call in enumerate(calls[start:], start)]


def ollama_name(name: str) -> str:
    """With a tag, which Ollama's clients expect."""
    return name if ":" in name else f"{name}:latest"
