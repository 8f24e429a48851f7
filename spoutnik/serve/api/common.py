"""What all endpoints share: the server's state, the base of request bodies, sampling fields, usage and timings."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, get_args

from fastapi import Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator

from spoutnik import __version__
from spoutnik.engine.generation_config import generation_defaults
from spoutnik.engine.sampling_params import LARGEST_SEED, SamplingParams
from spoutnik.errors import UserError
from spoutnik.generation.options import ContextOverflow
from spoutnik.generation.service import GenerationHandle, GenerationService, ServedModel
from spoutnik.serve.api.recent_items import RecentItems
from spoutnik.serve.api.schemas import Timings, Usage
from spoutnik.serve.errors import ApiError
from spoutnik.serve.settings import Settings
from spoutnik.serve.sse import SSE, StreamFormat
from spoutnik.serve.streams import StreamRegistry
from spoutnik.text.tokenizer import TextTooLong

FINGERPRINT = f"spoutnik-{__version__}"
MAX_TOKENS = 2 ** 31
MAX_TOKENS_NAMES = ("max_completion_tokens", "max_tokens", "max_new_tokens", "n_predict")


@dataclass
class Serving:
    """The state of an app."""

    service: GenerationService
    settings: Settings
    streams: StreamRegistry
    recent_items: RecentItems = field(default_factory=RecentItems)

    async def model(self, name: str | None) -> ServedModel:
        """Loaded and ready; the first one if no name is given. Raises ApiError if there is none of that name, RunError if it
        cannot be used."""
        return await self.service.model(self.find_model(name).id)

    def find_model(self, name: str | None) -> ServedModel:
        """As `model`, but perhaps not loaded. Ollama's clients add a tag to names."""
        if not name:
            return self.service.default
        served = self.service.find(name) or self.service.find(name.removesuffix(":latest"))
        if served is None:
            raise ApiError(404, f"model = {name!r}: there is none of that name. Choose {', '.join(self.service.models)}.",
                           "model", "model_not_found")
        return served

    @property
    def names(self) -> list[tuple[ServedModel, str]]:
        """Each model under each of its names, as lists of models show them."""
        return [(served, name) for served in self.service.models.values() for name in (served.id, *served.aliases)]


# Dependencies of every request are async: FastAPI would run a plain function in a thread.

async def get_serving(request: Request) -> Serving:
    return request.app.state.serving


State = Annotated[Serving, Depends(get_serving)]


async def require_json(request: Request) -> None:
    """Another site's page may send text and forms to a server on its reader's machine without asking; JSON it may not."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(415, f"Content-Type = {kind!r}: must be application/json.")


def _fail_fast(schema: object) -> object:
    """The schema, with lists and dicts in it validated up to their first mistake."""
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for part in parts:
        _fail_fast(part)
    if isinstance(schema, dict) and schema.get("type") in ("list", "dict"):
        schema["fail_fast"] = True
    return schema


class Body(BaseModel):
    """A request body: types are not converted, but 24.0 is 24; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, values: object) -> object:
        """Some languages have one kind of number, and write its point."""
        if not isinstance(values, dict):
            return values
        return {name: _as_whole(value) if isinstance(value, float | list) and _is_whole(cls, name) else value
                for name, value in values.items()}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> dict:
        """Only the first mistake is told, so that none of a hundred thousand others in the same list needs to be found."""
        return _fail_fast(handler(source))

    def one_of(self, *names: str) -> object:
        """The value of a field that has several names, under any of them."""
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(set(values.values())) > 1:
            raise ApiError(400, f"{' and '.join(values)}: mean the same but differ. Give one of them.", next(iter(values)))
        return next(iter(values.values()), None)


@cache
def _is_whole(body: type[BaseModel], name: str) -> bool:
    """Is it a field of a whole number, or of several?"""
    field = body.model_fields.get(name)
    kinds = () if field is None else get_args(field.annotation) or (field.annotation,)
    return (int in kinds or list[int] in kinds) and float not in kinds


def _as_whole(value: object) -> object:
    if isinstance(value, list):
        return [_as_whole(part) for part in value] if any(isinstance(part, float) for part in value) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


class StreamOptions(Body):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = Field(None, description="A last chunk says how many tokens there were.")
    continuous_usage_stats: bool | None = Field(None, description="Each chunk says how many tokens there are so far.")
    include_obfuscation: bool | None = Field(None, description="Not read: nothing is added to chunks.")


