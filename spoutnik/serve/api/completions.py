"""`/v1/completions`: raw prompts, which evaluation tools and editors send."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from fastapi import Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from spoutnik.engine.input_processor import check
from spoutnik.engine.sampling_params import LARGEST_SEED
from spoutnik.errors import UserError
from spoutnik.generation.completion import CompletionPlan, Completions
from spoutnik.generation.delta import CollectedReply, Delta
from spoutnik.generation.grammar import structured_output
from spoutnik.generation.options import ContextOverflow, applied_sampling, clamp_max_tokens, describe_context_length
from spoutnik.generation.service import GenerationHandle, ServedModel
from spoutnik.serve.api import schemas
from spoutnik.serve.api.answer_form import FormFields
from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.api.common import Reply, Sampling, Serving, State, encode_prompt, split_inputs, unknown_note, warning_field
from spoutnik.serve.api.fields import REFUSED, REMEDIES, unknown_fields
from spoutnik.serve.api.logprobs import TextOffsets, prompt_logprobs, text_logprobs
from spoutnik.serve.errors import GENERATION_ERRORS, ApiError, error_responses, raise_if_failed
from spoutnik.serve.json_body import api_router, off_loop
from spoutnik.serve.sse import cancel_on_disconnect, encode_json

router = api_router()
DEFAULT_TOKENS = 16  # OpenAI's
MAX_CHOICES = 2048


class CompletionRequest(FormFields, Sampling):
    model_config = ConfigDict(extra="allow")  # to see unsupported fields

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = Field(None, description="The text begins with the prompt; with logprobs, of its tokens too.")
    logprobs: int | None = Field(None, ge=0, le=20)
    max_completion_tokens: int | None = Field(None, ge=-2, description="The same as max_tokens.")
    suffix: str | None = None
    best_of: int | None = None
    add_special_tokens: bool | None = Field(None, description="A prompt of text begins as the tokenizer begins texts.")
    parse_special: bool | None = Field(None, description="false: what looks like a special token is plain text.")
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of this request. Raises ApiError for fields that would change the answer and are not served."""
        return unknown_note(unknown_fields(self.model_extra, COMPLETION_REFUSED, COMPLETION_REMEDIES))

    def check_supported(self) -> None:
        super().check_supported()
        _ = self.notes
        if self.suffix:
            raise ApiError(400, "suffix: this model does not fill in between. Leave it out.", "suffix")
        if self.best_of not in (None, self.n or 1):
            raise ApiError(400, f"best_of = {self.best_of}: must be n = {self.n or 1}. Leave it out.", "best_of")


# A raw prompt has no messages, tools or thought.
_CHAT_ONLY = ChatRequest.model_fields.keys() - CompletionRequest.model_fields.keys()
COMPLETION_REFUSED = REFUSED | {name: ([], {}, False, "none") for name in _CHAT_ONLY}
COMPLETION_REMEDIES = REMEDIES | dict.fromkeys(_CHAT_ONLY, "It belongs to /v1/chat/completions.")


@dataclass(frozen=True)
class Prompt:
    """text: what is echoed. hidden: how many of its first ids are not in the text. notes: what there is to say of it."""

    text: str
    ids: list[int]
    hidden: int = 0
    notes: tuple[str, ...] = ()


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
    inputs, n = split_inputs(body.prompt), body.n or 1
    if not 0 < len(inputs) * n <= MAX_CHOICES:
        raise ApiError(400, f"prompt: {len(inputs)} prompts with n = {n}; 1 to {MAX_CHOICES} completions can be asked for at "
                       "once.", "prompt")
    prompts = [_read_prompt(prompt, body, served) for prompt in inputs]
    wanted = [count for count in (body.logprobs if body.echo else None, body.prompt_logprobs) if count is not None]
    texts = {name: value for name in ("include_stop_str_in_output", "skip_special_tokens")
             if (value := getattr(body, name)) is not None}
    params = body.params(served, logprobs=body.logprobs, prompt_logprobs=max(wanted, default=None), **texts)
    length = max(len(prompt.ids) for prompt in prompts)
    left = served.llm.max_model_len - length
    if left < 1:
        raise ContextOverflow(f"prompt: has {length} tokens, which leaves no room for more: "
                              f"{describe_context_length(served.llm)}. Shorten it by {1 - left} tokens or more.")
    unbounded = body.max_tokens_as_given is not None and body.stated_max_tokens is None
    asked = None if unbounded else min(DEFAULT_TOKENS, left) if body.stated_max_tokens is None else body.stated_max_tokens
    max_tokens, notes = clamp_max_tokens(served.llm, asked, left, length)
    params = replace(params, max_tokens=max(max_tokens, 1), seed=None)
    for prompt in prompts:
        check(prompt.ids, params, served.llm.config, served.tokenizer)
    form = body.form
    make_processor = None if form is None else structured_output(served.llm, form, after_thought=False)
    seed = body.stated_seed
    return prompts, CompletionPlan([prompt.ids for prompt in prompts], params,
                                   secrets.randbelow(LARGEST_SEED) if seed is None else seed, seed is None, make_processor,
                                   (*body.notes, *notes, *(note for prompt in prompts for note in prompt.notes)))


