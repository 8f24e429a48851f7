"""The messages of a chat request, in the forms that clients send, and as templates take them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from spoutnik.serve.api.common import Body
from spoutnik.text import chat_template

TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}  # type of a part -> its text's key
THOUGHTS = {"reasoning": ("text", "reasoning"), "thinking": ("thinking", "text"), "reasoning_text": ("text",),
            "reasoning.text": ("text",), "redacted_thinking": ()}


class Part(Body):
    """A part of a content: of the text, or of a past thought."""

    type: Literal["text", "reasoning"]
    text: str


def read_parts(content: object) -> object:
    """Parts as APIs write them, as our two kinds. Raises ValueError for what is no text."""
    return [_read_part(part) for part in content] if isinstance(content, list) else content


def _read_part(part: object) -> object:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        return part
    kind = part.get("type", "text")
    if isinstance(kind, str) and kind in TEXTS:
        if TEXTS[kind] not in part:
            raise ValueError(f"a part of type {kind!r} needs the key {TEXTS[kind]}")
        return {"type": "text", "text": part[TEXTS[kind]]}
    if isinstance(kind, str) and kind in THOUGHTS:
        return {"type": "reasoning", "text": next((part[key] for key in THOUGHTS[kind] if part.get(key) is not None), "")}
    raise ValueError(f"this model reads text alone; a part of type {kind!r} cannot be read")


class ToolCall(Body):
    class Function(Body):
        name: str
        arguments: str | dict[str, Any] | None = None

    id: str | None = None
    type: Literal["function"] = "function"
    function: Function


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str | list[Part] | None, BeforeValidator(read_parts)] = None
    name: str | None = None
    reasoning_content: str | None = Field(None, description="A past thought; most models' templates drop it.")
    reasoning: str | None = Field(None, description="The same as reasoning_content.")
    thinking: str | None = Field(None, description="The same as reasoning_content.")
    refusal: str | None = Field(None, description="What was said instead of a content.")
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = Field(None, description="The last message, the assistant's, is continued.")
    partial: bool | None = Field(None, description="The same as prefix.")
    function_call: None = None
    audio: None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _thoughts_are_the_assistants(self) -> Self:
        if self.role != "assistant" and self._text("reasoning") is not None:
            raise ValueError(f"a message of the {self.role} has no thought; leave out its parts of type reasoning")
        return self

    @property
    def continued(self) -> bool:
        return bool(self.one_of("prefix", "partial"))

    @property
    def length(self) -> int:
        """Characters, roughly."""
        return len(self._text("text") or "") + len(self.thought or "")

    def _text(self, kind: str) -> str | None:
        if isinstance(self.content, list):
            texts = [part.text for part in self.content if part.type == kind]
            return "\n".join(texts) if texts else None
        return self.content if kind == "text" else None

    @property
    def thought(self) -> str | None:
        stated = self.one_of("reasoning_content", "reasoning", "thinking")
        return self._text("reasoning") if stated is None else stated

    @property
    def for_template(self) -> chat_template.Message:
        content = self._text("text")
        if content is None:
            content = self.refusal
        if content is None and not self.tool_calls:
            content = ""
        role = {"developer": "system", "function": "tool"}.get(self.role, self.role)
        calls = [call.model_dump(exclude_none=True) for call in self.tool_calls or ()] or None
        more = {"name": self.name, "reasoning_content": self.thought, "tool_calls": calls, "tool_call_id": self.tool_call_id}
        return {"role": role, "content": content} | {key: value for key, value in more.items() if value is not None}