class Sampling(Body):
    """Fields that all generating endpoints have; null is the model's own default, else the engine's."""

    model: str | None = Field(None, description="The name of a model; the first one where there is none.")
    max_tokens: int | None = Field(None, ge=-2, description="-1, -2, or more than there is room for: as many as there is.")
    max_new_tokens: int | None = Field(None, ge=-2, description="The same as max_tokens.")
    n_predict: int | None = Field(None, ge=-2, description="The same as max_tokens.")
    min_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    min_new_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS, description="The same as min_tokens.")
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=MAX_TOKENS)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    repeat_penalty: float | None = Field(None, gt=0, le=10, description="The same as repetition_penalty.")
    seed: int | None = Field(None, ge=-1, le=LARGEST_SEED, description="-1 is none.")
    random_seed: int | None = Field(None, ge=-1, le=LARGEST_SEED, description="The same as seed.")
    stop: str | list[str] | None = Field(None, description="Texts that end the answer.")
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=100_000, description="Token id -> added to its logit.")
    allowed_token_ids: list[int] | None = Field(None, description="No other tokens may come.")
    bad_words: list[str] | None = Field(None, description="Texts that must not come.")
    prompt_logprobs: int | None = Field(None, ge=0, le=20, description="Of the prompt's tokens: the likeliest so many.")
    truncate_prompt_tokens: int | None = Field(None, ge=-1, description="A longer prompt loses its first tokens; -1: as many "
                                               "as leave room.")
    echo: bool | None = Field(None, description="What is continued comes first.")
    return_applied: bool | None = Field(None, description="The response says every parameter in force.")
    n: int | None = Field(None, ge=1, le=128)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    resumable: bool | None = Field(None, description="The stream goes on when the client hangs up, and can be read again.")

    def params(self, served: ServedModel, **more) -> SamplingParams:
        """Without max_tokens, which depends on the prompt."""
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "stop", "stop_token_ids",
                 "ignore_eos", "n", "allowed_token_ids", "bad_words")
        values = {name: getattr(self, name) for name in names} | {
            "min_tokens": self.one_of("min_tokens", "min_new_tokens"),
            "repetition_penalty": self.one_of("repetition_penalty", "repeat_penalty")}
        return SamplingParams(**{"max_tokens": MAX_TOKENS, "seed": self.stated_seed, "logit_bias": self._logit_bias(),
                                 **generation_defaults(served.folder),
                                 **{name: value for name, value in values.items() if value is not None}, **more})

    @property
    def stated_seed(self) -> int | None:
        seed = self.one_of("seed", "random_seed")
        return None if seed == -1 else seed

    @property
    def max_tokens_as_given(self) -> int | None:
        return self.one_of(*(name for name in MAX_TOKENS_NAMES if name in type(self).model_fields))

    @property
    def stated_max_tokens(self) -> int | None:
        """None: as many as there is room for."""
        most = self.max_tokens_as_given
        return None if most is None or most < 0 else most

    def _logit_bias(self) -> dict[int, float]:
        for key in self.logit_bias or {}:
            if not (key.isascii() and key.isdigit()):
                raise UserError(f"logit_bias: the key {key!r} is not a token id, a whole number from 0.")
        return {int(key): bias for key, bias in (self.logit_bias or {}).items()}

    def check_supported(self) -> None:
        """Raises ApiError for what cannot be honored, with the field."""
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options: only with stream = true.", "stream_options")
        if self.prompt_logprobs is not None and self.stream:
            raise ApiError(400, "prompt_logprobs: only without stream.", "prompt_logprobs")
        if self.truncate_prompt_tokens == 0:
            raise ApiError(400, "truncate_prompt_tokens = 0: leaves no prompt. Give -1, or how many tokens to keep.",
                           "truncate_prompt_tokens")

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)


def iso_time(seconds: float) -> str:
    """A time since 1970, as other APIs write it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def warning_field(warnings: Iterable[object]) -> dict:
    """The sentences, each of them once."""
    text = "; ".join(dict.fromkeys(str(warning).rstrip(".") for warning in warnings))
    return {"warning": text} if text else {}


def unknown_note(names: Sequence[str]) -> tuple[str, ...]:
    """What there is to say of fields that no known API has."""
    return (f"{', '.join(names)}: unknown here, and not read.",) if names else ()


def split_inputs(value: str | list) -> list[str | list[int]]:
    """The inputs of a field that holds a text, token ids, or several of either."""
    several = isinstance(value, list) and not (value and isinstance(value[0], int))
    return value if several else [value]


class Reply:
    """The answer of a generating endpoint: whole, a model from `complete`, or the data of a stream's events, from `events`."""

    stream_format: StreamFormat = SSE
    headers: Mapping[str, str] = {}

    def __init__(self, body: Sampling, handle: GenerationHandle):
        self.body, self.handle, self.replies = body, handle, handle.replies
        self.id, self.served, self.created = handle.name, handle.served, int(time.time())

    async def respond(self, streams: StreamRegistry) -> Response:
        headers = {"X-Request-Id": self.id, **self.headers}
        if self.body.stream:
            return streams.open(self.id, self.events(), bool(self.body.resumable), headers, self.stream_format)
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
        prompt, generated = self._counts
        thought = sum(reply.thought_tokens for reply in self.replies)
        return Usage(prompt_tokens=prompt, completion_tokens=generated, total_tokens=prompt + generated,
                     prompt_tokens_details={"cached_tokens": self.handle.cached_tokens},
                     completion_tokens_details={"reasoning_tokens": thought})

    @property
    def timings(self) -> Timings:
        """Speeds, named as in llama.cpp's server. The first tokens come with the prompt."""
        (prompt, generated), cached, first = self._counts, self.handle.cached_tokens, self.handle.first_token_seconds or 0.0
        later, computed = time.perf_counter() - self.handle.began - first, prompt - cached
        return Timings(cache_n=cached, prompt_n=computed, prompt_ms=round(1000 * first, 3),
                       prompt_per_second=round(computed / max(first, 1e-6), 2), predicted_n=generated,
                       predicted_ms=round(1000 * later, 3), predicted_per_second=round(generated / max(later, 1e-6), 2))


def encode_prompt(served: ServedModel, text: str, start: bool, parse_special: bool,
                  max_tokens: int | None) -> tuple[list[int], int]:
    """Ids of a raw prompt, and how many of them were put before it. Raises ContextOverflow for one that certainly has more than
    max_tokens.

    start: it begins as the tokenizer begins texts (`Tokenizer.start_ids`); nothing is added where the text says it itself.
    parse_special: special tokens in the text are read as such.
    """
    tokenizer = served.tokenizer
    try:
        tokenizer.check_length([text], max_tokens)
    except TextTooLong as error:
        raise ContextOverflow(f"prompt: {error}, and this model's maximum context length is {served.max_model_len} tokens. "
                              "Shorten it.") from error
    return tokenizer.prompt_ids(text, parse_special, start)
