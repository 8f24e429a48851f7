"""Requests of Anthropic's `/v1/messages`, and the chat request that each becomes."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.api.common import MAX_TOKENS, Body, Sampling
from spoutnik.serve.api.translation import OTHER, OtherItem, known_type, make_request
from spoutnik.serve.errors import ApiError

# Error messages begin with the field of the chat request: its name here.
FIELD_NAMES = {r"(tools\[\d+\])\.function\.parameters": r"\1.input_schema", r"(tools\[\d+\])\.function": r"\1",
               r"response_format(\.json_schema)?": "output_config.format", "reasoning_effort": "output_config.effort",
               "max_thinking_tokens": "thinking.budget_tokens", "enable_thinking": "thinking", "stop": "stop_sequences"}
# What Anthropic's own servers would do: a request works without it, and the answer says that it was left out.
HOSTED = ("mcp_servers", "container", "compaction", "fallbacks", "thread")
# Anthropic's clients send them; they change no answer here.
HARMLESS = {"cache_control", "context_management", "diagnostics", "inference_geo", "speed", "betas", "billing_policy",
            "fallback_credit_token", "user_profile_id", "workspace_id", "anthropic_version", "anthropic_beta"}
# Blocks that only the server that wrote them can use again.
HOSTED_BLOCKS = re.compile(r"redacted_thinking|server_tool_use|mcp_tool_use|\w+_tool_result|tool_reference|compaction|fallback")
BILLING = "x-anthropic-billing-header:"  # Claude Code's first system block: another one each time, and not for the model


class TextBlock(Body):
    type: Literal["text"]
    text: str


class ThinkingBlock(Body):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class DocumentSource(Body):
    type: str
    data: str | None = None
    content: str | list[dict[str, Any]] | None = None


class DocumentBlock(Body):
    type: Literal["document"]
    source: DocumentSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Body):
    type: Literal["search_result"]
    content: list[TextBlock]
    source: str
    title: str


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("text")] | Annotated[DocumentBlock, Tag("document")]
    | Annotated[SearchResultBlock, Tag("search_result")] | Annotated[OtherItem, Tag(OTHER)],
    Discriminator(known_type("text", "document", "search_result"))]


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("text")] | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")] | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[DocumentBlock, Tag("document")] | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[OtherItem, Tag(OTHER)],
    Discriminator(known_type("text", "thinking", "tool_use", "tool_result", "document", "search_result"))]


class AnthropicInputMessage(Body):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicThinking(Body):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Body):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class AnthropicToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @property
    def for_chat(self) -> str | dict:
        if self.type == "tool":
            return {"type": "function", "function": {"name": self.name}}
        return {"auto": "auto", "any": "required", "none": "none"}[self.type]


class CountTokensRequest(Sampling):
    model_config = ConfigDict(extra="allow")  # to see what Anthropic's servers host

    messages: list[AnthropicInputMessage] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: AnthropicThinking | None = Field(None, description="Without it the thought is not shown.")
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(None, description="The older name of output_config.format.")
    stop_sequences: list[str] | None = Field(None, description="Texts that end the answer.")
    metadata: dict[str, Any] | None = None
    stop: None = None
    n: Literal[1] | None = None
    resumable: Literal[False] | None = None
    echo: Literal[False] | None = None
    prompt_logprobs: None = None
    stream_options: None = None

    @property
    def for_chat(self) -> tuple[ChatRequest, list[str]]:
        """The chat request, and sentences about what was left out."""
        warnings = [f"{name}: is not served here and was left out." for name in HOSTED if (self.model_extra or {}).get(name)]
        messages = _messages(self, warnings)
        tools = list(_functions(self.tools or [], warnings))
        thinking, choice, output = self.thinking, self.tool_choice, self.output_config or OutputConfig()
        fields = {name: getattr(self, name) for name in Sampling.model_fields if name not in ("stop", "max_tokens")} | {
            "messages": messages, "tools": tools, "stop": self.stop_sequences, "max_tokens": self.max_tokens,
            "tool_choice": choice and choice.for_chat,
            "parallel_tool_calls": not (choice and choice.disable_parallel_tool_use),
            "include_reasoning": thinking is not None, "enable_thinking": self._enable_thinking,
            "max_thinking_tokens": thinking.budget_tokens if thinking and thinking.type == "enabled" else None,
            # Of the thought alone here: where there is none, there is nothing that it could ask for.
            "reasoning_effort": output.effort if self._enable_thinking is not False else None}
        format = output.format or self.output_format
        if format is not None:
            fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": format.schema_}}
        extra = {name: value for name, value in (self.model_extra or {}).items() if name not in {*HOSTED, *HARMLESS}}
        return make_request(ChatRequest, fields, extra, ("n_thoughts", "logprobs", "top_logprobs")), warnings

    @property
    def _enable_thinking(self) -> bool | None:
        """None leaves it to the model."""
        kind = self.thinking and self.thinking.type
        if kind == "between_tools":
            return any(isinstance(block, ToolResultBlock) for block in self.messages[-1].content)
        return {"enabled": True, "disabled": False}.get(kind)


class MessagesRequest(CountTokensRequest):
    max_tokens: int = Field(ge=1, le=MAX_TOKENS, description="Of thought and answer.")


def _functions(tools: list[dict], warnings: list[str]) -> Iterator[dict]:
    """The tools that a client defines. Those that Anthropic defines, or runs, are skipped."""
    for number, tool in enumerate(tools):
        if tool.get("type") not in (None, "custom"):
            warnings.append(f"tools[{number}]: a tool of type {tool['type']!r} is not known here and was left out.")
            continue
        if not isinstance(tool.get("input_schema"), dict):
            raise ApiError(400, f"tools[{number}].input_schema: must be the JSON schema of an object.",
                           f"tools[{number}].input_schema")
        function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
        yield {"type": "function", "function": function | {"parameters": tool["input_schema"]}}


def _messages(body: CountTokensRequest, warnings: list[str]) -> list[dict]:
    """The conversation. A user's message with results of tools becomes several; turns of one side in a row become one."""
    system = [TextBlock(type="text", text=body.system)] if isinstance(body.system, str) else body.system or []
    texts = [block.text for block in system if not block.text.startswith(BILLING)]
    messages: list[dict] = [{"role": "system", "content": _parts(texts)}] if texts else []
    for number, message in enumerate(body.messages):
        place = f"messages[{number}].content"
        blocks = [TextBlock(type="text", text=message.content)] if isinstance(message.content, str) else message.content
        turn = _assistant_turn if message.role == "assistant" else _user_turn
        for one in turn(message.role, blocks, place, warnings):
            _append(messages, one)
    if not any(message["role"] != "system" for message in messages):
        raise ApiError(400, "messages: hold nothing to answer. Give at least one message of the user.", "messages")
    return messages


