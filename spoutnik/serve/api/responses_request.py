"""Requests of `/v1/responses`, and the chat request that each becomes."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from spoutnik.errors import UserError
from spoutnik.generation.options import EFFORTS
from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.api.common import MAX_TOKENS, Body, Sampling
from spoutnik.serve.errors import ApiError

# They refer to stored responses; nothing is stored here.
STORED = ("previous_response_id", "conversation", "prompt")
LOGPROBS = "message.output_text.logprobs"
# Error messages begin with the field of the chat request: its name here.
FIELD_NAMES = {"response_format.json_schema": "text.format", "response_format": "text.format", "messages": "input",
               "max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort"}


class Part(Body):
    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text"]
    text: str


Parts = Annotated[list[Part], BeforeValidator(lambda text: [{"type": "text", "text": text}] if isinstance(text, str) else text,
                                              json_schema_input_type=str | list[Part])]


class MessageItem(Body):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Parts


class ReasoningItem(Body):
    type: Literal["reasoning"]
    content: list[Part] | None = None


class FunctionCallItem(Body):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class FunctionCallOutputItem(Body):
    type: Literal["function_call_output"]
    call_id: str
    output: Parts


def _kind(item: object) -> object:
    return item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)


Item = Annotated[Annotated[MessageItem, Tag("message")] | Annotated[ReasoningItem, Tag("reasoning")]
                 | Annotated[FunctionCallItem, Tag("function_call")]
                 | Annotated[FunctionCallOutputItem, Tag("function_call_output")], Discriminator(_kind)]


class Reasoning(Body):
    effort: Literal[tuple(EFFORTS)] | None = None
    summary: Literal["auto"] | None = Field(None, description="The thought itself is returned instead.")


class Format(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    @property
    def for_chat(self) -> dict:
        if self.type != "json_schema":
            return {"type": self.type}
        if self.schema_ is None:
            raise ApiError(400, "text.format.schema: is missing.", "text.format.schema")
        return {"type": self.type, "json_schema": {"name": self.name, "schema": self.schema_, "strict": self.strict}}


class TextOptions(Body):
    format: Format | None = None
    verbosity: Literal["medium"] | None = None


class FunctionTool(Body):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def for_chat(self) -> dict:
        return {"type": "function", "function": self.model_dump(exclude={"type"}, exclude_none=True)}


class FunctionChoice(Body):
    type: Literal["function"]
    name: str


class ResponsesRequest(Sampling):
    input: Annotated[list[Item], BeforeValidator(lambda x: [{"role": "user", "content": x}] if isinstance(x, str) else x,
                                                 json_schema_input_type=str | list[Item]), Field(min_length=1)]
    instructions: str | None = Field(None, description="Goes before the conversation.")
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="Of thought and answer.")
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="The same as max_output_tokens.")
    max_thinking_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    n: Literal[1] | None = None
    stream_options: dict[str, Any] | None = None

    def check_supported(self) -> None:
        for name in STORED:
            if getattr(self, name) is not None:
                raise ApiError(400, f"{name}: nothing is stored here. Send the whole conversation as input.", name)

    @property
    def messages(self) -> list[dict]:
        """The conversation. Thought, text and calls of one assistant turn become one message."""
        messages: list[dict] = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        thought: dict = {}
        for item in self.input:
            last = messages[-1] if messages else {"role": None}
            match item:
                case ReasoningItem():
                    thought = {"reasoning_content": _text(item.content or [])}
                    continue
                case FunctionCallItem():
                    if last["role"] != "assistant" or thought:
                        messages.append(last := {"role": "assistant"} | thought)
                    last.setdefault("tool_calls", []).append({
                        "id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}})
                case FunctionCallOutputItem():
                    messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
                case MessageItem(role="assistant"):
                    messages.append({"role": "assistant", "content": _text(item.content)} | thought)
                case MessageItem(role="system" | "developer") if last["role"] == "system":  # some templates allow only one
                    last["content"] += "\n\n" + _text(item.content)
                case MessageItem():
                    messages.append({"role": item.role.replace("developer", "system"), "content": _text(item.content)})
            thought = {}
        return messages

    @property
    def for_chat(self) -> ChatRequest:
        self.check_supported()
        same = Sampling.model_fields.keys() | {"max_thinking_tokens", "tool_choice", "parallel_tool_calls", "top_logprobs"}
        messages = self.messages
        if not messages:
            raise ApiError(400, "input: holds no message. Give at least one.", "input")
        fields = {name: getattr(self, name) for name in same} | {
            "messages": messages, "max_tokens": self.one_of("max_output_tokens", "max_tokens"), "stream_options": None,
            "tools": [tool.for_chat for tool in self.tools or ()],
            "logprobs": self.top_logprobs is not None or LOGPROBS in (self.include or ())}
        if self.reasoning is not None:
            fields["reasoning_effort"] = self.reasoning.effort
        if self.text is not None and self.text.format is not None:
            fields["response_format"] = self.text.format.for_chat
        if isinstance(self.tool_choice, FunctionChoice):
            fields["tool_choice"] = {"type": "function", "function": {"name": self.tool_choice.name}}
        return ChatRequest(**fields)


def _text(parts: list[Part]) -> str:
    return "\n".join(part.text for part in parts)


def rename_fields(error: UserError) -> UserError:
    """The error with the field's name in this API."""
    message = re.sub(r"^(tools\[\d+\])\.function", r"\1", str(error))
    chat_name = next(filter(message.startswith, FIELD_NAMES), "")
    message = FIELD_NAMES.get(chat_name, "") + message.removeprefix(chat_name)
    return type(error)(message)
