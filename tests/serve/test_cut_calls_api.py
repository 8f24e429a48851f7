"""A call of a tool that the limit cuts off, as OpenAI's own client sees it."""

import json

import openai
import pytest

WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather of a city.", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "minLength": 400}}, "required": ["city"],
                   "additionalProperties": False}}}
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "How is the weather?"}], "tools": [WEATHER],
       "tool_choice": {"type": "function", "function": {"name": "weather"}}, "max_tokens": 60, "seed": 1,
       "reasoning_effort": "none"}


def test_a_stream_has_sent_the_beginning_and_ends_with_length(openai_client):
    """As OpenAI's: the arguments are incomplete, and finish_reason says so; never "tool_calls", which means complete ones."""
    chunks = list(openai_client.chat.completions.create(**ASK, stream=True))
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    arguments = "".join(call.function.arguments or "" for call in calls)
    assert calls[0].id and calls[0].function.name == "weather" and arguments.startswith("{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(arguments)
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["length"]
    assert any("a call of a tool was cut off" in str(getattr(chunk, "warning", "")) for chunk in chunks)


def test_a_whole_reply_has_no_call_that_could_not_be_carried_out(openai_client):
    choice, = openai_client.chat.completions.create(**ASK).choices
    assert choice.finish_reason == "length" and choice.message.tool_calls is None and not choice.message.content


def test_openai_s_client_raises_its_own_error_for_both(openai_client):
    with openai_client.chat.completions.stream(**ASK) as stream, pytest.raises(openai.LengthFinishReasonError):
        for _ in stream:
            pass
    with pytest.raises(openai.LengthFinishReasonError):
        openai_client.chat.completions.parse(**ASK)
