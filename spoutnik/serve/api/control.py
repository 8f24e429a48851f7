"""A reply while it runs: end its thought, put a sentence into it, let it pause; and read its stream again."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from pydantic import Field

from spoutnik.generation.generation import Generation
from spoutnik.serve.api.common import Body, Serving, State
from spoutnik.serve.api.shapes import Controlled
from spoutnik.serve.errors import ApiError, may_fail

router = APIRouter()


class Control(Body):
    action: Literal["end_thought", "reasoning_end", "insert", "pause", "continue"] = Field(
        description="reasoning_end is another name of end_thought.")
    text: str | None = Field(None, min_length=1, description="What to insert.")


class NamedControl(Control):
    id: str


@router.post("/chat/completions/control", responses=may_fail(400, 401, 404, 409, 413, 415), response_model=Controlled)
async def control_named(body: NamedControl, serving: State) -> dict:
    """As `/chat/completions/{id}/control`, where llama.cpp has it."""
    return await steer(body.id, body, serving)


@router.post("/chat/completions/{id}/control", responses=may_fail(400, 401, 404, 409, 413, 415), response_model=Controlled)
async def control(id: str, body: Control, serving: State) -> dict:
    return await steer(id, body, serving)


async def steer(id: str, body: Control, serving: Serving) -> dict:
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
    return {"id": id, "action": body.action, "success": True}


@router.get("/chat/completions/{id}/stream", response_class=Response, responses=may_fail(400, 401, 404) | {
    200: {"content": {"text/event-stream": {}}, "description": "The events that follow"}})
async def stream(id: str, serving: State, after: Annotated[int | None, Query(ge=0)] = None,
                 last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """The events after number `after`, or after the one that Last-Event-ID names; all of them where neither is given."""
    if after is None and last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit()):
            raise ApiError(400, f"Last-Event-ID = {last_event_id!r}: must be the number of an event.", "Last-Event-ID")
        after = int(last_event_id)
    return serving.streams.resume(id, 0 if after is None else after + 1)
