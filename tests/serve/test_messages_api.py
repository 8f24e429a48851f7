"""Anthropic's messages, as its clients send and read them over plain HTTP."""

import asyncio
import json

import httpx
import pytest
import tiny
import torch
from listening import listening

from spoutnik.engine.llm import LLM
from spoutnik.serve import auth
from spoutnik.serve.api.messages import Content
from spoutnik.serve.api.messages_request import CountTokensRequest
from spoutnik.serve.app import make_app
from spoutnik.serve.keys import Keys
from spoutnik.serve.settings import Settings

PATH, COUNT = "/v1/messages", "/v1/messages/count_tokens"
ASK = [{"role": "user", "content": "What is 12 + 30?"}]
SHORT = {"model": "tiny", "max_tokens": 40, "messages": ASK, "seed": 1}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 8}}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 6}}, "required": ["city"],
        "additionalProperties": False}
TOOLS = [{"name": "weather", "description": "Of a city.", "input_schema": CITY, "cache_control": {"type": "ephemeral"}}]
CALL = {"max_tokens": 300, "thinking": {"type": "disabled"}, "tools": TOOLS,
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


@pytest.fixture
def post(api):
    def post(path=PATH, *, service=None, headers=None, **body) -> httpx.Response:
        async def work():
            async with api(service) as client:
                return await client.post(path, json=body, headers=headers)

        return asyncio.run(work())

    return post


def events(text: str) -> list[dict]:
    """The events of a finished stream, each under its name."""
    read = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        read.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {read[-1]['type']}"
    return read


def rebuilt(stream: list[dict]) -> list[dict]:
    """The content that a client puts together."""
    blocks: list[dict] = []
    inputs: dict[int, str] = {}
    for event in stream:
        match event:
            case {"type": "content_block_start"}:
                assert event["index"] == len(blocks)
                blocks.append(dict(event["content_block"]))
            case {"type": "content_block_delta", "delta": {"type": "input_json_delta"}}:
                inputs[event["index"]] = inputs.get(event["index"], "") + event["delta"]["partial_json"]
            case {"type": "content_block_delta", "delta": {"type": "signature_delta"}}:
                blocks[event["index"]]["signature"] = event["delta"]["signature"]
            case {"type": "content_block_delta"}:
                kind = event["delta"]["type"].removesuffix("_delta")
                blocks[event["index"]][kind] += event["delta"][kind]
    return [block | ({"input": json.loads(inputs[index])} if index in inputs else {}) for index, block in enumerate(blocks)]


def without_ids(blocks: list[dict]) -> list[dict]:
    return [{name: value for name, value in block.items() if name != "id"} for block in blocks]


def test_without_thinking_there_is_the_answer_alone(post):
    answer = post(**SHORT)
    message = answer.json()
    assert answer.headers["request-id"] == message["id"] and message["id"].startswith("msg_")
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "tiny")
    assert [block["type"] for block in message["content"]] == ["text"] and message["content"][0]["text"].strip()
    assert message["stop_reason"] in ("end_turn", "max_tokens") and message["stop_sequence"] is None
    assert 0 < message["usage"]["output_tokens"] <= 40 and message["usage"]["input_tokens"] > 0


def test_a_thought_is_a_block_with_a_signature(post):
    message = post(**SHORT, **THINKING).json()
    thought, text = message["content"]
    assert thought.keys() == {"type", "thinking", "signature"} and thought["thinking"] and thought["signature"]
    assert text["type"] == "text" and "budget of 8 tokens" in message["warning"]
    assert message["usage"]["output_tokens_details"]["thinking_tokens"] > 0


def test_omitted_thoughts_are_empty_blocks_that_can_be_given_back(post):
    omitted = {"thinking": {"type": "adaptive", "display": "omitted"}}
    thought, text = post(**SHORT, **omitted).json()["content"]
    assert thought["thinking"] == "" and thought["signature"] and text["text"]
    stream = events(post(**SHORT, **omitted, stream=True).text)
    assert "thinking_delta" not in [event.get("delta", {}).get("type") for event in stream]
    assert rebuilt(stream) == [thought, text]


