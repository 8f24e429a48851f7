"""`/v1/completions`: raw prompts, which evaluation tools and editors send."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import chain

from fastapi import Request
from fastapi.responses import Response
from pydantic import Field

from spoutnik.engine.input_processor import check
from spoutnik.engine.sampling_params import LARGEST_SEED
from spoutnik.errors import UserError
from spoutnik.generation.completion import CompletionPlan, Completions
from spoutnik.generation.delta import CollectedReply, Delta
from spoutnik.generation.options import ContextOverflow, describe_context_length
from spoutnik.generation.service import GenerationHandle, ServedModel
from spoutnik.serve.api import schemas
from spoutnik.serve.api.common import Reply, Sampling, Serving, State, encode_prompt, split_inputs
from spoutnik.serve.api.logprobs import TextOffsets, text_logprobs
from spoutnik.serve.errors import GENERATION_ERRORS, ApiError, error_responses, raise_if_failed
from spoutnik.serve.json_body import api_router, off_loop
from spoutnik.serve.sse import cancel_on_disconnect, encode_json

router = api_router()
DEFAULT_TOKENS = 16  # OpenAI's
MAX_CHOICES = 2048


class CompletionRequest(Sampling):
    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = Field(None, description="The text begins with the prompt; with logprobs, of its tokens too.")
    logprobs: int | None = Field(None, ge=0, le=20)
    suffix: str | None = None
    best_of: int | None = None
    add_special_tokens: bool | None = Field(None, description="A prompt of text starts with the beginning of sentence.")
    parse_special: bool | None = Field(None, description="false: what looks like a special token is plain text.")

    def check_supported(self) -> None:
        super().check_supported()
        if self.suffix:
            raise ApiError(400, "suffix: this model does not fill in between. Leave it out.", "suffix")
        if self.best_of not in (None, self.n or 1):
            raise ApiError(400, f"best_of = {self.best_of}: must be n = {self.n or 1}. Leave it out.", "best_of")
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(400, "max_tokens = 0: only with echo = true.", "max_tokens")


@dataclass(frozen=True)
class Prompt:
    """text: what is echoed. hidden: how many of its first ids are not in the text."""

    text: str
    ids: list[int]
    hidden: int = 0


@router.post("/completions", responses=error_responses(*GENERATION_ERRORS) | {
    200: {"model": schemas.Completion, "content": {"text/event-stream": {}}, "description": "Completions, or their stream"}})
async def completions(body: CompletionRequest, request: Request, serving: State) -> Response:
    return await cancel_on_disconnect(request.receive, create(body, serving))


async def create(body: CompletionRequest, serving: Serving) -> Response:
    served = await serving.model(body.model)
    prompts, plan = await off_loop(plan_of, body, served)
    handle = serving.service.generate(served, plan, f"cmpl-{secrets.token_hex(12)}", Completions)
    return await CompletionReply(body, prompts, handle).respond(serving.streams)


def plan_of(body: CompletionRequest, served: ServedModel) -> tuple[list[Prompt], CompletionPlan]:
    """Raises ApiError or UserError for what cannot be honored."""
    body.check_supported()
    prompts = [_read_prompt(prompt, body, served) for prompt in split_inputs(body.prompt)]
    params = body.params(served, logprobs=body.logprobs, prompt_logprobs=body.logprobs if body.echo else None)
    if not 0 < len(prompts) * params.n <= MAX_CHOICES:
        raise ApiError(400, f"prompt: {len(prompts)} prompts with n = {params.n}; 1 to {MAX_CHOICES} completions can be asked "
                       "for at once.", "prompt")
    length = max(len(prompt.ids) for prompt in prompts)
    budget = served.llm.max_model_len - length
    max_tokens = body.max_tokens if body.max_tokens is not None else max(min(DEFAULT_TOKENS, budget), 1)
    if max(max_tokens, 1) > budget:
        raise ContextOverflow(f"max_tokens = {max_tokens}: with a prompt of {length} tokens at most {max(budget, 0)} fit, "
                              f"since {describe_context_length(served.llm)}. Lower it, or shorten the prompt.")
    params = replace(params, max_tokens=max(max_tokens, 1), seed=None)
    for prompt in prompts:
        check(prompt.ids, params, served.llm.config, served.tokenizer)
    random_seed = body.seed in (None, -1)
    seed = secrets.randbelow(LARGEST_SEED) if random_seed else body.seed
    return prompts, CompletionPlan([prompt.ids for prompt in prompts], params, seed, random_seed)


def _read_prompt(prompt: str | list[int], body: CompletionRequest, served: ServedModel) -> Prompt:
    if isinstance(prompt, str):
        if not prompt:
            raise UserError("prompt: is empty. Give it at least one token.")
        return Prompt(prompt, *encode_prompt(served.tokenizer, prompt, body.add_special_tokens is not False,
                                             body.parse_special is not False))
    valid = [token for token in prompt if 0 <= token < served.tokenizer.vocab_size]  # `check` refuses the others
    return Prompt(served.tokenizer.decode(valid, keep_special=True), prompt)


class CompletionReply(Reply):
    def __init__(self, body: CompletionRequest, prompts: list[Prompt], handle: GenerationHandle):
        super().__init__(body, handle)
        self.prompts, self.n = prompts, handle.plan.params.n
        self.replies = [CollectedReply() for _ in handle.replies]  # without the token that max_tokens = 0 computes
        self._offsets = [TextOffsets() for _ in self.replies]
        self._started: set[int] = set()

    async def deltas(self) -> AsyncIterator[Delta]:
        async with self.handle:
            async for deltas in self.handle:
                raise_if_failed(deltas)
                for delta in deltas:
                    if self.body.max_tokens == 0:
                        delta = Delta(delta.index, finish_reason="length")
                    self.replies[delta.index].add(delta)
                    yield delta

    async def complete(self) -> schemas.Completion:
        parts: list[list[dict]] = [[] for _ in self.replies]
        async for delta in self.deltas():
            parts[delta.index].append(self._choice(delta))
        choices = [_merge_parts(choice) for choice in parts]
        return schemas.Completion(**self.head("text_completion"), choices=choices, usage=self.usage, timings=self.timings)

    async def events(self) -> AsyncIterator[str]:
        left = len(self.replies)
        async for delta in self.deltas():
            left -= delta.finish_reason is not None
            more = {} if left else {"timings": self.timings.model_dump()}
            yield encode_json(self.head("text_completion") | {"choices": [self._choice(delta)]} | more)
        if self.body.include_usage:
            yield encode_json(self.head("text_completion") | {"choices": [], "usage": self.usage.model_dump()})
        yield "[DONE]"

    def _choice(self, delta: Delta) -> dict:
        """What is new of one choice; the first time, with the echoed prompt."""
        prompt, starts = self.prompts[delta.index // self.n], delta.index not in self._started
        self._started.add(delta.index)
        ids, candidates, hidden, text = delta.ids, delta.top_logprobs, 0, delta.answer
        if self.body.echo and starts:
            text = prompt.text + text
            if self.body.logprobs is not None:
                request = self.handle.job.requests[delta.index // self.n]
                ids, candidates, hidden = prompt.ids + ids, request.prompt_logprobs + candidates, prompt.hidden
        logprobs = None
        if self.body.logprobs is not None:
            logprobs = text_logprobs(self.served.tokenizer, ids, candidates, self._offsets[delta.index], hidden)
        return {"index": delta.index, "text": text, "logprobs": logprobs, "finish_reason": delta.finish_reason}


def _merge_parts(parts: list[dict]) -> dict:
    """The choice that its parts add up to."""
    choice = parts[-1] | {"text": "".join(part["text"] for part in parts)}
    if choice["logprobs"] is not None:
        choice["logprobs"] = {name: list(chain.from_iterable(part["logprobs"][name] for part in parts))
                              for name in choice["logprobs"]}
    return choice
