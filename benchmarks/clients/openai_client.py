"""OpenAI's own Python client."""

import asyncio
import json
from typing import Literal

import openai
from checks import ASK, KEY, MODEL, URL, check, versions
from pydantic import BaseModel, Field

client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=120)
SHORT = {"model": MODEL, "messages": ASK, "max_tokens": 60, "seed": 1}
ROOMY = SHORT | {"max_tokens": 600, "extra_body": {"max_thinking_tokens": 8}}


class City(BaseModel):
    rain: bool
    size: int = Field(ge=0, le=99)
    kind: Literal["small", "large"]


TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "strict": True,
                                         "parameters": City.model_json_schema() | {"additionalProperties": False}}}

versions("openai")
with check("models"):
    assert MODEL in [one.id for one in client.models.list()] and client.models.retrieve(MODEL).object == "model"
with check("chat"):
    reply = client.chat.completions.create(**SHORT)
    assert reply.choices[0].message.content.strip() and reply.choices[0].message.reasoning_content
    assert reply.usage.completion_tokens_details.reasoning_tokens > 0
with check("chat, as a stream"):
    chunks = list(client.chat.completions.create(**SHORT, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == reply.choices[0].message.content and chunks[-1].usage.completion_tokens == reply.usage.completion_tokens
with check("chat, several at once with the asynchronous client"):
    async def several() -> list[str]:
        async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0) as client:
            async def one(seed: int) -> str:
                stream = await client.chat.completions.create(**SHORT | {"seed": seed}, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return await asyncio.gather(*(one(seed) for seed in range(8)))
    answers = asyncio.run(several())
    assert all(answers) and answers[1] == text
with check("chat.completions.stream"):
    with client.chat.completions.stream(**ROOMY, response_format=City) as stream:
        kinds = {event.type for event in stream}
        assert "content.done" in kinds and isinstance(stream.get_final_completion().choices[0].message.parsed, City)
with check("structured output: parse"):
    result = client.chat.completions.parse(**ROOMY, response_format=City)
    assert isinstance(result.choices[0].message.parsed, City)
with check("structured output: json_object"):
    result = client.chat.completions.create(**ROOMY, response_format={"type": "json_object"})
    assert result.choices[0].finish_reason == "length" or isinstance(json.loads(result.choices[0].message.content), dict)
with check("tools, and an answer to their results"):
    result = client.chat.completions.parse(**ROOMY, tools=[openai.pydantic_function_tool(City, name="weather")],
                                         tool_choice="required", parallel_tool_calls=False)
    call = result.choices[0].message.tool_calls[0]
    assert result.choices[0].finish_reason == "tool_calls" and isinstance(call.function.parsed_arguments, City)
    messages = [*ASK, result.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
    result = client.chat.completions.create(**SHORT | {"messages": messages}, tools=[TOOL], tool_choice="none")
    assert result.choices[0].message.content.strip()
with check("tools, as a stream"):
    calls = [call for chunk in client.chat.completions.create(**ROOMY, tools=[TOOL], stream=True, parallel_tool_calls=False,
                                                              tool_choice={"type": "function", "function": {"name": "weather"}})
             for call in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].id and calls[0].function.name == "weather"
    City.model_validate_json("".join(call.function.arguments or "" for call in calls))
with check("log-probabilities"):
    result = client.chat.completions.create(**SHORT, logprobs=True, top_logprobs=3)
    assert all(len(token.top_logprobs) == 3 for token in result.choices[0].logprobs.content)
RESPONSES = {"model": MODEL, "input": "What is 12 + 30?", "max_output_tokens": 600, "extra_body": {"max_thinking_tokens": 8}}
with check("responses"):
    result = client.responses.create(**RESPONSES)
    assert result.output_text.strip() and [item.type for item in result.output] == ["reasoning", "message"]
with check("responses, as a stream"):
    with client.responses.stream(**RESPONSES) as stream:
        kinds = [event.type for event in stream]
    assert "response.output_text.delta" in kinds and kinds[-1] in ("response.completed", "response.incomplete")
with check("responses: parse"):
    assert isinstance(client.responses.parse(**RESPONSES, text_format=City).output_parsed, City)
with check("completions"):
    result = client.completions.create(model=MODEL, prompt=["12 + 30 is", "Hello"], max_tokens=8, n=2)
    assert len(result.choices) == 4
with check("embeddings"):
    result = client.embeddings.create(model=MODEL, input=["one", "two"])
    assert len(result.data) == 2 and isinstance(result.data[0].embedding[0], float)
for name, kind, more in (("an unknown model", openai.NotFoundError, {"model": "nobody"}),
                         ("too long", openai.BadRequestError, {"messages": [{"role": "user", "content": "1 " * 30_000}]}),
                         ("a wrong value", openai.BadRequestError, {"temperature": 99})):
    with check(f"error: {name}"):
        try:
            client.chat.completions.create(**SHORT | more)
        except kind as refused:
            assert refused.code == {"an unknown model": "model_not_found", "too long": "context_length_exceeded"}.get(name)
        else:
            raise AssertionError("it was not refused")
with check("error: a wrong key"):
    try:
        openai.OpenAI(base_url=URL, api_key="sk-wrong", max_retries=0).models.list()
    except openai.AuthenticationError as refused:
        assert refused.code == "invalid_api_key"
    else:
        raise AssertionError("it was let in")
