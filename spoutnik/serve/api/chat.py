"""`/v1/chat/completions`: replies as OpenAI's clients read them, whole or as they come."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from spoutnik.generation.delta import Delta, GenerationWarning
from spoutnik.generation.options import GenerationOptions, GenerationPlan
from spoutnik.generation.service import GenerationHandle, ServedModel
from spoutnik.generation.tools.calls import ToolCallStream, whole_calls
from spoutnik.generation.voting import VoteResult, vote
from spoutnik.serve.api.chat_request import ChatRequest, applied_of, plan_of
from spoutnik.serve.api.common import FINGERPRINT, Serving, State, timings, usage
from spoutnik.serve.api.logprobs import chat_logprobs
from spoutnik.serve.api.shapes import ChatCompletion
from spoutnik.serve.errors import ANY, ApiError, may_fail
from spoutnik.serve.sse import compact, unless_gone

router = APIRouter()
OPEN, CLOSE = "<think>\n", "\n</think>\n\n"  # around a thought that is part of the content


@router.post("/chat/completions", responses=may_fail(*ANY) | {
    200: {"model": ChatCompletion, "content": {"text/event-stream": {}}, "description": "A completion, or its stream"}})
async def chat_completions(body: ChatRequest, request: Request, serving: State) -> Response:
    # A stream notices by itself that its client has hung up.
    return await (answer(body, serving) if body.stream else unless_gone(request, answer(body, serving)))


async def answer(body: ChatRequest, serving: Serving) -> Response:
    reply = await begin(body, serving)
    headers = {"X-Request-Id": reply.id}
    if body.stream:
        return serving.streams.open(reply.id, reply.chunks(), bool(body.resumable), headers)
    return JSONResponse(await reply.whole(), headers=headers)


async def begin(body: ChatRequest, serving: Serving) -> "ChatReply":
    served = await serving.model(body.model)
    plan, options = plan_of(body, served) if body.brief else await asyncio.to_thread(plan_of, body, served)
    voting = (body.n_thoughts or 1) > 1
    running = plan.with_n(body.n_thoughts) if voting else plan
    name = f"chatcmpl-{secrets.token_hex(12)}"
    return ChatReply(body, plan, options, serving.service.generate(served, running, name))


class ChatChunkBuilder:
    """What a client sees of one reply: Deltas go in, OpenAI's come out."""

    def __init__(self, body: ChatRequest, served: ServedModel):
        self.tokenizer, self.format = served.tokenizer, body.shown_format
        self.shows_thought, self.top_logprobs = body.include_reasoning is not False, body.top_logprobs or 0
        self.calls = ToolCallStream(self.tokenizer, body.tool_set) if body.tools else None
        self.finish_reason: str | None = None
        self._open = False

    def feed(self, delta: Delta) -> dict:
        """What is new of content, reasoning_content, reasoning and tool_calls."""
        thought = delta.thought if self.shows_thought else ""
        answer, calls = self._called(delta)
        new: dict = {}
        if thought and self.format != "none":
            new |= {"reasoning_content": thought, "reasoning": thought}
        content = self._folded(thought, bool(answer or calls or delta.finish_reason)) + answer
        if content:
            new["content"] = content
        if calls:
            new["tool_calls"] = calls
        if delta.finish_reason:
            called = self.calls is not None and self.calls.began
            self.finish_reason = "tool_calls" if called and delta.finish_reason == "stop" else delta.finish_reason
        return new

    def _called(self, delta: Delta) -> tuple[str, list[dict]]:
        if self.calls is None:
            return delta.answer, []
        content, calls = self.calls.feed(delta.answer)
        if delta.finish_reason:
            rest, more = self.calls.close()
            content, calls = content + rest, calls + more
        return content, calls

    def _folded(self, thought: str, ends: bool) -> str:
        """A thought that is part of the content, between its marks."""
        if self.format == "deepseek":
            return ""
        text = thought
        if thought and not self._open:
            text, self._open = OPEN + text, True
        if ends and self._open:
            text, self._open = text + CLOSE, False
        return text

    def logprobs(self, delta: Delta) -> dict | None:
        content = chat_logprobs(self.tokenizer, delta.ids, delta.top_logprobs, self.top_logprobs)
        return {"content": content, "refusal": None} if content else None