def test_no_thought_where_it_is_disabled(post):
    applied = post(**SHORT, thinking={"type": "disabled"}, return_applied=True).json()["applied"]
    assert applied["enable_thinking"] is False and applied["max_thinking_tokens"] == 0


def test_a_stream_tells_the_same_in_the_events_that_clients_know(post):
    message = post(**SHORT, **THINKING).json()
    answer = post(**SHORT, **THINKING, stream=True)
    stream = events(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream") and "id: " not in answer.text
    kinds = [event["type"] if "delta" not in event or event["type"] == "message_delta" else event["delta"]["type"]
             for event in stream]
    shape = [kind for number, kind in enumerate(kinds) if kind != "ping" and (number == 0 or kind != kinds[number - 1])]
    assert shape == ["message_start", "content_block_start", "thinking_delta", "signature_delta", "content_block_stop",
                     "content_block_start", "text_delta", "content_block_stop", "message_delta", "message_stop"]
    start, end = stream[0]["message"], stream[-2]
    assert start["content"] == [] and start["stop_reason"] is None and start["usage"]["input_tokens"] > 0
    assert rebuilt(stream) == message["content"] and end["delta"] == {
        "stop_reason": message["stop_reason"], "stop_sequence": None}
    assert end["usage"]["output_tokens"] == message["usage"]["output_tokens"] and end["warning"] == message["warning"]


def test_calls_of_tools(post):
    message = post(**SHORT | CALL).json()
    call, = message["content"]
    assert (call["type"], call["name"], message["stop_reason"]) == ("tool_use", "weather", "tool_use")
    assert call["id"].startswith("toolu_") and call["input"].keys() == {"city"}
    stream = events(post(**SHORT | CALL, stream=True).text)
    assert without_ids(rebuilt(stream)) == without_ids([call]) and stream[-2]["delta"]["stop_reason"] == "tool_use"
    start = next(event for event in stream if event["type"] == "content_block_start")
    assert start["content_block"]["input"] == {}


def test_a_call_that_is_cut_off_does_not_look_whole(post):
    message = post(**SHORT | CALL | {"max_tokens": 14}).json()
    assert message["content"] == [] and message["stop_reason"] == "max_tokens" and "cut off" in message["warning"]
    content = Content()
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    events = [*content.add({"content": "a", "tool_calls": [call]}), *content.close()]
    content.drop_unfinished_call()
    assert [block["type"] for block in content.blocks] == ["text"]
    assert events[-2]["delta"] == {"type": "input_json_delta", "partial_json": '{"a": '}


def test_tools_that_anthropic_runs_are_left_out_and_said(post):
    hosted = [{"type": "web_search_20250305", "name": "web_search"}, *TOOLS]
    message = post(**SHORT | CALL | {"tools": hosted, "tool_choice": {"type": "tool", "name": "weather"}}).json()
    assert "'web_search_20250305'" in message["warning"] and message["content"][0]["name"] == "weather"
    refused = post(**SHORT | CALL | {"tools": hosted[:1], "tool_choice": {"type": "tool", "name": "web_search"}})
    assert refused.status_code == 400 and "web_search" in refused.json()["error"]["message"]


def test_a_conversation_goes_on_with_results(post):
    first = post(**SHORT | CALL | {"thinking": {"type": "adaptive"}}).json()
    result = {"type": "tool_result", "tool_use_id": first["content"][-1]["id"], "content": [{"type": "text", "text": "sun"}]}
    given = [*ASK, {"role": "assistant", "content": first["content"]}, {"role": "user", "content": [result]}]
    assert post(**SHORT | CALL | {"messages": given, "tool_choice": {"type": "none"}}).json()["content"][0]["type"] == "text"


def test_blocks_become_messages():
    given = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
             {"role": "user", "content": "c"},
             {"role": "assistant", "content": [
                 {"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "redacted_thinking", "data": "?"},
                 {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": "é"}},
                 {"type": "tool_use", "id": "t2", "name": "g", "input": {}}]},
             {"role": "user", "content": [
                 {"type": "tool_result", "tool_use_id": "t1", "content": "1"},
                 {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": [{"type": "text", "text": "no"}]},
                 {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}]}]
    system = [{"type": "text", "text": "x-anthropic-billing-header: cc_version=1;"},
              {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    chat, warnings = CountTokensRequest(messages=given, system=system, tools=TOOLS).for_chat
    messages = chat.template_messages
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert [message["content"] for message in messages] == ["Be kind.", "a\nb\nc", "I look.", "1", "Error: no", "T\nd"]
    assert messages[2]["reasoning_content"] == "Hm." and [call["id"] for call in messages[2]["tool_calls"]] == ["t1", "t2"]
    assert json.loads(messages[2]["tool_calls"][0]["function"]["arguments"]) == {"x": "é"}
    assert messages[3]["tool_call_id"] == "t1" and len(warnings) == 1 and "redacted_thinking" in warnings[0]


@pytest.mark.parametrize(("kind", "after_tool", "thinks"), [
    ("enabled", False, True), ("disabled", False, False), ("adaptive", False, None), ("between_tools", True, True),
    ("between_tools", False, False)])
def test_kinds_of_thinking(kind, after_tool, thinks):
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]}
    chat, _ = CountTokensRequest(messages=[*ASK, *([result] if after_tool else [])], thinking={"type": kind},
                                 output_config={"effort": "low"}).for_chat
    assert chat.enable_thinking is thinks and chat.include_reasoning is True
    assert chat.thought_switches.effort == (None if thinks is False else "low")  # which is no contradiction


def test_what_claude_code_sends_works(post):
    answer = post(f"{PATH}?beta=true", **SHORT, **THINKING, stream=True, metadata={"user_id": "u"}, tools=TOOLS,
                  system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
                  context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
                  output_config={"effort": "low"}, some_future_field={"a": 1},
                  headers={"anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219,x", "x-api-key": "k"})
    end = events(answer.text)[-2]
    assert answer.status_code == 200 and end["context_management"] == {"applied_edits": []}


def test_structured_output(post):
    format = {"type": "json_schema", "schema": CITY}
    for more in ({"output_config": {"format": format}}, {"output_format": format}):
        message = post(**SHORT | {"max_tokens": 300, "thinking": {"type": "disabled"}} | more).json()
        assert json.loads(message["content"][0]["text"]).keys() == {"city"}


def test_fields_of_ours_are_heard_here_too(post):
    more = {"reasoning_effort": "low", "min_p": 0.25, "return_applied": True, "chat_template_kwargs": {"a": 1}}
    message = post(**SHORT | more, speed="fast", some_beta={"a": 1}).json()
    assert message["applied"]["min_p"] == 0.25 and message["applied"]["max_thinking_tokens"] == 5
    assert "some_beta: unknown here" in message["warning"] and "speed" not in message["warning"]
    for wrong in ({"guided_json": 3}, {"mirostat": 2}, {"max_thinking_tokens": "many"}):
        refused = post(**SHORT | wrong)
        assert refused.status_code == 400 and next(iter(wrong)) in refused.json()["error"]["message"]


def test_stop_sequences(post):
    text = post(**SHORT, thinking={"type": "disabled"}).json()["content"][0]["text"]
    stop = text[3:6]
    message = post(**SHORT, thinking={"type": "disabled"}, stop_sequences=[stop, "never said"]).json()
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", stop)
    assert message["content"][0]["text"] == text[:text.index(stop)]


def test_tokens_are_counted(post):
    whole = post(**SHORT, tools=TOOLS, system="Be kind.").json()["usage"]
    counted = post(COUNT, model="tiny", messages=ASK, tools=TOOLS, system="Be kind.").json()
    assert counted == {"input_tokens": whole["input_tokens"] + whole["cache_read_input_tokens"]}
    assert post(COUNT, model="tiny", messages=[{"role": "user", "content": "a " * 5000}]).json()["input_tokens"] > 1024


@pytest.mark.parametrize(("body", "status", "kind", "words"), [
    ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"), ({"model": "nobody"}, 404, "not_found_error", "nobody"),
    ({"messages": []}, 400, "invalid_request_error", "messages"), ({"n": 2}, 400, "invalid_request_error", "n:"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, 400, "invalid_request_error", "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}]}]}, 400,
     "invalid_request_error", "messages[0].content[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "AA=="}}]}]}, 400,
     "invalid_request_error", "'document'"),
    ({"messages": [{"role": "user", "content": "a " * 3000}]}, 400, "invalid_request_error", "prompt is too long"),
    ({"tools": [{"name": "f"}]}, 400, "invalid_request_error", "tools[0].input_schema"),
    ({"tools": [{"name": "f g", "input_schema": {}}]}, 400, "invalid_request_error", "tools[0].name"),
    ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "g"}}, 400, "invalid_request_error", "tool_choice"),
    ({"thinking": {"type": "enabled", "budget_tokens": 0}}, 400, "invalid_request_error", "thinking.budget_tokens"),
    ({"echo": True}, 400, "invalid_request_error", "echo"), ({"prompt_logprobs": 1}, 400, "invalid_request_error", "prompt_"),
    ({"temperature": -1}, 400, "invalid_request_error", "temperature"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "strin"}}}}, 400, "invalid_request_error",
     "output_config.format")])
