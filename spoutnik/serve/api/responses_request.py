"""Requests of `/v1/responses`, and the chat request that each becomes."""

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from spoutnik.generation.options import EFFORTS
from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.api.common import MAX_TOKENS, Body, Sampling
from spoutnik.serve.api.translation import OTHER, OtherItem, known_type, make_request
from spoutnik.serve.errors import ApiError

# They change no answer here.
HARMLESS = {"client_metadata", "max_tool_calls", "prompt_cache_options", "context_management", "moderation"}
# They refer to stored responses; nothing is stored here.
STORED = ("previous_response_id", "conversation", "prompt")
FindItem = Callable[[str], dict | None]  # an item of an earlier answer, by its id
LOGPROBS = "message.output_text.logprobs"
# Error messages begin with the field of the chat request: its name here.
FIELD_NAMES = {r"(tools\[\d+\])\.function": r"\1", r"response_format(\.json_schema)?": "text.format", "messages": "input",
               "max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort"}


class Part(Body):
    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text"]
    text: str


class Refusal(Body):
    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


def text_as_part(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_only(content: object) -> object:
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") in ("input_image", "input_file", "input_audio"):
            raise ValueError(f"this model reads text alone; a part of type {part['type']!r} cannot be read")
    return text_as_part(content)


MessagePart = Annotated[Annotated[Part, Tag("text")] | Annotated[Refusal, Tag("refusal")],
                        Discriminator(lambda part: "refusal" if isinstance(part, dict) and part.get("type") == "refusal"
                                      or isinstance(part, Refusal) else "text")]
Parts = Annotated[list[MessagePart], BeforeValidator(text_only, json_schema_input_type=str | list[MessagePart])]
OutputPart = Annotated[Annotated[Part, Tag("text")] | Annotated[OtherItem, Tag(OTHER)],
                       Discriminator(lambda part: "text" if known_type("input_text", "output_text", "text")(part) != OTHER
                                     else OTHER)]
Outputs = Annotated[list[OutputPart], BeforeValidator(text_as_part, json_schema_input_type=str | list[OutputPart])]


class MessageItem(Body):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Parts


class ReasoningItem(Body):
    type: Literal["reasoning"]
    content: list[Part] | None = None
    summary: list[Part] | None = None


class FunctionCallItem(Body):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class CustomToolCallItem(Body):
    """Of a tool whose input is free text; as a call, it has one argument."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str

    @property
    def arguments(self) -> str:
        return json.dumps({"input": self.input}, ensure_ascii=False)


class LocalShellCallItem(Body):
    type: Literal["local_shell_call"]
    call_id: str | None = None
    id: str | None = None
    action: dict[str, Any]
    name: Literal["local_shell"] = "local_shell"

    @property
    def arguments(self) -> str:
        return json.dumps(self.action, ensure_ascii=False)


class CallOutputItem(Body):
    type: Literal["function_call_output", "custom_tool_call_output", "local_shell_call_output"]
    call_id: str | None = None
    id: str | None = None
    output: Outputs


class ItemReference(Body):
    type: Literal["item_reference"]
    id: str


ITEMS = ("message", "reasoning", "function_call", "custom_tool_call", "local_shell_call", "item_reference")
OUTPUTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")


def _kind(item: object) -> str | None:
    kind = known_type(*ITEMS, *OUTPUTS, default="message")(item)
    return "output" if kind in OUTPUTS else kind


Item = Annotated[
    Annotated[MessageItem, Tag("message")] | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[FunctionCallItem, Tag("function_call")] | Annotated[CustomToolCallItem, Tag("custom_tool_call")]
    | Annotated[LocalShellCallItem, Tag("local_shell_call")] | Annotated[CallOutputItem, Tag("output")]
    | Annotated[ItemReference, Tag("item_reference")] | Annotated[OtherItem, Tag(OTHER)], Discriminator(_kind)]
Input = Annotated[list[Item], BeforeValidator(lambda x: [{"role": "user", "content": x}] if isinstance(x, str) else x,
                                              json_schema_input_type=str | list[Item])]


class Reasoning(Body):
    effort: Literal[tuple(EFFORTS)] | None = None
    summary: str | None = Field(None, description="The thought itself is given as its summary, too; `none` is the default.")
    generate_summary: str | None = Field(None, description="Its older name.")

    @property
    def summarized(self) -> bool:
        return (self.summary or self.generate_summary or "none") != "none"


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
    verbosity: Literal["low", "medium", "high"] | None = Field(None, description="Changes no answer here.")


class NamedTool(Body):
    type: str
    name: str | None = None


class ToolChoice(NamedTool):
    """A function, or some of the tools (`allowed_tools`)."""

    mode: Literal["auto", "required"] | None = None
    tools: list[NamedTool] | None = None


class ResponsesRequest(Sampling):
    model_config = ConfigDict(extra="allow")  # to see what is not known

    input: Annotated[Input, Field(min_length=1)]
    instructions: str | None = Field(None, description="Goes before the conversation.")
    max_output_tokens: int | None = Field(None, ge=-2, description="Of thought and answer.")
    max_thinking_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = Field(None, description="Functions. Tools of other types are left out.")
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    truncation: Literal["auto", "disabled"] | None = Field(None, description="auto: the oldest questions may be left out.")
    background: Literal[False] | None = None
    store: bool | None = Field(None, description="false: items of the answer cannot be referred to later.")
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    n: Literal[1] | None = None
    echo: Literal[False] | None = None
    prompt_logprobs: None = None
    stream_options: dict[str, Any] | None = None

    def check_supported(self) -> None:
        for name in STORED:
            if getattr(self, name) is not None:
                raise ApiError(400, f"{name}: nothing is stored here. Send the whole conversation as input.", name)

    def for_chat(self, find_item: FindItem) -> tuple[ChatRequest, list[str]]:
        """The chat request, and sentences about what was left out. find_item: an item of an earlier answer, by its id."""
        self.check_supported()
        warnings: list[str] = []
        messages, tools = self.messages(find_item, warnings), list(_functions(self.tools or [], warnings))
        same = Sampling.model_fields.keys() | {"max_thinking_tokens", "parallel_tool_calls", "top_logprobs"}
        if not messages:
            raise ApiError(400, "input: holds no message. Give at least one.", "input")
        fields = {name: getattr(self, name) for name in same} | {
            "messages": messages, "max_tokens": self.one_of("max_output_tokens", "max_tokens"), "stream_options": None,
            "tools": tools, "tool_choice": self.tool_choice,
            "logprobs": self.top_logprobs is not None or LOGPROBS in (self.include or ())}
        if isinstance(self.tool_choice, ToolChoice):
            fields |= _chosen(self.tool_choice, tools)
        if self.reasoning is not None:
            fields["reasoning_effort"] = self.reasoning.effort
        if self.text is not None and self.text.format is not None:
            fields["response_format"] = self.text.format.for_chat
        extra = {name: value for name, value in (self.model_extra or {}).items() if name not in HARMLESS}
        return make_request(ChatRequest, fields, extra), warnings

    def messages(self, find_item: FindItem, warnings: list[str]) -> list[dict]:
        """The conversation. Thought, text and calls of one assistant turn become one message."""
        messages: list[dict] = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        thought: dict = {}
        for number, item in enumerate(self.input):
            if isinstance(item, ItemReference):
                item = _resolve(item, find_item)
            last = messages[-1] if messages else {"role": None}
            match item:
                case ReasoningItem():
                    thought = {"reasoning_content": _text(item.content or item.summary or [])}
                    continue
                case FunctionCallItem() | CustomToolCallItem() | LocalShellCallItem():
                    if last["role"] != "assistant" or thought:
                        messages.append(last := {"role": "assistant"} | thought)
                    last.setdefault("tool_calls", []).append({
                        "id": item.call_id or item.id, "type": "function",
                        "function": {"name": item.name, "arguments": item.arguments}})
                case CallOutputItem():
                    content = _output(item, f"input[{number}].output", warnings)
                    messages.append({"role": "tool", "tool_call_id": item.call_id or item.id, "content": content})
                case MessageItem(role="assistant"):
                    messages.append({"role": "assistant", "content": _text(item.content)} | thought)
                case MessageItem(role="system" | "developer") if last["role"] == "system":  # some templates allow only one
                    last["content"] += "\n\n" + _text(item.content)
                case MessageItem():
                    messages.append({"role": item.role.replace("developer", "system"), "content": _text(item.content)})
                case _:
                    what = "refers to an item that is not kept" if isinstance(item, ItemReference) else "is not known"
                    warnings.append(f"input[{number}]: an item of type {item.type!r} {what} here and was left out.")
            thought = {}
        return messages


def _resolve(reference: ItemReference, find_item: FindItem) -> Item:
    """The item that is referred to, or the reference itself."""
    match find_item(reference.id):
        case {"type": "message"} as item:
            return MessageItem(role="assistant", content=[{"type": "text", "text": part["text"]} for part in item["content"]])
        case {"type": "reasoning"} as item:
            return ReasoningItem(type="reasoning", content=item["content"])
        case {"type": "function_call"} as item:
            return FunctionCallItem(type="function_call", **{name: item[name] for name in ("call_id", "name", "arguments")})
    return reference


def _functions(tools: list[dict], warnings: list[str]) -> Iterator[dict]:
    for number, tool in enumerate(tools):
        if tool.get("type") != "function":
            warnings.append(f"tools[{number}]: a tool of type {tool.get('type')!r} is not known here and was left out.")
            continue
        names = ("name", "description", "parameters", "strict")
        yield {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _chosen(choice: ToolChoice, tools: list[dict]) -> dict:
    """tool_choice, and tools where only some are allowed."""
    if choice.type == "function":
        return {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
    if choice.type != "allowed_tools":
        raise ApiError(400, f"tool_choice: a tool of type {choice.type!r} is not known here. Choose a function.", "tool_choice")
    names = {tool.name for tool in choice.tools or ()}
    return {"tool_choice": choice.mode or "auto", "tools": [tool for tool in tools if tool["function"].get("name") in names]}


def _output(item: CallOutputItem, place: str, warnings: list[str]) -> str:
    """What a tool returned. What is no text in it must not end the whole conversation."""
    texts = []
    for number, part in enumerate(item.output):
        if isinstance(part, OtherItem):
            warnings.append(f"{place}[{number}]: a part of type {part.type!r} cannot be read by this model and was left out.")
        else:
            texts.append(part.text)
    return "\n".join(texts)


def _text(parts: list[Part | Refusal]) -> str:
    return "\n".join(part.text for part in parts)
