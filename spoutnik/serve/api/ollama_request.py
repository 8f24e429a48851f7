"""Requests of Ollama's `/api/chat` and `/api/generate`, and the chat or completion request that each becomes."""

import json
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

from spoutnik.generation.options import EFFORTS
from spoutnik.generation.service import ServedModel
from spoutnik.serve.api.chat_request import ChatRequest
from spoutnik.serve.api.common import MAX_TOKENS, Body
from spoutnik.serve.api.completions import CompletionRequest
from spoutnik.serve.api.translation import make_request
from spoutnik.serve.errors import ApiError

# Error messages begin with the field of the chat request: its name here.
FIELD_NAMES = {"max_tokens": "options.num_predict", "repetition_penalty": "options.repeat_penalty",
               r"response_format(\.json_schema)?(\.schema)?": "format", "enable_thinking": "think", "reasoning_effort": "think",
               r"(temperature|top_p|top_k|min_p|seed|stop|presence_penalty|frequency_penalty)": r"options.\1"}
# Options under the name that they have here, too.
SAME = ("temperature", "top_p", "top_k", "min_p", "stop", "presence_penalty", "frequency_penalty")
# Of the machine, or of what Ollama does where a conversation does not fit: no answer is another one without them.
WITHOUT_EFFECT = {"num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "numa", "low_vram", "f16_kv", "use_mmap",
                  "use_mlock", "vocab_only", "logits_all", "embedding_only", "draft_num_predict", "mirostat_tau",
                  "mirostat_eta", "penalize_newline"}


# Fields of ours that an answer of Ollama's has no place for.
UNPLACED = ("n", "best_of", "n_thoughts", "echo", "prompt_logprobs", "resumable")


class Options(Body):
    model_config = ConfigDict(extra="allow")  # to name what is not known

    num_predict: int | None = Field(None, le=MAX_TOKENS, description="Of thought and answer; -1 for all there is room for.")
    num_ctx: int | None = Field(None, description="The server has set the context; what asks for more is said so.")
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=MAX_TOKENS)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    repeat_last_n: int | None = Field(None, ge=-1, description="0: no penalty. The penalty looks at all tokens, not the last.")
    seed: int | None = None
    stop: str | list[str] | None = None
    typical_p: float | None = None
    tfs_z: float | None = None
    mirostat: int | None = None

    def check_supported(self) -> None:
        """Raises ApiError for another way to choose tokens."""
        for name, off in (("typical_p", 1), ("tfs_z", 1), ("mirostat", 0)):
            if (value := getattr(self, name)) not in (None, off):
                raise ApiError(400, f"options.{name} = {value}: is not served here. Leave it out.", f"options.{name}")

    @property
    def for_chat(self) -> dict[str, Any]:
        """Fields of Sampling."""
        self.check_supported()
        fields = {name: getattr(self, name) for name in SAME}
        limit, seed, penalty = self.num_predict or 0, self.seed, self.repeat_penalty
        return fields | {"max_tokens": limit if limit > 0 else None, "seed": seed if seed is not None and seed >= 0 else None,
                         "repetition_penalty": None if self.repeat_last_n == 0 else penalty}

    def warnings(self, served: ServedModel) -> list[str]:
        """Sentences about what is not as asked for."""
        sentences = [f"options.{name}: is not known here and was left out." for name in self.model_extra or {}
                     if name not in WITHOUT_EFFECT]
        if (self.num_ctx or 0) > served.max_model_len:
            sentences.append(f"options.num_ctx = {self.num_ctx}: this server holds {served.max_model_len} tokens.")
        if self.repeat_penalty not in (None, 1) and self.repeat_last_n not in (None, 0, -1):
            sentences.append(f"options.repeat_last_n = {self.repeat_last_n}: the penalty looks at all tokens.")
        return sentences


class OllamaPastCall(Body):
    class Function(Body):
        name: str
        arguments: dict[str, Any]

    id: str | None = None
    function: Function