def test_errors_have_anthropic_s_form(post, body, status, kind, words):
    answer = post(**SHORT | body)
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert error["type"] == "error" and error["error"]["type"] == kind and words in error["error"]["message"]


def test_a_stream_that_fails_says_so(post, make_service, tokenizer):
    def broken(served):
        model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size)
        torch.nn.init.constant_(model.embed_tokens.weight, float("nan"))
        return LLM(model, tokenizer)

    whole, stream = (post(service=make_service(load=broken), **SHORT, stream=stream) for stream in (False, True))
    assert whole.status_code == 500 and whole.json()["error"]["type"] == "api_error"
    last = events(stream.text)[-1]
    assert last["type"] == "error" and last["error"]["type"] == "api_error" and "not finite" in last["error"]["message"]


def test_keys_limits_and_accounts_hold_here_too(make_service, tmp_path):
    app, keys, ended = make_app(make_service(), settings := Settings(shutdown_seconds=0.0)), Keys(tmp_path / "keys.json"), []
    auth.install(app, settings, keys)
    app.state.serving.service.on_end += [auth.charge, ended.append]
    secret = keys.add("laptop", tokens_per_minute=30)
    with listening(app) as url:
        refused = httpx.post(url + PATH, json=SHORT)
        answers = [httpx.post(url + PATH, json=SHORT, headers={"x-api-key": secret}, timeout=60) for _ in range(2)]
    assert refused.status_code == 401 and refused.json()["error"]["type"] == "authentication_error"
    assert [answer.status_code for answer in answers] == [200, 429] and len(ended) == 1
    assert answers[1].json()["error"]["type"] == "rate_limit_error" and answers[1].headers["retry-after"]


