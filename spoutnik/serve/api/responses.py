"""`/v1/responses`: OpenAI's newer form of chat. Thought, answer and calls are items of the output. Nothing is stored."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from spoutnik.errors import UserError
from spoutnik.generation.delta import Delta
from spoutnik.serve.api.chat import ChatChunkBuilder, ChatReply
from spoutnik.serve.api.chat_request import plan_of
from spoutnik.serve.api.common import Serving, State
from spoutnik.serve.api.responses_request import ResponsesRequest, renamed
from spoutnik.serve.errors import ANY, api_error, may_fail
from spoutnik.serve.sse import compact, unless_gone

router = APIRouter()


class ResponseObject(BaseModel):
    """As far as clients rely on it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    store: Literal[False]


@router.post("/responses", responses=may_fail(*ANY) | {
    200: {"model": ResponseObject, "content": {"text/event-stream": {}}, "description": "A response, or its events"}})
async def responses(body: ResponsesRequest, request: Request, serving: State) -> Response:
    return await unless_gone(request, answer(body, serving))


async def answer(body: ResponsesRequest, serving: Serving) -> Response:
    served, chat = await serving.model(body.model), body.for_chat
    try:
        plan, options = await asyncio.to_thread(plan_of, chat, served)
    except UserError as error:
        raise renamed(error) from error
    handle = serving.service.generate(served, plan, f"resp_{secrets.token_hex(24)}")
    response = ResponseReply(body, ChatReply(chat, plan, options, handle))
    headers = {"X-Request-Id": handle.name}
    if body.stream:
        return serving.streams.open(handle.name, response.events(), bool(body.resumable), headers)
    return JSONResponse(await response.whole(), headers=headers)


class ResponseReply:
    """One request and what it gets, as events or as a whole."""

    def __init__(self, body: ResponsesRequest, reply: ChatReply):
        self.body, self.reply, self.output = body, reply, Output()
        self.status, self.error, self.warnings = "in_progress", None, []

    async def whole(self) -> dict:
        async for _ in self._news():
            pass
        return self.object

    async def events(self) -> AsyncIterator[str]:
        """The response's events, numbered. What goes wrong is one of them."""
        number = 0
        async for event in self._told():
            yield f"event: {event['type']}\ndata: {compact(event | {'sequence_number': number})}"
            number += 1

    async def _told(self) -> AsyncIterator[dict]:
        for kind in ("response.created", "response.in_progress"):
            yield {"type": kind, "response": self.object}
        try:
            async for event in self._news():
                yield event
        except Exception as error:  # the stream has begun: it must say so itself
            failed = api_error(error)
            self.status, self.error = "failed", {"code": "server_error", "message": str(failed)}
        yield {"type": f"response.{self.status}", "response": self.object}

    async def _news(self) -> AsyncIterator[dict]:
        voice = ChatChunkBuilder(self.reply.body, self.reply.served)
        async for delta in self.reply.deltas():
            self.warnings += delta.warnings
            for event in self._heard(voice, delta):
                yield event
        self.status = "incomplete" if voice.finish_reason == "length" else "completed"
        for event in self.output.close(self.status):
            yield event

    def _heard(self, voice: ChatChunkBuilder, delta: Delta) -> Iterator[dict]:
        new, logprobs = voice.feed(delta), (voice.logprobs(delta) or {"content": []})["content"]
        if "reasoning_content" in new:
            yield from self.output.add("reasoning", new["reasoning_content"])
        if "content" in new:
            yield from self.output.add("message", new["content"], logprobs)
        for call in new.get("tool_calls", ()):
            yield from self.output.call(call)

    @property
    def object(self) -> dict:
        body, plan, usage = self.body, self.reply.plan, self.reply.usage
        over = self.status in ("completed", "incomplete")
        counts = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
                  "total_tokens": usage["total_tokens"],
                  "input_tokens_details": {**usage["prompt_tokens_details"], "cache_write_tokens": 0},
                  "output_tokens_details": usage["completion_tokens_details"]}
        said = {name: value for name, value in body.model_dump(by_alias=True, exclude_unset=True).items() if value is not None}
        return {
            "id": self.reply.id, "object": "response", "created_at": self.reply.created, "status": self.status,
            "model": self.reply.served.id, "output": self.output.items, "error": self.error, "usage": counts if over else None,
            "incomplete_details": {"reason": "max_output_tokens"} if self.status == "incomplete" else None,
            "instructions": body.instructions, "metadata": said.get("metadata", {}),
            "max_output_tokens": plan.params.max_tokens, "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None, "background": False,
            "reasoning": {"effort": None, "summary": None} | said.get("reasoning", {}), "store": False,
            "temperature": plan.params.temperature, "top_p": plan.params.top_p, "truncation": "disabled",
            "text": {"format": {"type": "text"}} | said.get("text", {}), "tools": said.get("tools", []),
            "tool_choice": said.get("tool_choice", "auto"),
        } | ({"warning": " ".join(dict.fromkeys(map(str, self.warnings)))} if self.warnings else {})


