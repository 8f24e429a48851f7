"""OpenAI's own Python client."""

import asyncio
import json

import openai
from checks import ASK, BRIEF_THOUGHT, KEY, MODEL, QUESTION, SLOW_URL, TOO_LONG, URL, City, check, needs_thought, versions

client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=120)
slow_client = openai.OpenAI(base_url=SLOW_URL, api_key=KEY, max_retries=0, timeout=60)
SHORT = {"model": MODEL, "messages": ASK, "max_tokens": 60, "seed": 1}
ROOMY = SHORT | {"max_tokens": 600, "extra_body": BRIEF_THOUGHT}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "strict": True,
                                         "parameters": City.model_json_schema()}}
RESPONSES = {"model": MODEL, "input": QUESTION, "max_output_tokens": 600, "extra_body": BRIEF_THOUGHT}

versions("openai")
with check("chat: models"):
    assert MODEL in [one.id for one in client.models.list()] and client.models.retrieve(MODEL).object == "model"
with check("chat: a reply"):
    reply = client.chat.completions.create(**SHORT)
    assert reply.choices[0].message.content.strip() and reply.usage.completion_tokens > 0
with check("chat: log-probabilities"):
    result = client.chat.completions.create(**SHORT, logprobs=True, top_logprobs=3)
    assert all(len(token.top_logprobs) == 3 for token in result.choices[0].logprobs.content)
with check("chat: responses"):
    result = client.responses.create(**RESPONSES)
    assert result.output_text.strip() and result.output[-1].type == "message"
with check("chat: completions"):
    result = client.completions.create(model=MODEL, prompt=["12 + 30 is", "Hello"], max_tokens=8, n=2)
    assert len(result.choices) == 4
with check("chat: embeddings"):
    result = client.embeddings.create(model=MODEL, input=["one", "two"])
    assert len(result.data) == 2 and isinstance(result.data[0].embedding[0], float)
with check("stream: a reply"):
    chunks = list(client.chat.completions.create(**SHORT, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == reply.choices[0].message.content and chunks[-1].usage.completion_tokens == reply.usage.completion_tokens
with check("stream: several at once with the asynchronous client"):
    async def several() -> list[str]:
        async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0) as client:
            async def one(seed: int) -> str:
                stream = await client.chat.completions.create(**SHORT | {"seed": seed}, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return await asyncio.gather(*(one(seed) for seed in range(8)))
    answers = asyncio.run(several())
    assert all(answers) and answers[1] == text
with check("stream: chat.completions.stream"):
    with client.chat.completions.stream(**ROOMY, response_format=City) as stream:
        kinds = {event.type for event in stream}
        assert "content.done" in kinds and isinstance(stream.get_final_completion().choices[0].message.parsed, City)
with check("stream: responses"):
    with client.responses.stream(**RESPONSES) as stream:
        kinds = [event.type for event in stream]
    assert "response.output_text.delta" in kinds and kinds[-1] in ("response.completed", "response.incomplete")
with check("stream: completions"):
    pieces = list(client.completions.create(model=MODEL, prompt="12 + 30 is", max_tokens=8, seed=1, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces)
with check("tools: a call, and an answer to its result"):
    result = client.chat.completions.parse(**ROOMY, tools=[openai.pydantic_function_tool(City, name="weather")],
                                           tool_choice="required", parallel_tool_calls=False)
    call = result.choices[0].message.tool_calls[0]
    assert result.choices[0].finish_reason == "tool_calls" and isinstance(call.function.parsed_arguments, City)
    messages = [*ASK, result.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
    result = client.chat.completions.create(**SHORT | {"messages": messages}, tools=[TOOL], tool_choice="none")
    assert result.choices[0].message.content.strip()
with check("tools: a named one, as a stream"):
    chunks = list(client.chat.completions.create(**ROOMY, tools=[TOOL], stream=True,
                                                 tool_choice={"type": "function", "function": {"name": "weather"}}))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].id and calls[0].function.name == "weather" and {call.index for call in calls} == {0}
    City.model_validate_json("".join(call.function.arguments or "" for call in calls))
with check("tools: responses, a call and an answer to its result"):
    tool = {"type": "function", **TOOL["function"]}
    result = client.responses.create(**RESPONSES, tools=[tool], tool_choice="required", parallel_tool_calls=False)
    call = next(item for item in result.output if item.type == "function_call")
    City.model_validate_json(call.arguments)
    more = [*ASK, *result.output, {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}]
    result = client.responses.create(**RESPONSES | {"input": more}, tools=[tool], tool_choice="none")
    assert result.output_text.strip()
with check("structured: parse"):
    result = client.chat.completions.parse(**ROOMY, response_format=City)
    assert isinstance(result.choices[0].message.parsed, City)
with check("structured: json_object"):
    result = client.chat.completions.create(**ROOMY, response_format={"type": "json_object"})
    assert result.choices[0].finish_reason == "length" or isinstance(json.loads(result.choices[0].message.content), dict)
with check("structured: responses.parse"):
    assert isinstance(client.responses.parse(**RESPONSES, text_format=City).output_parsed, City)
with check("thought: reasoning_content, counted"):
    needs_thought()
    assert reply.choices[0].message.reasoning_content
    assert 0 < reply.usage.completion_tokens_details.reasoning_tokens < reply.usage.completion_tokens
with check("thought: responses"):
    needs_thought()
    result = client.responses.create(**RESPONSES, reasoning={"effort": "low", "summary": "auto"})
    assert [item.type for item in result.output] == ["reasoning", "message"]
    assert result.usage.output_tokens_details.reasoning_tokens > 0
for name, kind, more in (("an unknown model", openai.NotFoundError, {"model": "nobody"}),
                         ("too long", openai.BadRequestError, {"messages": [{"role": "user", "content": TOO_LONG}]}),
                         ("a wrong value", openai.BadRequestError, {"temperature": 99})):
    with check(f"error: {name}"):
        try:
            client.chat.completions.create(**SHORT | more)
        except kind as error:
            assert error.code == {"an unknown model": "model_not_found", "too long": "context_length_exceeded"}.get(name)
        else:
            raise AssertionError("it was not refused")
with check("error: too long, as a stream"):
    try:
        list(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": TOO_LONG}], stream=True))
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded"
    else:
        raise AssertionError("it was not refused")
with check("error: a wrong key"):
    try:
        openai.OpenAI(base_url=URL, api_key="sk-wrong", max_retries=0).models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("it was let in")
with check("slow: chat"):
    text = "".join(chunk.choices[0].delta.content or "" for chunk in slow_client.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=8, stream=True))
    assert text.strip()
with check("slow: votes"):
    needs_thought()
    chunks = list(slow_client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=16, stream=True,
                                                      extra_body={"n_thoughts": 2}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).strip()
with check("slow: completions"):
    assert "".join(chunk.choices[0].text for chunk in slow_client.completions.create(model=MODEL, prompt="12 + 30 is",
                                                                                     max_tokens=4, seed=1, stream=True))
with check("slow: responses"):
    with slow_client.responses.stream(model=MODEL, input=QUESTION, max_output_tokens=8) as stream:
        assert [event.type for event in stream][-1] in ("response.completed", "response.incomplete")
