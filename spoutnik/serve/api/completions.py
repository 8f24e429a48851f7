"""`/v1/completions`: raw prompts, as evaluation tools and editors send them."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import chain

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from spoutnik.engine.input_processor import check
from spoutnik.engine.sampling_params import LARGEST_SEED
from spoutnik.errors import UserError
from spoutnik.generation.completion import CompletionPlan, Completions
from spoutnik.generation.delta import CollectedReply, Delta
from spoutnik.generation.options import ContextOverflow, context_length
from spoutnik.generation.service import GenerationHandle, ServedModel
from spoutnik.serve.api.chat import given_up
from spoutnik.serve.api.common import FINGERPRINT, Sampling, Serving, State, raw_ids, timings, usage
from spoutnik.serve.api.logprobs import text_logprobs
from spoutnik.serve.api.shapes import TextCompletion
from spoutnik.serve.errors import ANY, ApiError, may_fail
from spoutnik.serve.sse import compact, unless_gone

router = APIRouter()
DEFAULT_TOKENS = 16  # OpenAI's
MOST_CHOICES = 2048


class CompletionRequest(Sampling):
    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = Field(None, description="The text begins with the prompt; with logprobs, of its tokens too.")
    logprobs: int | None = Field(None, ge=0, le=20)
    suffix: str | None = None
    best_of: int | None = None
    add_special_tokens: bool | None = Field(None, description="A prompt of text starts with the beginning of sentence.")
    parse_special: bool | None = Field(None, description="false: what looks like a special token is plain text.")
    resumable: bool | None = None

    def refuse(self) -> None:
        super().refuse()
        if self.suffix:
            raise ApiError(400, "suffix: this model does not fill in between. Leave it out.", "suffix")
        if self.best_of not in (None, self.n or 1):
            raise ApiError(400, f"best_of = {self.best_of}: must be n = {self.n or 1}. Leave it out.", "best_of")
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(400, "max_tokens = 0: only with echo = true.", "max_tokens")

    @property
    def prompts(self) -> list[str | list[int]]:
        several = isinstance(self.prompt, list) and not (self.prompt and isinstance(self.prompt[0], int))
        return self.prompt if several else [self.prompt]


@dataclass(frozen=True)
class Prompt:
    """text: as it is echoed. unseen: how many of its first ids are not in the text."""

    text: str
    ids: list[int]
    unseen: int = 0


@router.post("/completions", responses=may_fail(*ANY) | {
    200: {"model": TextCompletion, "content": {"text/event-stream": {}}, "description": "Completions, or their stream"}})
async def completions(body: CompletionRequest, request: Request, serving: State) -> Response:
    return await unless_gone(request, answer(body, serving))


async def answer(body: CompletionRequest, serving: Serving) -> Response:
    served = await serving.model(body.model)
    prompts, plan = await asyncio.to_thread(plan_of, body, served)
    handle = serving.service.generate(served, plan, f"cmpl-{secrets.token_hex(12)}", Completions)
    reply = Completion(body, served, prompts, handle)
    headers = {"X-Request-Id": handle.name}
    if body.stream:
        return serving.streams.open(handle.name, reply.chunks(), bool(body.resumable), headers)
    return JSONResponse(await reply.whole(), headers=headers)


def plan_of(body: CompletionRequest, served: ServedModel) -> tuple[list[Prompt], CompletionPlan]:
    """Raises ApiError or UserError where something cannot be honoured."""
    body.refuse()
    prompts = [_read(prompt, body, served) for prompt in body.prompts]
    params = body.params(served, logprobs=body.logprobs, prompt_logprobs=body.logprobs if body.echo else None)
    if not 0 < len(prompts) * params.n <= MOST_CHOICES:
        raise ApiError(400, f"prompt: {len(prompts)} prompts with n = {params.n}; 1 to {MOST_CHOICES} completions can be asked "
                       "for at once.", "prompt")
    config = served.llm.config
    length = max(len(prompt.ids) for prompt in prompts)
    room = served.llm.max_model_len - length
    asked = body.max_tokens if body.max_tokens is not None else max(min(DEFAULT_TOKENS, room), 1)
    if max(asked, 1) > room:
        raise ContextOverflow(f"max_tokens = {asked}: with a prompt of {length} tokens at most {max(room, 0)} fit, since "
                              f"{context_length(served.llm)}. Lower it, or shorten the prompt.")
    params = replace(params, max_tokens=max(asked, 1), seed=None)
    for prompt in prompts:
        check(prompt.ids, params, config, served.tokenizer)
    seed = None if body.seed == -1 else body.seed
    return prompts, CompletionPlan([prompt.ids for prompt in prompts], params,
                                   secrets.randbelow(LARGEST_SEED) if seed is None else seed, seed is None)


def _read(prompt: str | list[int], body: CompletionRequest, served: ServedModel) -> Prompt:
    if isinstance(prompt, str):
        if not prompt:
            raise UserError("prompt: is empty. Give it at least one token.")
        ids, added = raw_ids(served.tokenizer, prompt, body.add_special_tokens is not False, body.parse_special is not False)
        return Prompt(prompt, ids, added)
    known = [token for token in prompt if 0 <= token < served.tokenizer.vocab_size]  # others are refused below
    return Prompt(served.tokenizer.decode(known, keep_special=True), prompt)


class Completion:
    """One request and what it gets."""

    def __init__(self, body: CompletionRequest, served: ServedModel, prompts: list[Prompt], handle: GenerationHandle):
        self.body, self.served, self.prompts, self.handle = body, served, prompts, handle
        self.n = handle.plan.params.n
        self.created = int(time.time())
        self.wholes = [CollectedReply() for _ in range(len(prompts) * self.n)]
        self._length = [0] * len(self.wholes)  # of the texts given out
        self._begun: set[int] = set()

    async def deltas(self) -> AsyncIterator[Delta]:
        async with self.handle:
            async for delta in _each(self.handle):
                if delta.finish_reason in ("error", "abort"):
                    raise given_up(delta)
                if self.body.max_tokens == 0:
                    delta = Delta(delta.index, finish_reason="length")
                self.wholes[delta.index].add(delta)
                yield delta

    async def whole(self) -> dict:
        parts: list[list[dict]] = [[] for _ in self.wholes]
        async for delta in self.deltas():
            parts[delta.index].append(self._choice(delta))
        choices = [_joined(choice) for choice in parts]
        return self._head() | {"choices": choices, "usage": self._usage, "timings": self._timings}

    async def chunks(self) -> AsyncIterator[str]:
        left = len(self.wholes)
        async for delta in self.deltas():
            left -= delta.finish_reason is not None
            more = {} if left else {"timings": self._timings}
            yield compact(self._head() | {"choices": [self._choice(delta)]} | more)
        if self.body.include_usage:
            yield compact(self._head() | {"choices": [], "usage": self._usage})
        yield "[DONE]"

    def _choice(self, delta: Delta) -> dict:
        """What is new of one; the first time, the prompt that is echoed."""
        prompt, begins = self.prompts[delta.index // self.n], delta.index not in self._begun
        self._begun.add(delta.index)
        echoed = prompt.text if self.body.echo and begins else ""
        ids, likely, unseen = delta.ids, delta.top_logprobs, 0
        if self.body.echo and begins and self.body.logprobs is not None:
            request = self.handle.job.requests[delta.index // self.n]
            ids, likely, unseen = prompt.ids + ids, request.prompt_logprobs + likely, prompt.unseen
        logprobs = None
        if self.body.logprobs is not None:
            logprobs = text_logprobs(self.served.tokenizer, ids, likely, self._length[delta.index], unseen)
        text = echoed + delta.answer
        self._length[delta.index] += len(text)
        return {"index": delta.index, "text": text, "logprobs": logprobs, "finish_reason": delta.finish_reason}

    def _head(self) -> dict:
        return {"id": self.handle.name, "object": "text_completion", "created": self.created, "model": self.served.id,
                "system_fingerprint": FINGERPRINT}

    @property
    def _generated(self) -> int:
        return sum(whole.generated for whole in self.wholes)

    @property
    def _usage(self) -> dict:
        return usage(sum(len(prompt.ids) for prompt in self.prompts), self._generated, 0, self.handle.cached_tokens)

    @property
    def _timings(self) -> dict:
        return timings(self.handle, sum(len(prompt.ids) for prompt in self.prompts), self._generated)


async def _each(handle: GenerationHandle) -> AsyncIterator[Delta]:
    async for deltas in handle:
        for delta in deltas:
            yield delta


def _joined(parts: list[dict]) -> dict:
    """A choice from its pieces."""
    whole = parts[-1] | {"text": "".join(part["text"] for part in parts)}
    if whole["logprobs"] is not None:
        whole["logprobs"] = {name: list(chain.from_iterable(part["logprobs"][name] for part in parts))
                             for name in whole["logprobs"]}
    return whole