def _read_prompt(prompt: str | list[int], body: CompletionRequest, served: ServedModel) -> Prompt:
    if isinstance(prompt, str):
        if not prompt:
            raise UserError("prompt: is empty. Give it at least one token.")
        limit = served.max_model_len if body.truncate_prompt_tokens is None else None
        ids, hidden = encode_prompt(served, prompt, body.add_special_tokens is not False, body.parse_special is not False,
                                    limit)
        return _truncate(Prompt(prompt, ids, hidden), body, served)
    valid = [token for token in prompt if 0 <= token < served.tokenizer.vocab_size]  # `check` refuses the others
    return _truncate(Prompt(served.tokenizer.decode(valid, keep_special=True), prompt), body, served)


def _truncate(prompt: Prompt, body: CompletionRequest, served: ServedModel) -> Prompt:
    """Its last tokens, after what the tokenizer puts before a text."""
    most = body.truncate_prompt_tokens
    if most == -1:
        most = max(served.llm.max_model_len - max(body.stated_max_tokens or DEFAULT_TOKENS, 1), 1)
    if most is None or len(prompt.ids) <= most:
        return prompt
    start = prompt.ids[:prompt.hidden] if prompt.hidden < most else []
    kept = prompt.ids[len(prompt.ids) - most + len(start):]
    valid = [token for token in kept if 0 <= token < served.tokenizer.vocab_size]
    note = (f"truncate_prompt_tokens: the first {len(prompt.ids) - most} of the prompt's {len(prompt.ids)} tokens were left "
            "out.")
    return Prompt(served.tokenizer.decode(valid, keep_special=True), start + kept, len(start), (note,))


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
                    if self.body.stated_max_tokens == 0:
                        delta = Delta(delta.index, finish_reason="length")
                    self.replies[delta.index].add(delta)
                    yield delta

    async def complete(self) -> schemas.Completion:
        parts: list[list[dict]] = [[] for _ in self.replies]
        async for delta in self.deltas():
            parts[delta.index].append(self._choice(delta))
        choices = [_merge_parts(choice) for choice in parts]
        if self.body.prompt_logprobs is not None:
            for choice in choices:
                choice["prompt_logprobs"] = self._prompt_logprobs(choice["index"])
        return schemas.Completion(**self.head("text_completion"), choices=choices, usage=self.usage, timings=self.timings,
                                  **self._said)

    @property
    def _said(self) -> dict:
        """What there is to say of the whole."""
        return warning_field(self.handle.plan.notes) | self.applied_field

    @property
    def applied_field(self) -> dict:
        plan = self.handle.plan
        applied = applied_sampling(plan.params) | {
            "max_tokens": 0 if self.body.stated_max_tokens == 0 else plan.params.max_tokens, "model": self.served.id,
            "seed": plan.seed, "prompt_tokens": len(plan.prompt), "structured_output": plan.make_logits_processor is not None,
            "notes": list(plan.notes)}
        return {"applied": applied} if self.body.return_applied else {}

    def _prompt_logprobs(self, index: int) -> list[dict | None]:
        count, candidates = self.body.prompt_logprobs, self.handle.job.requests[index // self.n].prompt_logprobs
        own = self.prompts[index // self.n].ids
        likeliest = [at and _likeliest(at, token, count) for at, token in zip(candidates, own)]
        return prompt_logprobs(self.served.tokenizer, likeliest, count)

    async def events(self) -> AsyncIterator[str]:
        left, more = len(self.replies), self._said
        async for delta in self.deltas():
            left -= delta.finish_reason is not None
            more |= {} if left else {"timings": self.timings.model_dump()}
            if self.body.continuous_usage:
                more["usage"] = self.usage.model_dump()
            yield encode_json(self.head("text_completion") | {"choices": [self._choice(delta)]} | more)
            more = {}
        if self.body.include_usage:
            yield encode_json(self.head("text_completion") | {"choices": [], "usage": self.usage.model_dump()})
        yield "[DONE]"

    def _choice(self, delta: Delta) -> dict:
        """What is new of one choice; the first time, with the echoed prompt."""
        prompt, starts = self.prompts[delta.index // self.n], delta.index not in self._started
        self._started.add(delta.index)
        ids, candidates, hidden, text = delta.ids, delta.top_logprobs, 0, delta.answer
        echoed = prompt.text if self.body.echo and starts else ""
        if echoed:
            text = echoed + text
            if self.body.logprobs is not None:
                request = self.handle.job.requests[delta.index // self.n]
                ids, candidates, hidden = prompt.ids + ids, request.prompt_logprobs + candidates, prompt.hidden
                candidates = [at and _likeliest(at, token, self.body.logprobs) for at, token in zip(candidates, ids)]
        logprobs = None
        if self.body.logprobs is not None:
            logprobs = text_logprobs(self.served.tokenizer, ids, candidates, self._offsets[delta.index], hidden, echoed)
        return {"index": delta.index, "text": text, "logprobs": logprobs, "finish_reason": delta.finish_reason}


def _likeliest(candidates: dict[int, float], token: int, count: int) -> dict[int, float]:
    """The first `count` ones and the token itself: echo and prompt_logprobs may ask for different numbers."""
    return dict(list(candidates.items())[:count]) | {token: candidates[token]}


def _merge_parts(parts: list[dict]) -> dict:
    """The choice that its parts add up to."""
    choice = parts[-1] | {"text": "".join(part["text"] for part in parts)}
    if choice["logprobs"] is not None:
        choice["logprobs"] = {name: list(chain.from_iterable(part["logprobs"][name] for part in parts))
                              for name in choice["logprobs"]}
    return choice
