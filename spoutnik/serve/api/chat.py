"""`/v1/chat/completions`, whole or as a stream."""

import secrets
from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.responses import Response

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.completion import CompletionPlan, Completions
from spoutnik.generation.conversation import Prefill
from spoutnik.generation.delta import Delta, GenerationWarning
from spoutnik.generation.options import GenerationOptions, GenerationPlan
from spoutnik.generation.service import GenerationHandle, ServedModel
from spoutnik.generation.tools.calls import ToolCallStream, whole_calls
from spoutnik.generation.voting import VoteResult, vote
from spoutnik.serve.api.chat_request import ChatRequest, applied_of, plan_of
from spoutnik.serve.api.common import Reply, Serving, State, warning_field
from spoutnik.serve.api.logprobs import chat_logprobs, prompt_logprobs
from spoutnik.serve.api.schemas import ChatCompletion
from spoutnik.serve.errors import GENERATION_ERRORS, error_responses, raise_if_failed
from spoutnik.serve.json_body import api_router, off_loop
from spoutnik.serve.sse import cancel_on_disconnect, encode_json

router = api_router()
OPEN, CLOSE = "<think>\n", "\n</think>\n\n"  # around a thought inside the content


@router.post("/chat/completions", responses=error_responses(*GENERATION_ERRORS) | {
    200: {"model": ChatCompletion, "content": {"text/event-stream": {}}, "description": "A completion, or its stream"}})
async def chat_completions(body: ChatRequest, request: Request, serving: State) -> Response:
    # A stream response notices by itself that its client has disconnected.
    return await (create(body, serving) if body.stream else cancel_on_disconnect(request.receive, create(body, serving)))


async def create(body: ChatRequest, serving: Serving) -> Response:
    served = await serving.model(body.model)
    plan, options = plan_of(body, served) if body.brief else await off_loop(plan_of, body, served)
    voting_plan = plan.with_n(body.n_thoughts) if (body.n_thoughts or 1) > 1 else plan
    name = f"chatcmpl-{secrets.token_hex(12)}"
    read = None
    if body.prompt_logprobs is not None:
        read = await read_prompt(serving, served, plan.prompt, body.prompt_logprobs, f"{name}-prompt")
    handle = serving.service.generate(served, voting_plan, name)
    return await ChatReply(body, plan, options, handle, read).respond(serving.streams)


async def read_prompt(serving: Serving, served: ServedModel, prompt: list[int], count: int, name: str) -> list:
    """The log-probabilities of a prompt's tokens. A reply has no place for them: its prompt may be in the cache."""
    plan = CompletionPlan([prompt], SamplingParams(max_tokens=1, prompt_logprobs=count), 0)
    async with serving.service.generate(served, plan, name, Completions) as handle:
        async for deltas in handle:
            raise_if_failed(deltas)
    return prompt_logprobs(served.tokenizer, handle.job.requests[0].prompt_logprobs, count)


class ChatChunkBuilder:
    """Turns the Deltas of one choice into OpenAI's deltas. prefill: what is continued, shown where the body says so."""

    def __init__(self, body: ChatRequest, served: ServedModel, prefill: Prefill | None = None):
        self.tokenizer, self.format = served.tokenizer, body.shown_format
        self.shows_thought, self.top_logprobs = body.thought_switches.shown, body.top_logprobs or 0
        self._echo = (prefill if body.echo else None) or Prefill()
        self.calls = ToolCallStream(self.tokenizer, body.tool_set) if body.tools else None
        self.finish_reason: str | None = None
        self._thought_open = False

    def feed(self, delta: Delta) -> dict:
        """What is new of content, reasoning_content, reasoning and tool_calls."""
        echo, self._echo = self._echo, Prefill()
        thought = echo.thought + delta.thought if self.shows_thought else ""
        answer, calls = self._split_tool_calls(delta)
        answer = echo.answer + answer
        fields: dict = {}
        if thought and self.format != "none":
            fields |= {"reasoning_content": thought, "reasoning": thought}
        content = self._inline_thought(thought, bool(answer or calls or delta.finish_reason)) + answer
        if content:
            fields["content"] = content
        if calls:
            fields["tool_calls"] = calls
        if delta.finish_reason:
            called = self.calls is not None and self.calls.began
            self.finish_reason = "tool_calls" if called and delta.finish_reason == "stop" else delta.finish_reason
        return fields

    def _split_tool_calls(self, delta: Delta) -> tuple[str, list[dict]]:
        if self.calls is None:
            return delta.answer, []
        content, calls = self.calls.feed(delta.answer)
        if delta.finish_reason:
            rest, more = self.calls.close()
            content, calls = content + rest, calls + more
        return content, calls

    def _inline_thought(self, thought: str, closes: bool) -> str:
        """The thought as a part of the content, between its tags."""
        if self.format == "deepseek":
            return ""
        if thought and not self._thought_open:
            thought, self._thought_open = OPEN + thought, True
        if closes and self._thought_open:
            thought, self._thought_open = thought + CLOSE, False
        return thought

    def logprobs(self, delta: Delta) -> list[dict]:
        return chat_logprobs(self.tokenizer, delta.ids, delta.top_logprobs, self.top_logprobs)


