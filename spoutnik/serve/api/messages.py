"""Anthropic's `/v1/messages`: thought, answer and calls of tools are blocks of one message's content."""

import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import Response

from spoutnik.errors import UserError
from spoutnik.generation.options import GenerationOptions, GenerationPlan, render_chat
from spoutnik.generation.service import ServedModel
from spoutnik.serve.api.chat import ChatChunkBuilder, ChatReply
from spoutnik.serve.api.chat_request import ChatRequest, plan_of
from spoutnik.serve.api.common import Reply, Serving, State, warning_field
from spoutnik.serve.api.messages_request import FIELD_NAMES, CountTokensRequest, MessagesRequest
from spoutnik.serve.api.schemas import Schema
from spoutnik.serve.api.translation import rename_fields, renamed_notes
from spoutnik.serve.errors import GENERATION_ERRORS, api_error, error_responses
from spoutnik.serve.json_body import api_router, off_loop
from spoutnik.serve.sse import SSE, cancel_on_disconnect, encode_json, format_event

router = api_router()
MAX_COUNT = 200_000  # tokens that are counted for a model that reads fewer
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class AnthropicError(Schema):
    class Error(Schema):
        type: str
        message: str

    type: Literal["error"]
    error: Error
    request_id: None


class OutputTokensDetails(Schema):
    thinking_tokens: int


class MessageUsage(Schema):
    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails


