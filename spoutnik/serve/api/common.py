"""What all endpoints share: the server's state, the base of request bodies, sampling fields, usage and timings."""

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from spoutnik import __version__
from spoutnik.engine.sampling_params import LARGEST_SEED, SamplingParams
from spoutnik.errors import UserError
from spoutnik.generation.defaults import generation_defaults
from spoutnik.generation.service import GenerationHandle, GenerationService, ServedModel
from spoutnik.serve.api.schemas import Timings, Usage
from spoutnik.serve.errors import ApiError
from spoutnik.serve.settings import Settings
from spoutnik.serve.streams import StreamRegistry
from spoutnik.text.tokenizer import Tokenizer

FINGERPRINT = f"spoutnik-{__version__}"
MAX_TOKENS = 2 ** 31


@dataclass
class Serving:
    """The state of an app."""

    service: GenerationService
    settings: Settings
    streams: StreamRegistry

    async def model(self, name: str | None) -> ServedModel:
        """Loaded and ready; the first one if no name is given. Raises ApiError if there is none of that name, RunError if it
        cannot be used."""
        self.find_model(name)
        return await self.service.model(name)

    def find_model(self, name: str | None) -> ServedModel:
        """As `model`, but perhaps not loaded."""
        if name and name not in self.service.models:
            raise ApiError(404, f"model = {name!r}: there is none of that name. Choose {', '.join(self.service.models)}.",
                           "model", "model_not_found")
        return self.service.models[name] if name else self.service.default


# Dependencies of every request are async: FastAPI would run a plain function in a thread.

async def get_serving(request: Request) -> Serving:
    return request.app.state.serving


State = Annotated[Serving, Depends(get_serving)]


async def require_json(request: Request) -> None:
    """Another site's page may send text and forms to a server on its reader's machine without asking; JSON it may not."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(415, f"Content-Type = {kind!r}: must be application/json.")


class Body(BaseModel):
    """A request body: types are not converted, unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    def one_of(self, *names: str) -> object:
        """The value of a field that has several names, under any of them."""
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(set(values.values())) > 1:
            raise ApiError(400, f"{' and '.join(values)}: mean the same but differ. Give one of them.", next(iter(values)))
        return next(iter(values.values()), None)


class StreamOptions(Body):
    include_usage: bool | None = Field(None, description="A last chunk says how many tokens there were.")


class Sampling(Body):
    """Fields that all generating endpoints have; null is the model's own default, else the engine's."""

    model: str | None = Field(None, description="The name of a model; the first one where there is none.")
    max_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    min_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=MAX_TOKENS)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-1, le=LARGEST_SEED, description="-1 is none.")
    stop: str | list[str] | None = Field(None, description="Texts that end the answer.")
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, float] | None = Field(None, description="Token id -> added to its logit.")
    n: int | None = Field(None, ge=1, le=128)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    resumable: bool | None = Field(None, description="The stream goes on when the client hangs up, and can be read again.")

    def params(self, served: ServedModel, **more) -> SamplingParams:
        """Without max_tokens, which depends on the prompt."""
        names = ("min_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
                 "repetition_penalty", "stop", "stop_token_ids", "ignore_eos", "n")
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        seed = None if self.seed == -1 else self.seed
        return SamplingParams(**{"max_tokens": MAX_TOKENS, "seed": seed, "logit_bias": self._logit_bias(),
                                 **generation_defaults(served.folder), **values, **more})

    def _logit_bias(self) -> dict[int, float]:
        for key in self.logit_bias or {}:
            if not (key.isascii() and key.isdigit()):
                raise UserError(f"logit_bias: the key {key!r} is not a token id, a whole number from 0.")
        return {int(key): bias for key, bias in (self.logit_bias or {}).items()}

    def check_supported(self) -> None:
        """Raises ApiError for what cannot be honored, with the field."""
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options: only with stream = true.", "stream_options")

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def split_inputs(value: str | list) -> list[str | list[int]]:
    """The inputs of a field that holds a text, token ids, or several of either."""
    several = isinstance(value, list) and not (value and isinstance(value[0], int))
    return value if several else [value]


class Reply:
    """The answer of a generating endpoint: whole, a model from `complete`, or the data of a stream's events, from `events`."""

    def __init__(self, body: Sampling, handle: GenerationHandle):
        self.body, self.handle, self.replies = body, handle, handle.replies
        self.id, self.served, self.created = handle.name, handle.served, int(time.time())

    async def respond(self, streams: StreamRegistry) -> Response:
        headers = {"X-Request-Id": self.id}
        if self.body.stream:
            return streams.open(self.id, self.events(), bool(self.body.resumable), headers)
        return JSONResponse((await self.complete()).model_dump(exclude_unset=True), headers=headers)

    def head(self, object: str) -> dict:
        return {"id": self.id, "object": object, "created": self.created, "model": self.served.id,
                "system_fingerprint": FINGERPRINT}

    @property
    def _counts(self) -> tuple[int, int]:
        """Tokens of the prompt, and generated ones."""
        return len(self.handle.plan.prompt), sum(reply.generated for reply in self.replies)

    @property
    def usage(self) -> Usage:
        (prompt, generated), thought = self._counts, sum(reply.thought_tokens for reply in self.replies)
        return Usage(prompt_tokens=prompt, completion_tokens=generated, total_tokens=prompt + generated,
                     prompt_tokens_details={"cached_tokens": self.handle.cached_tokens},
                     # The sentence that closes a thought was not generated, so it is not billed as thought either.
                     completion_tokens_details={"reasoning_tokens": min(thought, generated)})

    @property
    def timings(self) -> Timings:
        """Speeds, named as in llama.cpp's server. The first tokens come with the prompt."""
        (prompt, generated), cached, first = self._counts, self.handle.cached_tokens, self.handle.first_token_seconds or 0.0
        later, computed = time.perf_counter() - self.handle.began - first, prompt - cached
        return Timings(cache_n=cached, prompt_n=computed, prompt_ms=round(1000 * first, 3),
                       prompt_per_second=round(computed / max(first, 1e-6), 2), predicted_n=generated,
                       predicted_ms=round(1000 * later, 3), predicted_per_second=round(generated / max(later, 1e-6), 2))


def encode_prompt(tokenizer: Tokenizer, text: str, start: bool, parse_special: bool) -> tuple[list[int], int]:
    """Ids of a raw prompt, and how many of them were put before it.

    start: it begins with the beginning-of-sentence token, which is added where it is missing. parse_special: special tokens in
    the text are read as such.
    """
    ids = tokenizer.bpe.encode(text, add_special_tokens=False).ids if parse_special else tokenizer.encode(text)
    added = tokenizer.start_ids if start and ids[:1] != tokenizer.start_ids else []
    return added + ids, len(added)
