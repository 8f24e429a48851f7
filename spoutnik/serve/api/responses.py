"""`/v1/responses`: OpenAI's newer form of chat. Thought, answer and tool calls are items of the output. Nothing is stored; late
items are remembered, unless `store` is false, so that clients may refer to them."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator

from fastapi import Request
from fastapi.responses import Response

from spoutnik.errors import UserError
from spoutnik.generation.delta import Delta
from spoutnik.generation.options import GenerationOptions, GenerationPlan
from spoutnik.generation.service import ServedModel
from spoutnik.serve.api import schemas
from spoutnik.serve.api.chat import ChatChunkBuilder, ChatReply
from spoutnik.serve.api.chat_request import ChatRequest, plan_of
from spoutnik.serve.api.common import Reply, Serving, State, warning_field
from spoutnik.serve.api.responses_request import FIELD_NAMES, FindItem, ResponsesRequest
from spoutnik.serve.api.translation import plan_fitting, rename_fields, renamed_notes
from spoutnik.serve.errors import GENERATION_ERRORS, api_error, error_responses
from spoutnik.serve.json_body import api_router, off_loop
from spoutnik.serve.sse import cancel_on_disconnect, encode_json

router = api_router()
ECHOED = {"metadata", "reasoning", "text", "tools", "tool_choice"}  # of a request, as it was given


@router.post("/responses", responses=error_responses(*GENERATION_ERRORS) | {
    200: {"model": schemas.Response, "content": {"text/event-stream": {}}, "description": "A response, or its events"}})
async def responses(body: ResponsesRequest, request: Request, serving: State) -> Response:
    key = getattr(request.state, "key", None)
    return await cancel_on_disconnect(request.receive, create(body, serving, key and key.name))


async def create(body: ResponsesRequest, serving: Serving, owner: str | None = None) -> Response:
    """owner: the name of the API key of whoever asks."""
    served, items = await serving.model(body.model), serving.recent_items
    chat, plan, options, warnings = await off_loop(_plan, body, served, lambda id: items.find(id, owner))
    handle = serving.service.generate(served, plan, f"resp_{secrets.token_hex(24)}")
    keep = (lambda _: None) if body.store is False else (lambda output: items.add(output, owner))
    return await ResponseReply(body, ChatReply(chat, plan, options, handle), warnings, keep).respond(serving.streams)


def _plan(body: ResponsesRequest, served: ServedModel,
          find_item: FindItem) -> tuple[ChatRequest, GenerationPlan, GenerationOptions, list[str]]:
    chat, warnings = body.for_chat(find_item)
    try:
        plan = plan_fitting(chat, served) if body.truncation == "auto" else (chat, *plan_of(chat, served))
        return *plan, warnings
    except UserError as error:
        raise rename_fields(error, FIELD_NAMES) from error


class ResponseReply(Reply):
    """warnings: of the request. keep: called with the items of a whole response."""

    def __init__(self, body: ResponsesRequest, chat: ChatReply, warnings: list[str], keep: Callable[[list[dict]], None]):
        super().__init__(body, chat.handle)
        self.chat, self.keep = chat, keep
        self.output = Output(summarized=body.reasoning is not None and body.reasoning.summarized)
        self.status, self.error, self.warnings = "in_progress", None, [*warnings, *renamed_notes(chat.plan, FIELD_NAMES)]
        self._logprobs: list[dict] = []

    async def complete(self) -> schemas.Response:
        async for _ in self._output_events():
            pass
        return self.response

    async def events(self) -> AsyncIterator[str]:
        """The response's events, numbered. An error is one of them."""
        number = 0
        async for event in self._events():
            yield f"event: {event['type']}\ndata: {encode_json(event | {'sequence_number': number})}"
            number += 1

    async def _events(self) -> AsyncIterator[dict]:
        yield self._response_event("created")
        yield self._response_event("in_progress")
        try:
            async for event in self._output_events():
                yield event
        except Exception as error:  # the stream has begun: its status can no longer tell
            self.status, self.error = "failed", {"code": "server_error", "message": str(api_error(error))}
        yield self._response_event(self.status)

    def _response_event(self, kind: str) -> dict:
        return {"type": f"response.{kind}", "response": self.response.model_dump(exclude_unset=True)}

    async def _output_events(self) -> AsyncIterator[dict]:
        builder = ChatChunkBuilder(self.chat.body, self.served)
        async for delta in self.chat.deltas():
            self.warnings += delta.warnings
            for event in self._delta_events(builder, delta):
                yield event
        self.status = "incomplete" if builder.finish_reason == "length" else "completed"
        for event in self.output.close(self.status):
            yield event
        self.keep(self.output.items)

    def _delta_events(self, builder: ChatChunkBuilder, delta: Delta) -> Iterator[dict]:
        fields = builder.feed(delta)
        self._logprobs += builder.logprobs(delta)  # of tokens whose text may come with a later delta
        if "reasoning_content" in fields:
            yield from self.output.add("reasoning", fields["reasoning_content"])
        if "content" in fields or delta.finish_reason and self._logprobs and self.output.open_type == "message":
            logprobs, self._logprobs = self._logprobs, []
            yield from self.output.add("message", fields.get("content", ""), logprobs)
        for call in fields.get("tool_calls", ()):
            yield from self.output.call(call)

    @property
    def response(self) -> schemas.Response:
        body, params = self.body, self.chat.plan.params
        fields = body.model_dump(include=ECHOED, by_alias=True, exclude_unset=True)
        fields = {name: value for name, value in fields.items() if value is not None}
        finished = self.status in ("completed", "incomplete")
        return schemas.Response(
            id=self.id, object="response", created_at=self.created, status=self.status, model=self.served.id,
            output=self.output.items, error=self.error, usage=self._response_usage if finished else None,
            incomplete_details={"reason": "max_output_tokens"} if self.status == "incomplete" else None,
            instructions=body.instructions, metadata=fields.get("metadata", {}), max_output_tokens=params.max_tokens,
            parallel_tool_calls=body.parallel_tool_calls is not False, previous_response_id=None, background=False,
            reasoning={"effort": None, "summary": None} | fields.get("reasoning", {}), store=False,
            temperature=params.temperature, top_p=params.top_p, truncation=body.truncation or "disabled",
            text={"format": {"type": "text"}} | fields.get("text", {}), tools=fields.get("tools", []),
            tool_choice=fields.get("tool_choice", "auto"),
            **warning_field(self.warnings), **self.chat.applied_field)

    @property
    def _response_usage(self) -> schemas.ResponseUsage:
        usage = self.chat.usage
        return schemas.ResponseUsage(
            input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens, total_tokens=usage.total_tokens,
            input_tokens_details={"cached_tokens": usage.prompt_tokens_details.cached_tokens, "cache_write_tokens": 0},
            output_tokens_details=usage.completion_tokens_details)


