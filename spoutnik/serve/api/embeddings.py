"""`/v1/embeddings`: vectors of texts, the mean of the last layer's hidden states."""

import asyncio
import base64
from typing import Literal

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field
from torch import Tensor

from spoutnik.engine.input_processor import check
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.generation.service import Busy, ServedModel
from spoutnik.serve.api.common import Body, Serving, State, split_inputs
from spoutnik.serve.api.fields import EMBEDDING_REFUSED, unknown_fields
from spoutnik.serve.api.schemas import EmbeddingList
from spoutnik.serve.errors import GENERATION_ERRORS, ApiError, error_responses
from spoutnik.serve.json_body import api_router, off_loop
from spoutnik.serve.sse import cancel_on_disconnect

router = api_router()
MAX_INPUTS = 2048
RETRY_SECONDS = 0.05  # while the cache is full


class EmbeddingRequest(Body):
    model_config = ConfigDict(extra="allow")  # to see unsupported fields

    input: str | list[str] | list[int] | list[list[int]] = Field(description="A text, token ids, or several of either.")
    model: str | None = Field(None, description="The name of a model; the first one where there is none.")
    encoding_format: Literal["float", "base64"] | None = Field(None, description="base64: of little-endian float32.")
    dimensions: int | None = None
    parse_special: bool | None = Field(None, description="true: special tokens that a text spells are read as such.")


@router.post("/embeddings", responses=error_responses(*GENERATION_ERRORS), response_model=EmbeddingList)
async def embeddings(body: EmbeddingRequest, request: Request, serving: State) -> Response:
    return await cancel_on_disconnect(request.receive, create(body, serving))


async def create(body: EmbeddingRequest, serving: Serving) -> Response:
    unknown_fields(body.model_extra, EMBEDDING_REFUSED)
    if body.dimensions is not None:
        raise ApiError(400, "dimensions: this model's vectors cannot be shortened. Leave it out.", "dimensions")
    served = await serving.model(body.model)
    vectors, count = await embed_inputs(body.input, served, serving, parse_special=bool(body.parse_special))
    result = EmbeddingList(
        object="list", model=served.id, usage={"prompt_tokens": count, "total_tokens": count},
        data=[{"object": "embedding", "index": index, "embedding": _encode(vector, body.encoding_format)}
              for index, vector in enumerate(vectors)])
    return JSONResponse(result.model_dump())


async def embed_inputs(given: str | list, served: ServedModel, serving: Serving,
                       truncate: bool = False, parse_special: bool = False) -> tuple[list[Tensor], int]:
    """A vector for each input, and how many tokens there were. truncate: those of a text that is too long are left out.
    parse_special: see `Tokenizer.prompt_ids`."""
    inputs = split_inputs(given)
    if not 0 < len(inputs) <= MAX_INPUTS:
        raise ApiError(400, f"input: holds {len(inputs)} texts; 1 to {MAX_INPUTS} can be asked for at once.", "input")
    prompts = await off_loop(lambda: [_token_ids(text, i, served, truncate, parse_special)
                                      for i, text in enumerate(inputs)])
    return [await _embed(prompt, served, serving) for prompt in prompts], sum(map(len, prompts))


def _token_ids(text: str | list[int], index: int, served: ServedModel, truncate: bool, parse_special: bool) -> list[int]:
    llm, tokenizer = served.llm, served.tokenizer
    try:
        if isinstance(text, str) and text:
            tokenizer.check_length([text], None if truncate else llm.max_model_len)
            ids, _ = tokenizer.prompt_ids(text, parse_special)
        else:
            ids = list(text)
        if truncate:
            ids = ids[:min(llm.max_model_len, llm.config.max_position_embeddings - 1)]  # `check` wants room for one more
        check(ids, SamplingParams(max_tokens=1), llm.config, tokenizer)
    except UserError as error:
        raise ApiError(400, f"input[{index}]: {error}", "input") from error
    if len(ids) > llm.max_model_len:
        raise ApiError(400, f"input[{index}]: has {len(ids)} tokens, more than the cache holds ({llm.max_model_len}). Shorten "
                       "it, or give the server more memory.", "input")
    return ids


async def _embed(prompt: list[int], served: ServedModel, serving: Serving) -> Tensor:
    """One text at a time, in pieces between the steps of the engine: generations go on meanwhile, and come first in a full
    cache."""
    while True:
        if serving.service.draining:
            raise Busy("the server is shutting down. Try again when it is back.", 30)
        try:
            return await serving.service.run_in_pieces(served, served.llm.embed_in_pieces(prompt))
        except RunError:
            if not serving.service.active:
                raise
            await asyncio.sleep(RETRY_SECONDS)


def _encode(vector: Tensor, format: str | None) -> list[float] | str:
    if format == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return vector.tolist()
