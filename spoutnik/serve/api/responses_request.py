"""What a client asks of `/v1/responses`, as a request for chat."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from spoutnik.errors import UserError
from spoutnik.generation.options import EFFORTS, ContextOverflow
from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.api.common import MOST_TOKENS, Body, Sampling
from spoutnik.serve.errors import ApiError

# They refer to what is kept of earlier responses; nothing is.
STORED = ("previous_response_id", "conversation", "prompt")
LOGPROBS = "message.output_text.logprobs"
# Our sentences name chat's fields; these are the ones that were asked for here.
NAMES = {"response_format.json_schema": "text.format", "response_format": "text.format", "max_tokens": "max_output_tokens",
         "messages": "input", "reasoning_effort": "reasoning.effort"}


class Part(Body):
    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text"]
    text: str


def _parts(given: object) -> object:
    return [{"type": "text", "text": given}] if isinstance(given, str) else given


Parts = Annotated[list[Part], BeforeValidator(_parts, json_schema_input_type=str | list[Part])]


class MessageItem(Body):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Parts


class ReasoningItem(Body):
    type: Literal["reasoning"]
    content: list[Part] | None = None


class CallItem(Body):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class ResultItem(Body):
    type: Literal["function_call_output"]
    call_id: str
    output: Parts


def _kind(item: object) -> object:
    return item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)


Item = Annotated[Annotated[MessageItem, Tag("message")] | Annotated[ReasoningItem, Tag("reasoning")]
                 | Annotated[CallItem, Tag("function_call")] | Annotated[ResultItem, Tag("function_call_output")],
                 Discriminator(_kind)]


def _items(given: object) -> object:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class Reasoning(Body):
    effort: Literal[tuple(EFFORTS)] | None = None
    summary: Literal["auto"] | None = Field(None, description="The thought itself is given, so that none is needed.")


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
    input: Annotated[list[Item], BeforeValidator(_items, json_schema_input_type=str | list[Item]), Field(min_length=1)]
    instructions: str | None = Field(None, description="Goes before the conversation.")
    max_output_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS, description="Of thought and answer.")
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS, description="The same as max_output_tokens.")
    max_thinking_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
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
    resumable: bool | None = Field(None, description="The stream goes on when the client hangs up, and can be read again.")

    def refuse(self) -> None:
        for name in STORED:
            if getattr(self, name) is not None:
                raise ApiError(400, f"{name}: nothing is stored here. Send the whole conversation as input.", name)

    @property
    def messages(self) -> list[dict]:
        """The conversation; what an assistant thought, said and called at one time is one message."""
        told: list[dict] = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        thought: dict = {}
        for item in self.input:
            last = told[-1] if told else {"role": None}
            match item:
                case ReasoningItem():
                    thought = {"reasoning_content": _text(item.content or [])}
                    continue
                case CallItem():
                    if last["role"] != "assistant" or thought:
                        told.append(last := {"role": "assistant"} | thought)
                    last.setdefault("tool_calls", []).append({
                        "id": item.call_id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}})
                case ResultItem():
                    told.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
                case MessageItem(role="assistant"):
                    told.append({"role": "assistant", "content": _text(item.content)} | thought)
                case MessageItem(role="user"):
                    told.append({"role": "user", "content": _text(item.content)})
                case MessageItem() if last["role"] == "system":  # some templates know of one alone
                    last["content"] += "\n\n" + _text(item.content)
                case MessageItem():
                    told.append({"role": "system", "content": _text(item.content)})
            thought = {}
        return told

    @property
    def for_chat(self) -> ChatRequest:
        self.refuse()
        same = Sampling.model_fields.keys() | {"max_thinking_tokens", "tool_choice", "parallel_tool_calls", "top_logprobs"}
        messages = self.messages
        if not messages:
            raise ApiError(400, "input: holds no message. Give at least one.", "input")
        given = {name: getattr(self, name) for name in same} | {
            "messages": messages, "max_tokens": self.one_of("max_output_tokens", "max_tokens"), "stream_options": None,
            "tools": [tool.for_chat for tool in self.tools or ()],
            "logprobs": self.top_logprobs is not None or LOGPROBS in (self.include or ())}
        if self.reasoning is not None:
            given["reasoning_effort"] = self.reasoning.effort
        if self.text is not None and self.text.format is not None:
            given["response_format"] = self.text.format.for_chat
        if isinstance(self.tool_choice, FunctionChoice):
            given["tool_choice"] = {"type": "function", "function": {"name": self.tool_choice.name}}
        return ChatRequest(**given)


def _text(parts: list[Part]) -> str:
    return "\n".join(part.text for part in parts)


def renamed(error: UserError) -> UserError:
    """With the field's name here."""
    said = re.sub(r"^(tools\[\d+\])\.function", r"\1", str(error))
    for theirs, ours in NAMES.items():
        if said.startswith(theirs):
            said = ours + said[len(theirs):]
            break
    return ContextOverflow(said) if isinstance(error, ContextOverflow) else UserError(said)
