"""A lone surrogate, which JSON can spell and no text can hold, is the client's mistake at every endpoint and in every field."""

import asyncio
import json

import pytest

HALF = "a \ud800 b"
MESSAGES = [{"role": "user", "content": "hi"}]
SHORT = {"max_tokens": 4}
TOOL = {"type": "function", "function": {"name": "look", "description": "d", "parameters": {
    "type": "object", "properties": {"a": {"type": "string", "description": "d"}}}}}
CALLED = [{"role": "user", "content": "hi"},
          {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": {
              "name": "look", "arguments": "{\"a\": \"b\"}"}}]},
          {"role": "tool", "tool_call_id": "c", "content": "seen"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {
    "a": {"enum": ["x", "y"]}}, "required": ["a"]}}}
REQUESTS = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES, "stop": "x", "bad_words": ["w"], "model": "tiny", "user": "u",
                                      "chat_template_kwargs": {"k": "v"}, **SHORT}),
    "parts": ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "t"}]}], **SHORT}),
    "tools": ("/v1/chat/completions", {"messages": CALLED, "tools": [TOOL], **SHORT}),
    "prefill": ("/v1/chat/completions", {"messages": [*MESSAGES, {"role": "assistant", "content": "Yes",
                                                                  "reasoning_content": "hm"}], **SHORT}),
    "schema": ("/v1/chat/completions", {"messages": MESSAGES, "response_format": SCHEMA, **SHORT}),
    "regex": ("/v1/chat/completions", {"messages": MESSAGES, "structured_outputs": {"regex": "ab"}, **SHORT}),
    "choice": ("/v1/chat/completions", {"messages": MESSAGES, "structured_outputs": {"choice": ["ab", "b"]}, **SHORT}),
    "completions": ("/v1/completions", {"prompt": "t", "stop": ["x"], "bad_words": ["w"], "user": "u", **SHORT}),
    "several": ("/v1/completions", {"prompt": ["t", "u"], "parse_special": False, "echo": True, "logprobs": 1, **SHORT}),
    "streamed": ("/v1/completions", {"prompt": "t", "stream": True, **SHORT}),
    "embeddings": ("/v1/embeddings", {"input": "t", "user": "u"}),
    "embeddings_special": ("/v1/embeddings", {"input": ["t", "u"], "parse_special": True}),
    "tokenize": ("/tokenize", {"prompt": "t"}),
    "tokenize_plain": ("/tokenize", {"content": "t", "parse_special": False}),
    "template": ("/apply-template", {"messages": MESSAGES}),
    "tokenize_chat": ("/tokenize", {"messages": MESSAGES}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "system": "s", "stop_sequences": ["x"], **SHORT}),
    "messages_parts": ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "t"}]}], **SHORT}),
    "count_tokens": ("/v1/messages/count_tokens", {"messages": MESSAGES, "system": "s"}),
    "responses": ("/v1/responses", {"input": "t", "instructions": "i", "max_output_tokens": 4}),
    "ollama_chat": ("/api/chat", {"messages": MESSAGES, "stream": False, "options": {"num_predict": 4, "stop": ["x"]}}),
    "ollama_generate": ("/api/generate", {"prompt": "t", "system": "s", "stream": False, "options": {"num_predict": 4}}),
    "ollama_raw": ("/api/generate", {"prompt": "t", "raw": True, "stream": False, "options": {"num_predict": 4}}),
    "ollama_embed": ("/api/embed", {"input": "t"}),
    "ollama_embeddings": ("/api/embeddings", {"prompt": "t"}),
    "ollama_show": ("/api/show", {"model": "tiny"}),
}


def with_half(value):
    """The value once for each text in it, keys too, with that text replaced."""
    if isinstance(value, str):
        yield HALF
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from ([*value[:index], changed, *value[index + 1:]] for changed in with_half(part))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from ({**value, key: changed} for changed in with_half(part))
        yield value | {HALF: "x"}


@pytest.mark.parametrize("name", REQUESTS)
def test_no_half_character_is_the_server_s_mistake(name, api):
    path, body = REQUESTS[name]

    async def work():
        async with api() as client:
            whole = await client.post(path, json=body)
            return whole, [await client.post(path, content=json.dumps(changed), headers={"Content-Type": "application/json"})
                           for changed in with_half(body)]

    whole, broken = asyncio.run(work())
    assert whole.status_code == 200, whole.text
    assert {response.status_code for response in broken} <= {200, 400, 404}  # 200: a field that is not read
    refused = [response.text for response in broken if response.status_code == 400]
    assert any("half a character" in text for text in refused) or name == "ollama_show"