def _append(messages: list[dict], message: dict) -> None:
    last = messages[-1] if messages else {"role": None}
    if message["role"] == last["role"] == "user":
        last["content"] = last["content"] + message["content"]
    elif message["role"] == last["role"] == "assistant" and not last.get("tool_calls"):
        last["content"] = last["content"] + message.pop("content")
        messages[-1] = message | last
    else:
        messages.append(message)


def _assistant_turn(role: str, blocks: list[Block], place: str, warnings: list[str]) -> Iterator[dict]:
    texts, thoughts, calls = [], [], []
    for number, block in enumerate(blocks):
        match block:
            case ThinkingBlock():
                thoughts.append(block.thinking)
            case ToolUseBlock():
                function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
                calls.append({"id": block.id, "type": "function", "function": function})
            case _:
                texts += _texts(block, f"{place}[{number}]", warnings)
    message = {"role": role, "content": _parts(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    yield message | ({"tool_calls": calls} if calls else {})


def _user_turn(role: str, blocks: list[Block], place: str, warnings: list[str]) -> Iterator[dict]:
    texts: list[str] = []
    for number, block in enumerate(blocks):
        if not isinstance(block, ToolResultBlock):
            texts += _texts(block, f"{place}[{number}]", warnings)
            continue
        if texts:
            yield {"role": role, "content": _parts(texts)}
            texts = []
        yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _result(block, f"{place}[{number}]", warnings)}
    if texts:
        yield {"role": role, "content": _parts(texts)}


def _result(block: ToolResultBlock, place: str, warnings: list[str]) -> str:
    content = block.content or ""
    if not isinstance(content, str):
        content = "\n".join(text for number, part in enumerate(content)
                            for text in _texts(part, f"{place}.content[{number}]", warnings))
    return f"Error: {content}" if block.is_error and not content.lower().startswith("error") else content


def _texts(block: Block, place: str, warnings: list[str]) -> list[str]:
    """The text of a block, if it has one."""
    match block:
        case TextBlock():
            return [block.text] if block.text else []
        case SearchResultBlock():
            return ["\n".join([f"{block.title} ({block.source})", *(part.text for part in block.content)])]
        case DocumentBlock(source=DocumentSource(type="text" | "content")):
            content = block.source.data or block.source.content or ""
            if not isinstance(content, str):
                content = "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
            return ["\n".join(filter(None, [block.title, block.context, content]))]
        case OtherItem() if HOSTED_BLOCKS.fullmatch(block.type):
            warnings.append(f"{place}: a block of type {block.type!r} is of use to its own server alone and was left out.")
            return []
    raise ApiError(400, f"{place}: this model reads text alone; a block of type {block.type!r} cannot be read. Leave it out.",
                   place)


def _parts(texts: list[str]) -> list[dict]:
    return [{"type": "text", "text": text} for text in texts]
