"""The OpenAPI document is true: answers have the keys of the endpoint's schema, no more and no fewer."""

import asyncio
import json
from typing import Any, Literal

import httpx
import pytest

from spoutnik.serve.api import messages, ollama, ollama_models, props, schemas

ASK = [{"role": "user", "content": "What is 12 + 30?"}]
CHAT, TEXT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"
PICK = {"name": "pick", "parameters": {"type": "object", "properties": {"one": {"enum": ["a", "b"]}}, "required": ["one"],
                                       "additionalProperties": False}}
CHATS = [{}, {"n": 2, "return_applied": True}, {"n_thoughts": 3}, {"logprobs": True, "top_logprobs": 2},
         {"max_thinking_tokens": 3}, {"reasoning_format": "none"},
         {"max_tokens": 200, "max_thinking_tokens": 3, "tools": [{"type": "function", "function": PICK}],
          "tool_choice": "required", "parallel_tool_calls": False}]
TEXTS = [{"prompt": ["a", "b"], "n": 2}, {"prompt": "12 + 30", "echo": True, "logprobs": 2}]
ITEMS = [{"input": "a", "include": ["message.output_text.logprobs"]}, {"input": "a", "max_output_tokens": 5},
         {"input": "a", "max_output_tokens": 200, "max_thinking_tokens": 3, "tools": [{"type": "function"} | PICK],
          "tool_choice": "required", "parallel_tool_calls": False}]
MESSAGES = "/v1/messages"
MESSAGE_BODIES = [{}, {"thinking": {"type": "enabled", "budget_tokens": 4}, "return_applied": True, "container": "c"},
                  {"thinking": {"type": "disabled"}, "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
                   "tools": [{"name": PICK["name"], "input_schema": PICK["parameters"]}]}]
OLLAMA = {"model": "tiny", "stream": False, "options": {"num_predict": 200, "seed": 1, "num_ctx": 9999}}
OLLAMA_BODIES = [{"return_applied": True}, {"logprobs": True, "top_logprobs": 1, "think": False}, {"messages": []}]
ANSWERS = [("GET", "/health", None, schemas.Health), ("GET", "/v1/models", None, schemas.ModelList),
           ("GET", "/v1/models/tiny", None, schemas.Model),
           *(("POST", CHAT, {"messages": ASK, "seed": 1, "max_tokens": 24} | body, schemas.ChatCompletion) for body in CHATS),
           *(("POST", TEXT, {"seed": 1, "max_tokens": 6} | body, schemas.Completion) for body in TEXTS),
           *(("POST", RESPONSES, {"seed": 1, "max_output_tokens": 40} | body, schemas.Response) for body in ITEMS),
           ("POST", EMBEDDINGS, {"input": ["a", "b"]}, schemas.EmbeddingList),
           ("POST", EMBEDDINGS, {"input": "a", "encoding_format": "base64"}, schemas.EmbeddingList),
           ("POST", "/v1/tokenize", {"messages": ASK, "return_token_strs": True}, schemas.TokenizeResponse),
           ("POST", "/v1/detokenize", {"tokens": [5]}, schemas.DetokenizeResponse),
           *(("POST", MESSAGES, {"messages": ASK, "seed": 1, "max_tokens": 200} | body, messages.AnthropicMessage)
             for body in MESSAGE_BODIES),
           ("POST", f"{MESSAGES}/count_tokens", {"messages": ASK}, messages.TokenCount),
           *(("POST", "/api/chat", OLLAMA | {"messages": ASK} | body, ollama.OllamaChat) for body in OLLAMA_BODIES),
           ("POST", "/api/generate", OLLAMA | {"prompt": "a"}, ollama.OllamaGenerated),
           ("POST", "/api/embed", {"input": ["a", "b"]}, ollama_models.Embeddings),
           ("POST", "/api/embeddings", {"prompt": "a"}, ollama_models.OneEmbedding),
           ("POST", "/api/show", {"model": "tiny"}, ollama_models.ShownModel),
           ("GET", "/api/ps", None, ollama_models.RunningModels),
           ("GET", "/api/tags", None, ollama_models.ListedModels), ("GET", "/api/version", None, ollama_models.Version),
           ("GET", "/props", None, props.Props), ("POST", "/apply-template", {"messages": ASK}, props.Prompt),
           ("POST", "/api/chat", {"think": 3}, ollama.OllamaError),
           ("POST", MESSAGES, {"messages": []}, messages.AnthropicError),
           ("POST", CHAT, {"messages": []}, schemas.ErrorResponse)]


# The chunks of streams, which are made as plain dicts.


class ToolCallDelta(schemas.Schema):
    class Function(schemas.Schema):
        name: str | None = None
        arguments: str

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: Function


class ChoiceDelta(schemas.Schema):
    role: Literal["assistant"] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(schemas.Schema):
    index: int
    delta: ChoiceDelta
    finish_reason: schemas.FinishReason | None
    logprobs: schemas.ChoiceLogprobs | None


class ChatCompletionChunk(schemas.Head):
    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: schemas.Usage | None = None
    timings: schemas.Timings | None = None
    warning: str | None = None
    applied: dict[str, Any] | None = None
    agreement: float | None = None
    runners_up: list[schemas.RunnerUp] | None = None


class CompletionChunkChoice(schemas.CompletionChoice):
    finish_reason: schemas.FinishReason | None


class CompletionChunk(schemas.Head):
    object: Literal["text_completion"]
    choices: list[CompletionChunkChoice]
    usage: schemas.Usage | None = None
    timings: schemas.Timings | None = None


def assert_same(model, answer):
    """No key is unknown (models forbid it), missing, or of another type."""
    assert model.model_validate(answer, strict=True).model_dump(exclude_unset=True) == answer


def test_answers_are_what_the_document_says(api):
    async def work():
        async with api() as client:
            document = (await client.get("/openapi.json")).json()
            answers = [await client.request(method, path, json=body) for method, path, body, _ in ANSWERS]
        for (method, path, _, model), answer in zip(ANSWERS, answers):
            assert_same(model, answer.json())
            responses = document["paths"][path.replace("tiny", "{id}")][method.lower()]["responses"]
            schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{model.__name__}"}, path

    asyncio.run(work())


@pytest.mark.parametrize("path, bodies, model", [
    (CHAT, [{"messages": ASK} | body for body in CHATS], ChatCompletionChunk), (TEXT, TEXTS, CompletionChunk),
    (RESPONSES, ITEMS, schemas.Response)])
def test_events_of_streams_have_the_form_of_their_models(api, path, bodies, model):
    async def work():
        async with api() as client:
            more = {"seed": 1, "stream": True} | ({} if path == RESPONSES else {"stream_options": {"include_usage": True}})
            for body in bodies:
                text = (await client.post(path, json={"max_tokens": 24} | body | more)).text
                for event in map(json.loads, [line[6:] for line in text.splitlines() if line.startswith("data: {")]):
                    if path != RESPONSES or "response" in event:
                        assert_same(model, event.get("response", event))

    asyncio.run(work())


def test_a_steered_reply_answers_as_the_document_says(server, endless):
    asked = {"messages": ASK, "logit_bias": endless, "stream": True, "detect_loops": False, "max_tokens": 900}
    with httpx.stream("POST", server + CHAT, json=asked) as response:
        answer = httpx.post(f"{server}{CHAT}/{response.headers['x-request-id']}/control", json={"action": "pause"})
    assert answer.status_code == 200
    assert_same(schemas.Control, answer.json())