class OllamaInputMessage(Body):
    role: Annotated[Literal["system", "user", "assistant", "tool"],
                    BeforeValidator(lambda role: role.lower() if isinstance(role, str) else role)]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[OllamaPastCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    @property
    def for_chat(self) -> dict[str, Any]:
        calls = [{"id": call.id, "function": {"name": call.function.name,
                                              "arguments": json.dumps(call.function.arguments, ensure_ascii=False)}}
                 for call in self.tool_calls or ()] or None
        return {"role": self.role, "content": self.content, "reasoning_content": self.thinking, "name": self.tool_name,
                "tool_calls": calls, "tool_call_id": self.tool_call_id}


class OllamaRequest(Body):
    """What both endpoints have."""

    model_config = ConfigDict(extra="allow")  # to see what is not known

    model: str | None = Field(None, validation_alias=AliasChoices("model", "name"))
    stream: bool | None = Field(None, description="true where it is left out.")
    options: Options | None = None
    format: dict[str, Any] | Literal["", "json"] | None = Field(None, description="json, or a JSON schema of the answer.")
    think: bool | Literal[tuple(EFFORTS)] | None = Field(None, description="Whether, or how long, the model thinks.")
    keep_alive: float | str | None = Field(None, description="Models stay where they are here.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    truncate: bool | None = Field(None, description="false: a conversation that is too long is refused; else its oldest "
                                                    "questions are left out.")
    shift: bool | None = Field(None, description="Without effect: an answer ends where the context does.")
    return_applied: bool | None = Field(None, description="The response says every parameter in force.")

    @property
    def streams(self) -> bool:
        return self.stream is not False

    @property
    def response_format(self) -> dict | None:
        if isinstance(self.format, dict):
            return {"type": "json_schema", "json_schema": {"name": "format", "schema": self.format}}
        return {"type": "json_object"} if self.format else None

    def chat(self, messages: list[dict], tools: list[dict] | None = None) -> ChatRequest:
        fields = (self.options or Options()).for_chat | {
            "model": self.model, "stream": self.streams, "messages": messages, "tools": tools,
            "response_format": self.response_format, "return_applied": self.return_applied,
            "logprobs": bool(self.logprobs), "top_logprobs": self.top_logprobs if self.logprobs else None}
        if isinstance(self.think, str):
            fields["reasoning_effort"] = self.think
        elif self.think is not None:
            fields["enable_thinking"] = self.think
        return make_request(ChatRequest, fields, self.model_extra, UNPLACED)

    def refuse(self, *names: str, why: str) -> None:
        for name in names:
            if getattr(self, name):
                raise ApiError(400, f"{name}: {why}", name)


class OllamaChatRequest(OllamaRequest):
    messages: list[OllamaInputMessage] | None = Field(None, description="Without any, the model is loaded.")
    tools: list[dict[str, Any]] | None = None

    @property
    def is_empty(self) -> bool:
        return not self.messages

    @property
    def for_chat(self) -> ChatRequest:
        for number, message in enumerate(self.messages):
            if message.images:
                raise ApiError(400, f"messages[{number}].images: this model reads text alone. Leave them out.",
                               f"messages[{number}].images")
        return self.chat([message.for_chat for message in self.messages], self.tools)


class OllamaGenerateRequest(OllamaRequest):
    prompt: str | None = Field(None, description="Without it, the model is loaded.")
    system: str | None = None
    raw: bool | None = Field(None, description="The prompt goes to the model as it is, without a template.")
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None
    images: list[Any] | None = None

    @property
    def is_empty(self) -> bool:
        return not self.prompt

    @property
    def for_chat(self) -> ChatRequest | CompletionRequest:
        self.refuse("images", why="this model reads text alone. Leave them out.")
        self.refuse("suffix", why="this model does not fill in between. Leave it out.")
        self.refuse("template", why="the model's own template is used here. Leave it out, or send a raw prompt.")
        self.refuse("context", why="is not kept here. Send the conversation to /api/chat.")
        if not self.raw:
            system = [{"role": "system", "content": self.system}] if self.system else []
            return self.chat([*system, {"role": "user", "content": self.prompt}])
        self.refuse("system", "think", why="a raw prompt has no place for it. Leave it out.")
        fields = (self.options or Options()).for_chat
        return make_request(CompletionRequest, fields | {
            "max_tokens": fields["max_tokens"] or -1, "model": self.model, "stream": self.streams, "prompt": self.prompt,
            "response_format": self.response_format, "return_applied": self.return_applied,
            "logprobs": (self.top_logprobs or 0) if self.logprobs else None}, self.model_extra, UNPLACED)


