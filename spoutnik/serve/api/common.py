"""What all parts of the API share: the server's state, the body's type, and the fields about sampling."""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from spoutnik import __version__
from spoutnik.engine.sampling_params import LARGEST_SEED, SamplingParams
from spoutnik.errors import UserError
from spoutnik.files import read_json
from spoutnik.generation.service import GenerationHandle, GenerationService, ServedModel
from spoutnik.serve.errors import ApiError
from spoutnik.serve.settings import Settings
from spoutnik.serve.streams import Streams
from spoutnik.text.tokenizer import Tokenizer

FINGERPRINT = f"spoutnik-{__version__}"
MOST_TOKENS = 2 ** 31


@dataclass
class Serving:
    """The state of an app."""

    service: GenerationService
    settings: Settings
    streams: Streams

    async def model(self, name: str | None) -> ServedModel:
        """Ready to compute. No name means the first model.

        Raises:
            ApiError: there is none of that name. RunError: it cannot be used.
        """
        self.known(name)
        return await self.service.model(name)

    def known(self, name: str | None) -> ServedModel:
        """As `model`, but it may not be loaded."""
        if name and name not in self.service.models:
            raise ApiError(404, f"model = {name!r}: there is none of that name. Choose {', '.join(self.service.models)}.",
                           "model", "model_not_found")
        return self.service.models[name] if name else self.service.default


# What every request depends on is async: FastAPI would have a thread call a plain function.

async def serving_of(request: Request) -> Serving:
    return request.app.state.serving


State = Annotated[Serving, Depends(serving_of)]


async def json_body(request: Request) -> None:
    """A page of another site may send texts and forms to a server on the reader's machine without asking; JSON it may not."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(415, f"Content-Type = {kind!r}: must be application/json.")


class Body(BaseModel):
    """Types are what JSON says, no guesses; fields that nobody knows are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    def one_of(self, *names: str) -> object:
        """The value of a field that has several names, under any of them."""
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(set(given.values())) > 1:
            raise ApiError(400, f"{' and '.join(given)}: mean the same but differ. Give one of them.", next(iter(given)))
        return next(iter(given.values()), None)


class StreamOptions(Body):
    include_usage: bool | None = Field(None, description="A last chunk says how many tokens there were.")


class Sampling(Body):
    """How tokens are chosen; null is the model's own default, else the engine's."""

    model: str | None = Field(None, description="The name of a model; the first one where there is none.")
    max_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
    min_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=MOST_TOKENS)
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

    def params(self, served: ServedModel, **more) -> SamplingParams:
        """max_tokens is the caller's to say."""
        names = ("min_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
                 "repetition_penalty", "stop", "stop_token_ids", "ignore_eos", "n")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        seed = None if self.seed == -1 else self.seed
        return SamplingParams(**{"max_tokens": MOST_TOKENS, "seed": seed, "logit_bias": self._biases(),
                                 **generation_defaults(served.folder), **given, **more})

    def _biases(self) -> dict[int, float]:
        for key in self.logit_bias or {}:
            if not (key.isascii() and key.isdigit()):
                raise UserError(f"logit_bias: the key {key!r} is not a token id, a whole number from 0.")
        return {int(key): bias for key, bias in (self.logit_bias or {}).items()}

    def refuse(self) -> None:
        """What cannot be honoured.

        Raises:
            ApiError: with the field.
        """
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options: only with stream = true.", "stream_options")

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


@cache
def generation_defaults(folder: Path) -> dict[str, float]:
    """What the model's makers recommend, in generation_config.json."""
    path = folder / "generation_config.json"
    config = read_json(path) if path.exists() else {}
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    return {name: config[name] for name in names if config.get(name) is not None}


def usage(prompt: int, generated: int, thought: int, cached: int) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": cached},
            # What closed a thought was not generated, so it is not billed as thought either.
            "completion_tokens_details": {"reasoning_tokens": min(thought, generated)}}


def timings(handle: GenerationHandle, prompt: int, generated: int) -> dict:
    """Speeds, in the names that llama.cpp's users know. The first tokens come with the prompt."""
    first = handle.first_token_seconds or 0.0
    later, computed = time.perf_counter() - handle.began - first, prompt - handle.cached_tokens
    return {"cache_n": handle.cached_tokens, "prompt_n": computed, "prompt_ms": round(1000 * first, 3),
            "prompt_per_second": round(computed / max(first, 1e-6), 2),
            "predicted_n": generated, "predicted_ms": round(1000 * later, 3),
            "predicted_per_second": round(generated / max(later, 1e-6), 2)}


def raw_ids(tokenizer: Tokenizer, text: str, start: bool, parse_special: bool) -> tuple[list[int], int]:
    """Ids of a text that the caller composed, special tokens with it, and how many of them were put before it: with `start`, a
    beginning of sentence where it has none."""
    ids = tokenizer.bpe.encode(text, add_special_tokens=False).ids if parse_special else tokenizer.encode(text)
    added = tokenizer.start_ids if start and ids[:1] != tokenizer.start_ids else []
    return added + ids, len(added)