class ChatReply:
    """One request and what it gets, as a stream of chunks or as a whole."""

    def __init__(self, body: ChatRequest, plan: GenerationPlan, options: GenerationOptions, handle: GenerationHandle):
        self.body, self.plan, self.options, self.handle = body, plan, options, handle
        self.id, self.served, self.created = handle.name, handle.served, int(time.time())
        self.wholes = handle.replies
        self.verdict: VoteResult | None = None
        self._chunk_head = compact(self._head("chat.completion.chunk"))[:-1] + ","  # the same in all chunks

    async def deltas(self) -> AsyncIterator[Delta]:
        """Of votes, the one reply that speaks for the majority, at the end.

        Raises:
            ApiError: the engine gave up.
        """
        if len(self.wholes) > self.plan.params.n:
            self.verdict = await vote(self.handle, raise_if_given_up)
            chosen = self.wholes[self.verdict.index]
            yield Delta(0, chosen.thought, chosen.answer, finish_reason=chosen.finish_reason, warnings=chosen.warnings)
        else:
            async with self.handle:
                async for deltas in self.handle:
                    raise_if_given_up(deltas)
                    for delta in deltas:
                        yield delta
        self._prepare()

    def _prepare(self) -> None:
        """The next turn will begin with this one."""
        if self.plan.params.n == 1 and not self.body.documents and not self.body.tools:
            answer = self.wholes[self.verdict.index if self.verdict else 0].answer
            messages = [*self.body.told, {"role": "assistant", "content": answer}]
            self.handle.service.warm_prefix(self.served, messages, self.options.template_variables)

    # ------------------------------------------------------------------------------------------------------ as a whole

    async def whole(self) -> dict:
        voices = [ChatChunkBuilder(self.body, self.served) for _ in range(self.plan.params.n)]
        news: list[list[dict]] = [[] for _ in voices]
        logprobs: list[list[dict]] = [[] for _ in voices]
        warnings: list[GenerationWarning] = []
        async for delta in self.deltas():
            news[delta.index].append(voices[delta.index].feed(delta))
            logprobs[delta.index] += (voices[delta.index].logprobs(delta) or {"content": []})["content"]
            warnings += delta.warnings
        choices = [{"index": index, "message": message_of(news[index]), "finish_reason": voice.finish_reason,
                    "logprobs": {"content": logprobs[index], "refusal": None} if self.body.logprobs else None}
                   for index, voice in enumerate(voices)]
        return self._head("chat.completion") | {"choices": choices, "usage": self.usage, "timings": self.timings} \
            | _warning(warnings) | self._applied | self._agreement

    # --------------------------------------------------------------------------------------------------- as it comes

    async def chunks(self) -> AsyncIterator[str]:
        """The data of the stream's events."""
        include_usage, more = self.body.include_usage, self._applied
        voices = [ChatChunkBuilder(self.body, self.served) for _ in range(self.plan.params.n)]
        for index in range(len(voices)):
            yield self._chunk(index, {"role": "assistant", "content": ""}, **more)
        async for delta in self.deltas():
            voice = voices[delta.index]
            new, logprobs, more = voice.feed(delta), voice.logprobs(delta), _warning(delta.warnings)
            if new or logprobs or more:
                yield self._chunk(delta.index, new, logprobs=logprobs, **more)
            if voice.finish_reason is not None:
                last = all(voice.finish_reason for voice in voices)
                more = {"timings": self.timings} | self._agreement if last else {}
                yield self._chunk(delta.index, {}, voice.finish_reason, **more)
        if include_usage:
            yield self._chunk_head + compact({"choices": [], "usage": self.usage})[1:]
        yield "[DONE]"

    def _chunk(self, index: int, new: dict, finish_reason: str | None = None, logprobs: dict | None = None, **more) -> str:
        choice = {"index": index, "delta": new, "finish_reason": finish_reason, "logprobs": logprobs}
        return self._chunk_head + compact({"choices": [choice]} | more)[1:]

    # ---------------------------------------------------------------------------------------------------------- parts

    def _head(self, kind: str) -> dict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served.id,
                "system_fingerprint": FINGERPRINT}

    @property
    def usage(self) -> dict:
        generated, thought = (sum(counts) for counts in zip(*((w.generated, w.thought_tokens) for w in self.wholes)))
        return usage(len(self.plan.prompt), generated, thought, self.handle.cached_tokens)

    @property
    def timings(self) -> dict:
        return timings(self.handle, len(self.plan.prompt), sum(whole.generated for whole in self.wholes))

    @property
    def _applied(self) -> dict:
        return {"applied": applied_of(self.body, self.served, self.plan)} if self.body.return_applied else {}

    @property
    def _agreement(self) -> dict:
        if self.verdict is None:
            return {}
        runners_up = [{"answer": answer, "votes": votes} for answer, votes in self.verdict.runners_up]
        return {"agreement": self.verdict.agreement, "runners_up": runners_up}


def message_of(news: list[dict]) -> dict:
    """The whole message from what was added bit by bit."""
    content = "".join(new.get("content", "") for new in news)
    calls = whole_calls([call for new in news for call in new.get("tool_calls", ())])
    message = {"role": "assistant", "content": None if calls and not content else content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    for name in ("reasoning_content", "reasoning"):
        if text := "".join(new.get(name, "") for new in news):
            message[name] = text
    return message


def raise_if_given_up(deltas: list[Delta]) -> None:
    for delta in deltas:
        if delta.finish_reason in ("error", "abort"):
            raise given_up(delta)


def given_up(delta: Delta) -> ApiError:
    """Why a reply has no end."""
    if delta.finish_reason == "abort":
        return ApiError(503, "the reply was given up: the server is shutting down.")
    return ApiError(500, f"the reply was given up: {delta.stop_reason}", code="engine_error")


def _warning(warnings: list[GenerationWarning]) -> dict:
    return {"warning": " ".join(dict.fromkeys(map(str, warnings)))} if warnings else {}