class Output:
    """The items of a response, one after the other, and the events that tell of them. The last one is open until the next
    begins."""

    NAMES = {"reasoning": ("rs", "reasoning_text"), "message": ("msg", "output_text")}

    def __init__(self):
        self.items: list[dict] = []
        self._open = False

    def add(self, kind: str, text: str, logprobs: list[dict] | None = None) -> Iterator[dict]:
        """More of a thought or of an answer."""
        if not self._open or self.items[-1]["type"] != kind:
            yield from self._begin(kind)
        part = self.items[-1]["content"][0]
        part["text"] += text
        more = {}
        if kind == "message":
            part["logprobs"] += logprobs
            more = {"logprobs": logprobs}
        yield self._event(f"{part['type']}.delta", content_index=0, delta=text, **more)

    def call(self, delta: dict) -> Iterator[dict]:
        """More of a call: its name, or arguments."""
        if "id" in delta:
            yield from self.close()
            item = {"id": f"fc_{secrets.token_hex(24)}", "type": "function_call", "status": "in_progress",
                    "call_id": delta["id"], "name": delta["function"]["name"], "arguments": ""}
            yield from self._added(item)
        if arguments := delta["function"]["arguments"]:
            self.items[-1]["arguments"] += arguments
            yield self._event("function_call_arguments.delta", delta=arguments)

    def close(self, status: str = "completed") -> Iterator[dict]:
        """The open item is whole, or cut off."""
        if not self._open:
            return
        item, self._open = self.items[-1], False
        if item["type"] == "function_call":
            yield self._event("function_call_arguments.done", arguments=item["arguments"], name=item["name"])
        else:
            part = item["content"][0]
            more = {"logprobs": part["logprobs"]} if item["type"] == "message" else {}
            yield self._event(f"{part['type']}.done", content_index=0, text=part["text"], **more)
            yield self._event("content_part.done", content_index=0, part=part)
        item["status"] = status
        yield {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": item}

    def _begin(self, kind: str) -> Iterator[dict]:
        yield from self.close()
        prefix, part_kind = self.NAMES[kind]
        item = {"id": f"{prefix}_{secrets.token_hex(24)}", "type": kind, "status": "in_progress"}
        yield from self._added(item | ({"role": "assistant"} if kind == "message" else {"summary": []}) | {"content": []})
        part = {"type": part_kind, "text": ""} | ({"annotations": [], "logprobs": []} if kind == "message" else {})
        yield self._event("content_part.added", content_index=0, part=part)
        self.items[-1]["content"].append(part)

    def _added(self, item: dict) -> Iterator[dict]:
        self.items.append(item)
        self._open = True
        yield {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": item}

    def _event(self, kind: str, **more) -> dict:
        return {"type": f"response.{kind}", "item_id": self.items[-1]["id"], "output_index": len(self.items) - 1} | more