def test_hanging_up_ends_the_reply(server, idle, endless):
    body = SHORT | {"max_tokens": 900, "logit_bias": endless, "thinking": {"type": "adaptive"}, "stream": True}
    with httpx.stream("POST", server + PATH, json=body) as response:
        next(response.iter_lines())
    assert idle()


def test_pings_are_events(make_service, endless):
    app = make_app(make_service(), Settings(ping_seconds=0.0001, shutdown_seconds=0.0))
    with listening(app) as url:
        stream = events(httpx.post(url + PATH, json=SHORT | THINKING | {"stream": True}, timeout=60).text)
    assert sum(event == {"type": "ping"} for event in stream) > 1 and stream[-1]["type"] == "message_stop"


def test_blocks_follow_each_other():
    content = Content()
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    stream = [*content.add({"content": "a"}), *content.add({"tool_calls": [call, {"function": {"arguments": "{}"}}]}),
              *content.add({"reasoning_content": "b"}), *content.add({"content": "c"}), *content.close()]
    assert [block["type"] for block in content.blocks] == ["text", "tool_use", "thinking", "text"]
    assert rebuilt(stream) == content.blocks and content.blocks[1] == {
        "type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}


def test_the_beginning_of_an_answer_is_continued(post):
    """And not said again; the model does not think anew."""
    given = [*ASK, {"role": "assistant", "content": [{"type": "text", "text": "The answer is 4"}]}]
    message = post(**SHORT | {"messages": given}, **THINKING).json()
    assert [block["type"] for block in message["content"]] == ["text"]
    assert not message["content"][0]["text"].startswith("The answer is")
