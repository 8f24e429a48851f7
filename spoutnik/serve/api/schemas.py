"""Response models, named as in OpenAI's client. A field with a default may be left out; our own fields come last."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length", "tool_calls"]


class Schema(BaseModel):
    """Unknown keys are errors, so that answers have no key that the OpenAPI document lacks."""

    model_config = ConfigDict(extra="forbid")


class ErrorObject(Schema):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Schema):
    error: ErrorObject


class Health(Schema):
    status: Literal["ok"]
    live: int


class PromptTokensDetails(Schema):
    cached_tokens: int


class CompletionTokensDetails(Schema):
    reasoning_tokens: int


class Usage(Schema):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Timings(Schema):
    """Named as in llama.cpp's server."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


class FunctionCall(Schema):
    name: str
    arguments: str


class MessageToolCall(Schema):
    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatCompletionMessage(Schema):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[MessageToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class TopLogprob(Schema):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Schema):
    content: list[TokenLogprob]
    refusal: None


class Choice(Schema):
    index: int
    message: ChatCompletionMessage
    finish_reason: FinishReason
    logprobs: ChoiceLogprobs | None


class PromptLogprob(Schema):
    """As in vLLM. rank: None for a token that is not among the likeliest."""

    logprob: float
    rank: int | None
    decoded_token: str


class RunnerUp(Schema):
    answer: str
    votes: int


class Head(Schema):
    """Fields that both kinds of completions begin with."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(Head):
    object: Literal["chat.completion"]
    choices: list[Choice]
    usage: Usage
    timings: Timings
    warning: str | None = None
    applied: dict[str, Any] | None = None
    agreement: float | None = None
    runners_up: list[RunnerUp] | None = None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None


class Control(Schema):
    id: str
    action: str
    success: Literal[True]


class Logprobs(Schema):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Schema):
    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: FinishReason
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None


class Completion(Head):
    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage
    timings: Timings
    warning: str | None = None
    applied: dict[str, Any] | None = None


class ResponseReasoningText(Schema):
    type: Literal["reasoning_text"]
    text: str


class ResponseItem(Schema):
    id: str
    type: str
    status: Literal["in_progress", "completed", "incomplete"]


class ResponseSummaryText(Schema):
    type: Literal["summary_text"]
    text: str


class ResponseReasoningItem(ResponseItem):
    type: Literal["reasoning"]
    summary: list[ResponseSummaryText]
    content: list[ResponseReasoningText]


class ResponseOutputText(Schema):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class ResponseOutputMessage(ResponseItem):
    type: Literal["message"]
    role: Literal["assistant"]
    content: list[ResponseOutputText]


class ResponseFunctionToolCall(ResponseItem):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class ResponseError(Schema):
    code: str
    message: str


class InputTokensDetails(PromptTokensDetails):
    cache_write_tokens: int


class ResponseUsage(Schema):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens_details: CompletionTokensDetails


class IncompleteDetails(Schema):
    reason: Literal["max_output_tokens"]


class Response(Schema):
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[ResponseReasoningItem | ResponseOutputMessage | ResponseFunctionToolCall]
    error: ResponseError | None
    usage: ResponseUsage | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    metadata: dict[str, Any]
    max_output_tokens: int
    parallel_tool_calls: bool
    previous_response_id: None
    background: Literal[False]
    reasoning: dict[str, Any]
    store: Literal[False]
    temperature: int | float
    top_p: int | float
    truncation: Literal["auto", "disabled"]
    text: dict[str, Any]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    warning: str | None = None
    applied: dict[str, Any] | None = None


class Embedding(Schema):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="base64: of little-endian float32.")


class EmbeddingUsage(Schema):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Schema):
    object: Literal["list"]
    model: str
    usage: EmbeddingUsage
    data: list[Embedding]


class ModelMeta(Schema):
    """llama.cpp's. n_ctx: the context that requests are held to."""

    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_params: int
    size: int


class Model(Schema):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int
    context_length: int
    about: str
    meta: ModelMeta | None


class ModelList(Schema):
    object: Literal["list"]
    data: list[Model]


class TokenizeResponse(Schema):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeResponse(Schema):
    prompt: str
    content: str