class AnthropicMessage(Schema):
    """Anthropic's message. Our own fields come last."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"] | None
    stop_sequence: str | None
    usage: MessageUsage
    context_management: dict[str, Any] | None = None
    warning: str | None = None
    applied: dict[str, Any] | None = None


class TokenCount(Schema):
    input_tokens: int


anthropic_errors = partial(error_responses, model=AnthropicError)


@router.post("/messages", responses=anthropic_errors(*GENERATION_ERRORS) | {
    200: {"model": AnthropicMessage, "content": {"text/event-stream": {}}, "description": "A message, or its events"}})
async def messages(body: MessagesRequest, request: Request, serving: State) -> Response:
    return await cancel_on_disconnect(request.receive, create(body, serving))


async def create(body: MessagesRequest, serving: Serving) -> Response:
    served = await serving.model(body.model)
    chat, plan, options, warnings = await off_loop(_plan, body, served)
    handle = serving.service.generate(served, plan, f"msg_{secrets.token_hex(12)}")
    return await MessageReply(body, ChatReply(chat, plan, options, handle), warnings).respond(serving.streams)


def _plan(body: MessagesRequest, served: ServedModel) -> tuple[ChatRequest, GenerationPlan, GenerationOptions, list[str]]:
    chat, warnings = body.for_chat
    try:
        return chat, *plan_of(chat, served), warnings
    except UserError as error:
        raise rename_fields(error, FIELD_NAMES) from error


@router.post("/messages/count_tokens", responses=anthropic_errors(400, 401, 404, 413, 415))
async def count_tokens(body: CountTokensRequest, serving: State) -> TokenCount:
    return TokenCount(input_tokens=await off_loop(_count, body, serving.find_model(body.model)))


def _count(body: CountTokensRequest, served: ServedModel) -> int:
    chat, _ = body.for_chat
    try:
        options = GenerationOptions(tools=chat.tool_set, enable_thinking=chat.enable_thinking)
        most = max(served.max_model_len, MAX_COUNT)
        return len(render_chat(served.tokenizer, chat.template_messages, options, most).ids)
    except UserError as error:
        raise rename_fields(error, FIELD_NAMES) from error


class MessageReply(Reply):
    stream_format = replace(SSE, ping=format_event('event: ping\ndata: {"type": "ping"}'))

    def __init__(self, body: MessagesRequest, chat: ChatReply, warnings: list[str]):
        super().__init__(chat.body, chat.handle)
        self.request, self.chat, self.warnings = body, chat, [*warnings, *renamed_notes(chat.plan, FIELD_NAMES)]
        self.content = Content(omit_thinking=body.thinking is not None and body.thinking.display == "omitted")
        self.finish_reason: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"request-id": self.id}

    async def complete(self) -> AnthropicMessage:
        async for _ in self._content_events():
            pass
        self.content.drop_unfinished_call()
        return AnthropicMessage(**self._head | self._end | {"content": self.content.blocks, "usage": self._usage}, **self._more)

    async def events(self) -> AsyncIterator[str]:
        """An error is an event, too: the stream has begun, and its status can no longer tell."""
        try:
            async for event in self._events():
                yield f"event: {event['type']}\ndata: {encode_json(event)}"
        except Exception as error:
            yield f"event: error\ndata: {encode_json(api_error(error).anthropic_body)}"

    async def _events(self) -> AsyncIterator[dict]:
        yield {"type": "message_start", "message": self._head | {"usage": self._usage}}
        yield {"type": "ping"}
        async for event in self._content_events():
            yield event
        yield {"type": "message_delta", "delta": self._end, "usage": self._usage, **self._more}
        yield {"type": "message_stop"}

    async def _content_events(self) -> AsyncIterator[dict]:
        builder = ChatChunkBuilder(self.chat.body, self.served)
        async for delta in self.chat.deltas():
            self.warnings += map(str, delta.warnings)
            for event in self.content.add(builder.feed(delta)):
                yield event
        for event in self.content.close():
            yield event
        self.finish_reason = builder.finish_reason

    @property
    def _head(self) -> dict:
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.served.id, "content": [],
                "stop_reason": None, "stop_sequence": None}

    @property
    def _end(self) -> dict:
        reason, stop = STOP_REASONS[self.finish_reason], self.replies[0].stop_reason
        if reason == "end_turn" and stop is not None and stop in (self.request.stop_sequences or ()):
            return {"stop_reason": "stop_sequence", "stop_sequence": stop}
        return {"stop_reason": reason, "stop_sequence": None}

    @property
    def _usage(self) -> dict:
        """input_tokens: without those that were in the cache."""
        usage = self.chat.usage
        cached = usage.prompt_tokens_details.cached_tokens
        return {"input_tokens": usage.prompt_tokens - cached, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached, "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"thinking_tokens": usage.completion_tokens_details.reasoning_tokens}}

    @property
    def _more(self) -> dict:
        asked = (self.request.model_extra or {}).get("context_management")
        edits = {"context_management": {"applied_edits": []}} if asked else {}
        return edits | warning_field(self.warnings) | self.chat.applied_field


class Content:
    """The blocks of a message, and the events of the stream that builds them. The last block is open until the next one
    begins. omit_thinking: its blocks stay empty."""

    def __init__(self, omit_thinking: bool = False):
        self.blocks: list[dict] = []
        self.omit_thinking = omit_thinking
        self._open = False
        self._text = ""  # of the open block

    def add(self, fields: dict) -> Iterator[dict]:
        """fields: of a chat completion's delta."""
        if thought := fields.get("reasoning_content"):
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            yield from self._extend(empty, "thinking_delta", "thinking", thought)
        if text := fields.get("content"):
            yield from self._extend({"type": "text", "text": ""}, "text_delta", "text", text)
        for call in fields.get("tool_calls", ()):
            if "id" in call:
                yield from self._begin({"type": "tool_use", "id": call["id"].replace("call_", "toolu_", 1),
                                        "name": call["function"]["name"], "input": {}})
            if arguments := call["function"]["arguments"]:
                self._text += arguments
                yield self._delta({"type": "input_json_delta", "partial_json": arguments})

    def close(self) -> Iterator[dict]:
        """Ends the open block."""
        if not self._open:
            return
        block, self._open = self.blocks[-1], False
        if block["type"] == "thinking":
            block["signature"] = _signature(self._text)
            yield self._delta({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "tool_use":
            try:
                block["input"] = json.loads(self._text)
            except ValueError:
                block["input"] = None  # the call was cut off
        yield {"type": "content_block_stop", "index": len(self.blocks) - 1}

    def drop_unfinished_call(self) -> None:
        """A call that was cut off must not look like a whole one. (In a stream, its text shows what it is.)"""
        if self.blocks and self.blocks[-1].get("input", {}) is None:
            self.blocks.pop()

    def _extend(self, empty: dict, kind: str, key: str, text: str) -> Iterator[dict]:
        if not self._open or self.blocks[-1]["type"] != empty["type"]:
            yield from self._begin(empty)
        self._text += text
        if not (kind == "thinking_delta" and self.omit_thinking):
            self.blocks[-1][key] += text
            yield self._delta({"type": kind, key: text})

    def _begin(self, block: dict) -> Iterator[dict]:
        yield from self.close()
        self.blocks.append(block)
        self._open, self._text = True, ""
        yield {"type": "content_block_start", "index": len(self.blocks) - 1, "content_block": dict(block)}

    def _delta(self, delta: dict) -> dict:
        return {"type": "content_block_delta", "index": len(self.blocks) - 1, "delta": delta}


def _signature(thought: str) -> str:
    """Clients give a thought back together with its signature, and take an empty one for none."""
    return base64.b64encode(hashlib.sha256(thought.encode()).digest()).decode()
