"""Requests of `/v1/chat/completions`, and the generation plan that each becomes."""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from spoutnik.generation.grammar import structured_output
from spoutnik.generation.options import EFFORTS, GenerationOptions, GenerationPlan, applied, plan_chat
from spoutnik.generation.service import ServedModel
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.serve.api.common import MAX_TOKENS, Body, Sampling
from spoutnik.serve.errors import ApiError
from spoutnik.text import chat_template

# Fields of OpenAI's API and of other servers that would change the answer and are not supported here.
UNSUPPORTED = ("functions", "function_call", "audio", "web_search_options", "guided_json", "guided_regex", "guided_choice",
           "guided_grammar", "structured_outputs", "grammar", "json_schema", "continue_final_message", "verbosity")
MAX_THOUGHTS = 64
SHORT_PROMPT = 2000  # characters; each message counts as 100 more


class TextPart(Body):
    type: Literal["text"]
    text: str


def text_only(content: object) -> object:
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type", "text") != "text":
            raise ValueError(f"this model reads text alone; a part of type {part['type']!r} cannot be read")
    return content


class ToolCall(Body):
    class Function(Body):
        name: str
        arguments: str | dict[str, Any]

    id: str | None = None
    type: Literal["function"] = "function"
    function: Function


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | list[TextPart] | None, BeforeValidator(text_only)] = None
    name: str | None = None
    reasoning_content: str | None = Field(None, description="A past thought; most models' templates drop it.")
    reasoning: str | None = Field(None, description="The same as reasoning_content.")
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def for_template(self) -> chat_template.Message:
        content = "\n".join(part.text for part in self.content) if isinstance(self.content, list) else self.content
        if content is None and not self.tool_calls:
            content = ""
        role = "system" if self.role == "developer" else self.role
        calls = [call.model_dump(exclude_unset=True) for call in self.tool_calls or ()] or None
        more = {"name": self.name, "reasoning_content": self.one_of("reasoning_content", "reasoning"), "tool_calls": calls,
                "tool_call_id": self.tool_call_id}
        return {"role": role, "content": content} | {key: value for key, value in more.items() if value is not None}


class ChatRequest(Sampling):
    model_config = ConfigDict(extra="allow")  # to see unsupported fields

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="Of thought and answer.")
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="The same as max_tokens.")
    logprobs: bool | None = Field(None, description="Of the answer's tokens.")
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    documents: list[dict[str, Any]] | None = None
    reasoning_effort: Literal[tuple(EFFORTS)] | None = None
    max_thinking_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    thinking_token_budget: int | None = Field(None, ge=0, le=MAX_TOKENS, description="The same as max_thinking_tokens.")
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="What else the model's template reads.")
    detect_loops: bool | None = Field(None, description="A thought that goes in circles is closed; true by default.")
    reasoning_format: Literal["auto", "deepseek", "deepseek-legacy", "none"] | None = Field(
        None, description="Where the thought goes: beside the content, into it (none), or both (deepseek-legacy).")
    include_reasoning: bool | None = Field(None, description="false: the thought is not shown.")
    n_thoughts: int | None = Field(None, ge=1, le=MAX_THOUGHTS, description="Thinks so many times; the answers vote.")
    return_applied: bool | None = Field(None, description="The response says every parameter in force.")

    @property
    def shown_format(self) -> str:
        return "deepseek" if self.reasoning_format in (None, "auto") else self.reasoning_format

    @cached_property
    def tool_set(self) -> ToolSet:
        return ToolSet.parse(self.tools, self.tool_choice)

    @property
    def template_messages(self) -> list[chat_template.Message]:
        return [message.for_template for message in self.messages]

    @property
    def brief(self) -> bool:
        """Whether planning it takes less time than waking a thread."""
        if self.tools or self.response_format or self.documents or self.chat_template_kwargs:
            return False
        return sum(100 + len(message.content or "") if isinstance(message.content, str | None) else SHORT_PROMPT
                   for message in self.messages) < SHORT_PROMPT

    def check_supported(self) -> None:
        super().check_supported()
        for name in UNSUPPORTED:
            if (self.model_extra or {}).get(name):
                raise ApiError(400, f"{name}: is not served here. Leave it out.", name)
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs: only with logprobs = true.", "top_logprobs")
        for name, value in (("n", (self.n or 1) > 1), ("logprobs", self.logprobs), ("tools", self.tools)):
            if (self.n_thoughts or 1) > 1 and value:
                raise ApiError(400, f"n_thoughts = {self.n_thoughts}: the votes are over answers in words. Leave out {name}.",
                               "n_thoughts")


def options_of(request: ChatRequest, served: ServedModel) -> GenerationOptions:
    """Raises ApiError or UserError for what cannot be honored."""
    variables = dict(request.chat_template_kwargs or {})
    thinks = variables.pop("enable_thinking", None)
    if not isinstance(thinks, bool | None):
        raise ApiError(400, f"enable_thinking = {thinks!r}: must be true or false.", "chat_template_kwargs.enable_thinking")
    if None not in (thinks, request.enable_thinking) and thinks != request.enable_thinking:
        raise ApiError(400, "enable_thinking: chat_template_kwargs says otherwise. Give one of them.", "enable_thinking")
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    make_logits_processor = None
    if request.tool_set.callable or request.response_format:
        make_logits_processor = structured_output(served.llm, request.response_format, request.tool_set,
                                                  request.parallel_tool_calls is not False)
    return GenerationOptions(params=request.params(served, logprobs=logprobs),
                             max_tokens=request.one_of("max_completion_tokens", "max_tokens"),
                             max_thinking_tokens=request.one_of("max_thinking_tokens", "thinking_token_budget"),
                             reasoning_effort=request.reasoning_effort,
                             enable_thinking=thinks if request.enable_thinking is None else request.enable_thinking,
                             tools=request.tool_set, documents=request.documents, variables=variables,
                             detect_loops=request.detect_loops is not False, make_logits_processor=make_logits_processor)


def plan_of(request: ChatRequest, served: ServedModel) -> tuple[GenerationPlan, GenerationOptions]:
    """Raises ApiError or UserError. Takes too long for the event loop unless the request is `brief`."""
    request.check_supported()
    options = options_of(request, served)
    return plan_chat(served.llm, request.template_messages, options), options


def applied_of(request: ChatRequest, served: ServedModel, plan: GenerationPlan) -> dict:
    """Every parameter in force."""
    return applied(plan) | {"model": served.id, "stream": bool(request.stream), "n_thoughts": request.n_thoughts or 1,
                            "reasoning_format": request.shown_format, "resumable": bool(request.resumable),
                            "include_reasoning": request.include_reasoning is not False,
                            "tool_choice": request.tool_choice or ("auto" if request.tools else "none"),
                            "parallel_tool_calls": request.parallel_tool_calls is not False}
