"""`/v1/embeddings`: texts as vectors, the mean of what the model's last layer makes of them."""

import asyncio
import base64
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from torch import Tensor

from spoutnik.engine.input_processor import check
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.generation.service import Busy, ServedModel
from spoutnik.serve.api.common import Body, Serving, State
from spoutnik.serve.errors import ANY, ApiError, may_fail
from spoutnik.serve.sse import unless_gone

router = APIRouter()
MOST_INPUTS = 2048
PATIENCE = 0.05  # seconds between two looks for room in the cache


class EmbeddingRequest(Body):
    input: str | list[str] | list[int] | list[list[int]] = Field(description="A text, token ids, or several of either.")
    model: str | None = Field(None, description="The name of a model; the first one where there is none.")
    encoding_format: Literal["float", "base64"] | None = Field(None, description="base64: of little-endian float32.")
    dimensions: int | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        several = isinstance(self.input, list) and not (self.input and isinstance(self.input[0], int))
        return self.input if several else [self.input]


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@router.post("/embeddings", responses=may_fail(*ANY), response_model=Embeddings)
async def embeddings(body: EmbeddingRequest, request: Request, serving: State) -> Response:
    return await unless_gone(request, answer(body, serving))


async def answer(body: EmbeddingRequest, serving: Serving) -> Response:
    if body.dimensions is not None:
        raise ApiError(400, "dimensions: this model's vectors cannot be shortened. Leave it out.", "dimensions")
    if not 0 < len(body.inputs) <= MOST_INPUTS:
        raise ApiError(400, f"input: holds {len(body.inputs)} texts; 1 to {MOST_INPUTS} can be asked for at once.", "input")
    served = await serving.model(body.model)
    prompts = await asyncio.to_thread(lambda: [_ids(one, place, served) for place, one in enumerate(body.inputs)])
    vectors = [await _vector(prompt, served, serving) for prompt in prompts]
    count = sum(map(len, prompts))
    return JSONResponse({
        "object": "list", "model": served.id, "usage": {"prompt_tokens": count, "total_tokens": count},
        "data": [{"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
                 for index, vector in enumerate(vectors)]})


def _ids(given: str | list[int], place: int, served: ServedModel) -> list[int]:
    llm, tokenizer = served.llm, served.tokenizer
    ids = tokenizer.start_ids + tokenizer.encode(given) if isinstance(given, str) and given else list(given)
    try:
        check(ids, SamplingParams(max_tokens=1), llm.config, tokenizer)
    except UserError as error:
        raise ApiError(400, f"input[{place}]: {error}", "input") from error
    room = llm.max_model_len
    if len(ids) > room:
        raise ApiError(400, f"input[{place}]: has {len(ids)} tokens, more than the cache holds ({room}). Shorten it, or "
                       "give the server more memory.", "input")
    return ids


async def _vector(prompt: list[int], served: ServedModel, serving: Serving) -> Tensor:
    """Between two steps of the engine, one text at a time: replies go on meanwhile, and those that fill the cache go first."""
    while True:
        if serving.service.draining:
            raise Busy("the server is shutting down. Try again when it is back.", 30)
        try:
            return (await serving.service.run_in_engine(served, lambda: served.llm.embed([prompt])))[0]
        except RunError:
            if not serving.service.active:
                raise
            await asyncio.sleep(PATIENCE)


def _encoded(vector: Tensor, format: str | None) -> list[float] | str:
    if format == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return vector.tolist()
