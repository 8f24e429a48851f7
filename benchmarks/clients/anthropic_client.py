"""Anthropic's own Python client."""

import asyncio
from typing import Literal

import anthropic
from checks import ASK, EAGER_ROOT, KEY, MODEL, ROOT, SLOW_ROOT, TOO_LONG, City, check, needs_thought, refused, versions
from pydantic import BaseModel


class Town(BaseModel):
    """Without numbers: the client takes their limits out of a schema."""

    rain: bool
    kind: Literal["small", "large"]


client = anthropic.Anthropic(base_url=ROOT, api_key=KEY, max_retries=0, timeout=120)
SHORT = {"model": MODEL, "messages": ASK, "max_tokens": 60}
ROOMY = SHORT | {"max_tokens": 600, "thinking": {"type": "disabled"}}
GREEDY = {"extra_body": {"temperature": 0.0}}  # the newest client has no such argument
THINKING = SHORT | {"max_tokens": 1600, "thinking": {"type": "enabled", "budget_tokens": 1024}}
TOOL = {"name": "weather", "description": "Of a city.", "input_schema": City.model_json_schema()}
STOPS = ("end_turn", "max_tokens")


def text_of(message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


versions("anthropic")
with check("chat: a message"):
    message = client.messages.create(**SHORT, system="Be brief.", **GREEDY)
    assert text_of(message).strip() and message.stop_reason in STOPS and message.usage.output_tokens > 0
with check("chat: turns, content in blocks"):
    turns = [*ASK, {"role": "assistant", "content": [{"type": "text", "text": "42"}]},
             {"role": "user", "content": [{"type": "text", "text": "So?", "cache_control": {"type": "ephemeral"}}]}]
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert text_of(client.messages.create(**SHORT | {"messages": turns}, system=system, stop_sequences=["###"])).strip()
with check("chat: count_tokens"):
    usage = client.messages.create(**SHORT).usage  # what was read from the cache is counted apart
    assert client.messages.count_tokens(model=MODEL, messages=ASK).input_tokens == sum(
        count or 0 for count in (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens))
with check("chat: models"):
    assert MODEL in [one.id for one in client.models.list()] and client.models.retrieve(MODEL).id == MODEL
with check("chat: the key as auth_token"):
    bearer = anthropic.Anthropic(base_url=ROOT, api_key=None, auth_token=KEY, max_retries=0)
    assert text_of(bearer.messages.create(**SHORT)).strip()
with check("stream: a message"):
    whole = client.messages.create(**SHORT, **GREEDY)
    with client.messages.stream(**SHORT, **GREEDY) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == text_of(message) == text_of(whole) and message.stop_reason == whole.stop_reason
    assert message.usage.output_tokens == whole.usage.output_tokens
with check("stream: its events"):
    kinds = [event.type for event in client.messages.create(**SHORT, stream=True)]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds[:1] + kinds[-2:]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") > 0 and "content_block_delta" in kinds
with check("stream: with the asynchronous client"):
    async def several() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=ROOT, api_key=KEY, max_retries=0) as client:
            return [text_of(one) for one in await asyncio.gather(*(client.messages.create(**SHORT) for _ in range(4)))]
    assert all(asyncio.run(several()))
for name, choice in (("a named one", {"type": "tool", "name": "weather"}), ("any", {"type": "any"})):
    with check(f"tools: {name}, and an answer to its result"):
        message = client.messages.create(**ROOMY, tools=[TOOL], tool_choice=choice | {"disable_parallel_tool_use": True})
        calls = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == "tool_use" and len(calls) == 1 and City.model_validate(calls[0].input)
        result = {"type": "tool_result", "tool_use_id": calls[0].id, "content": "sun"}
        messages = [*ASK, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        more = client.messages.create(**SHORT | {"messages": messages}, tools=[TOOL], tool_choice={"type": "none"})
        assert text_of(more).strip() and more.stop_reason in STOPS
with check("tools: as a stream"):
    with client.messages.stream(**ROOMY, tools=[TOOL], tool_choice={"type": "tool", "name": "weather"}) as stream:
        kinds = {event.delta.type for event in stream if event.type == "content_block_delta"}
        message = stream.get_final_message()
    assert "input_json_delta" in kinds and City.model_validate(message.content[-1].input)
with check("tools: tool_runner"):
    called = []

    @anthropic.beta_tool
    def weather(place: Literal["Oslo", "Rome"]) -> str:
        """The weather of a place."""
        called.append(place)
        return "sun"

    eager = anthropic.Anthropic(base_url=EAGER_ROOT, api_key=KEY, max_retries=0, timeout=120)
    messages = list(eager.beta.messages.tool_runner(**ROOMY, tools=[weather], max_iterations=4))
    assert called and set(called) <= {"Oslo", "Rome"} and text_of(messages[-1]).strip()
with check("structured: parse"):
    assert isinstance(client.messages.parse(**ROOMY, output_format=Town).parsed_output, Town)
with check("thought: blocks, and sent back"):
    needs_thought()
    message = client.messages.create(**THINKING)
    kinds = [block.type for block in message.content]  # random weights may think again in the middle of an answer
    assert kinds[:2] == ["thinking", "text"] and message.content[0].thinking.strip(), kinds
    turns = [*ASK, {"role": "assistant", "content": message.content}, {"role": "user", "content": "So?"}]
    assert text_of(client.messages.create(**THINKING | {"messages": turns})).strip()
with check("thought: as a stream"):
    needs_thought()
    with client.messages.stream(**THINKING) as stream:
        kinds = [event.delta.type for event in stream if event.type == "content_block_delta"]
        message = stream.get_final_message()
    assert {"thinking_delta", "text_delta"} <= set(kinds) and message.content[0].thinking.strip()
with check("error: an unknown model"), refused(anthropic.NotFoundError, "not_found_error"):
    client.messages.create(**SHORT | {"model": "nobody"})
with check("error: a wrong key"), refused(anthropic.AuthenticationError, "authentication_error"):
    anthropic.Anthropic(base_url=ROOT, api_key="sk-wrong", max_retries=0).messages.create(**SHORT)
with check("error: too long"), refused(anthropic.BadRequestError, "invalid_request_error", "prompt is too long"):
    client.messages.create(**SHORT | {"messages": [{"role": "user", "content": TOO_LONG}]})
with check("error: a wrong value, as a stream"), refused(anthropic.BadRequestError, "invalid_request_error"):
    list(client.messages.create(**SHORT | {"max_tokens": -5}, stream=True))
with check("slow: a message"):
    slow = anthropic.Anthropic(base_url=SLOW_ROOT, api_key=KEY, max_retries=0, timeout=60)
    with slow.messages.stream(model=MODEL, messages=ASK, max_tokens=8) as stream:
        assert "".join(stream.text_stream).strip()