class ChatReply(Reply):
    """read: the log-probabilities of the prompt, where they were asked for."""

    def __init__(self, body: ChatRequest, plan: GenerationPlan, options: GenerationOptions, handle: GenerationHandle,
                 read: list | None = None):
        super().__init__(body, handle)
        self.plan, self.options, self.read = plan, options, read
        self.vote_result: VoteResult | None = None
        self._chunk_head = encode_json(self.head("chat.completion.chunk"))[:-1] + ","  # the same in all chunks

    async def deltas(self) -> AsyncIterator[Delta]:
        """With voting, only one at the end: a reply of the majority. Raises ApiError if the generation failed."""
        if len(self.replies) > self.plan.params.n:
            self.vote_result = await vote(self.handle, raise_if_failed)
            chosen = self.replies[self.vote_result.index]
            yield Delta(0, chosen.thought, chosen.answer, finish_reason=chosen.finish_reason, warnings=chosen.warnings)
        else:
            async with self.handle:
                async for deltas in self.handle:
                    raise_if_failed(deltas)
                    for delta in deltas:
                        yield delta
        self._warm_prefix()

    def _warm_prefix(self) -> None:
        """The next turn's prompt will begin with this turn."""
        if self.plan.params.n == 1 and not self.body.documents and not self.body.tools:
            answer = self.replies[self.vote_result.index if self.vote_result else 0].answer
            messages = self.body.template_messages
            if (prefill := self.plan.prefill) is not None:
                messages, answer = messages[:-1], prefill.answer + answer
            messages = [*messages, {"role": "assistant", "content": answer}]
            self.handle.service.warm_prefix(self.served, messages, self.options.template_variables)

    async def complete(self) -> ChatCompletion:
        builders = self._builders()
        deltas: list[list[dict]] = [[] for _ in builders]
        logprobs: list[list[dict]] = [[] for _ in builders]
        warnings: list[GenerationWarning] = []
        async for delta in self.deltas():
            deltas[delta.index].append(builders[delta.index].feed(delta))
            logprobs[delta.index] += builders[delta.index].logprobs(delta)
            warnings += delta.warnings
        choices = [{"index": index, "message": merge_deltas(deltas[index]), "finish_reason": builder.finish_reason,
                    "logprobs": {"content": logprobs[index], "refusal": None} if self.body.logprobs else None}
                   for index, builder in enumerate(builders)]
        return ChatCompletion(**self.head("chat.completion"), choices=choices, usage=self.usage, timings=self.timings,
                              **warning_field([*self.plan.notes, *warnings]), **self.applied_field, **self._agreement,
                              **({} if self.read is None else {"prompt_logprobs": self.read}))

    def _builders(self) -> list[ChatChunkBuilder]:
        return [ChatChunkBuilder(self.body, self.served, self.plan.prefill) for _ in range(self.plan.params.n)]

    async def events(self) -> AsyncIterator[str]:
        """The stream's chunks as JSON. They are plain dicts, not models: one is made for each token."""
        builders = self._builders()
        for index in range(len(builders)):
            notes = warning_field(self.plan.notes) if index == 0 else {}
            yield self._chunk(index, {"role": "assistant", "content": ""}, **notes, **self.applied_field)
        async for delta in self.deltas():
            builder = builders[delta.index]
            fields, logprobs, more = builder.feed(delta), builder.logprobs(delta), warning_field(delta.warnings)
            first, *others = one_call_each(fields)
            if first or logprobs or more:
                yield self._chunk(delta.index, first, logprobs=logprobs, **more)
            for fields in others:
                yield self._chunk(delta.index, fields)
            if builder.finish_reason is not None:
                last = all(builder.finish_reason for builder in builders)
                more = {"timings": self.timings.model_dump()} | self._agreement if last else {}
                yield self._chunk(delta.index, {}, builder.finish_reason, **more)
        if self.body.include_usage:
            yield self._chunk_head + encode_json({"choices": [], "usage": self.usage.model_dump()})[1:]
        yield "[DONE]"

    def _chunk(self, index: int, delta: dict, finish_reason: str | None = None, logprobs: list | None = None, **more) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason,
                  "logprobs": {"content": logprobs, "refusal": None} if logprobs else None}
        if self.body.continuous_usage:
            more["usage"] = self.usage.model_dump()
        return self._chunk_head + encode_json({"choices": [choice]} | more)[1:]

    @property
    def applied_field(self) -> dict:
        return {"applied": applied_of(self.body, self.served, self.plan)} if self.body.return_applied else {}

    @property
    def _agreement(self) -> dict:
        if self.vote_result is None:
            return {}
        runners_up = [{"answer": answer, "votes": votes} for answer, votes in self.vote_result.runners_up]
        return {"agreement": self.vote_result.agreement, "runners_up": runners_up}


def one_call_each(fields: dict) -> list[dict]:
    """A delta, in as many as it has calls: OpenAI sends no more than one of them in a chunk, and some clients read no more."""
    calls = fields.get("tool_calls", [])
    return [fields | {"tool_calls": calls[:1]} if calls else fields, *({"tool_calls": [call]} for call in calls[1:])]


def merge_deltas(deltas: list[dict]) -> dict:
    """The message that a choice's deltas add up to."""
    content = "".join(delta.get("content", "") for delta in deltas)
    calls = whole_calls([call for delta in deltas for call in delta.get("tool_calls", ())])
    message = {"role": "assistant", "content": None if calls and not content else content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    for name in ("reasoning_content", "reasoning"):
        if text := "".join(delta.get(name, "") for delta in deltas):
            message[name] = text
    return message