class Output:
    """The items of a response, and the events of the stream that builds them. The last item is open until the next one
    begins. summarized: a thought is its own summary, too: clients that ask for one read nothing else."""

    PREFIXES_AND_PARTS = {"reasoning": ("rs", "reasoning_text"), "message": ("msg", "output_text")}

    def __init__(self, summarized: bool = False):
        self.items: list[dict] = []
        self.summarized = summarized
        self._open = False

    @property
    def open_type(self) -> str | None:
        return self.items[-1]["type"] if self._open else None

    def add(self, kind: str, text: str, logprobs: list[dict] | None = None) -> Iterator[dict]:
        """More of a thought or of an answer."""
        if self.open_type != kind:
            yield from self._begin(kind)
        part = self.items[-1]["content"][0]
        part["text"] += text
        more = {}
        if kind == "message":
            part["logprobs"] += logprobs
            more = {"logprobs": logprobs}
        yield self._event(f"{part['type']}.delta", content_index=0, delta=text, **more)
        for summary in self.items[-1].get("summary", ()):
            summary["text"] += text
            yield self._event("reasoning_summary_text.delta", summary_index=0, delta=text)

    def call(self, delta: dict) -> Iterator[dict]:
        """More of a call: its name, or arguments."""
        if "id" in delta:
            yield from self.close()
            item = {"id": f"fc_{secrets.token_hex(24)}", "type": "function_call", "status": "in_progress",
                    "call_id": delta["id"], "name": delta["function"]["name"], "arguments": ""}
            yield from self._append(item)
        if arguments := delta["function"]["arguments"]:
            self.items[-1]["arguments"] += arguments
            yield self._event("function_call_arguments.delta", delta=arguments)

    def close(self, status: str = "completed") -> Iterator[dict]:
        """Ends the open item. status: of the item, `incomplete` where it is cut off."""
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
            for summary in item.get("summary", ()):
                yield self._event("reasoning_summary_text.done", summary_index=0, text=summary["text"])
                yield self._event("reasoning_summary_part.done", summary_index=0, part=summary)
        item["status"] = status
        yield {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": item}

    def _begin(self, kind: str) -> Iterator[dict]:
        yield from self.close()
        prefix, part_kind = self.PREFIXES_AND_PARTS[kind]
        item = {"id": f"{prefix}_{secrets.token_hex(24)}", "type": kind, "status": "in_progress"}
        yield from self._append(item | ({"role": "assistant"} if kind == "message" else {"summary": []}) | {"content": []})
        part = {"type": part_kind, "text": ""} | ({"annotations": [], "logprobs": []} if kind == "message" else {})
        yield self._event("content_part.added", content_index=0, part=part)
        self.items[-1]["content"].append(part)
        if kind == "reasoning" and self.summarized:
            summary = {"type": "summary_text", "text": ""}
            yield self._event("reasoning_summary_part.added", summary_index=0, part=summary)
            self.items[-1]["summary"].append(summary)

    def _append(self, item: dict) -> Iterator[dict]:
        self.items.append(item)
        self._open = True
        yield {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": item}

    def _event(self, kind: str, **more) -> dict:
        return {"type": f"response.{kind}", "item_id": self.items[-1]["id"], "output_index": len(self.items) - 1} | more
