"""Steering of a running generation (end its thought, insert text, pause), and resuming its stream."""

from typing import Annotated, Literal

from fastapi import Header, Query
from fastapi.responses import Response
from pydantic import Field

from spoutnik.generation.generation import Generation
from spoutnik.serve.api.common import Body, State
from spoutnik.serve.api.schemas import Control
from spoutnik.serve.errors import ApiError, error_responses
from spoutnik.serve.json_body import api_router

router = api_router()


class ControlRequest(Body):
    action: Literal["end_thought", "reasoning_end", "insert", "pause", "continue"] = Field(
        description="reasoning_end is another name of end_thought.")
    text: str | None = Field(None, min_length=1, max_length=16384, description="What to insert.")


class NamedControlRequest(ControlRequest):
    id: str


@router.post("/chat/completions/control", responses=error_responses(400, 401, 404, 409, 413, 415))
async def control_named(body: NamedControlRequest, serving: State) -> Control:
    """As `/chat/completions/{id}/control`, where llama.cpp has it."""
    return await control(body.id, body, serving)


@router.post("/chat/completions/{id}/control", responses=error_responses(400, 401, 404, 409, 413, 415))
async def control(id: str, body: ControlRequest, serving: State) -> Control:
    handle = serving.service.active.get(id)
    if handle is None or not isinstance(handle.job, Generation):
        raise ApiError(404, f"id = {id!r}: no reply of that id is under way.", "id")
    if (body.action == "insert") != (body.text is not None):
        raise ApiError(400, "text: belongs to action = insert, and to no other.", "text")
    if body.action in ("end_thought", "reasoning_end", "insert"):
        if not await serving.service.run_in_engine(handle.served, lambda: handle.job.thinking):
            raise ApiError(409, f"action = {body.action}: no thought is under way in this reply.", "action")
    match body.action:
        case "insert":
            await handle.insert(body.text)
        case "pause":
            await handle.pause()
        case "continue":
            await handle.resume()
        case _:
            await handle.end_thought()
    return Control(id=id, action=body.action, success=True)


@router.get("/chat/completions/{id}/stream", response_class=Response, responses=error_responses(400, 401, 404) | {
    200: {"content": {"text/event-stream": {}}, "description": "The events that follow"}})
async def stream(id: str, serving: State, after: Annotated[int | None, Query(ge=0)] = None,
                 last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """The events after number `after`, or after Last-Event-ID; all of them if neither is given."""
    if after is None and last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit()):
            raise ApiError(400, f"Last-Event-ID = {last_event_id!r}: must be the number of an event.", "Last-Event-ID")
        after = int(last_event_id)
    return serving.streams.resume(id, 0 if after is None else after + 1)
