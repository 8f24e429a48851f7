"""instructor: answers as objects, by each of its ways to ask for one."""

import anthropic
import instructor
import openai
from checks import BRIEF_THOUGHT, KEY, MODEL, ROOT, SLOW_URL, TOO_LONG, URL, City, check, refused, versions
from instructor.core import InstructorRetryException

QUESTION = [{"role": "user", "content": "Describe Oslo."}]
REQUEST = {"model": MODEL, "messages": QUESTION, "max_tokens": 600, "extra_body": BRIEF_THOUGHT, "max_retries": 0}
RESPONSES = {"model": MODEL, "input": "Describe Oslo.", "max_output_tokens": 600, "extra_body": BRIEF_THOUGHT, "max_retries": 0}
MODES = {"tools": instructor.Mode.TOOLS, "strict tools": instructor.Mode.TOOLS_STRICT, "a schema": instructor.Mode.JSON_SCHEMA}


def client(mode: instructor.Mode = instructor.Mode.JSON_SCHEMA, url: str = URL, key: str = KEY) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120), mode=mode)


versions("instructor")
with check("chat: an answer that is no object"):
    assert client().chat.completions.create(**REQUEST, response_model=None).choices[0].message.content.strip()
for name, mode in MODES.items():
    kind = "structured" if mode is instructor.Mode.JSON_SCHEMA else "tools"
    with check(f"{kind}: an object, by {name}"):
        assert isinstance(client(mode).create(**REQUEST, response_model=City), City)
    with check(f"{kind}: an object and the completion, by {name}"):
        city, completion = client(mode).create_with_completion(**REQUEST, response_model=City)
        assert isinstance(city, City) and completion.usage.completion_tokens > 0
    with check(f"stream: a growing object, by {name}"):
        assert City.model_validate(list(client(mode).create_partial(**REQUEST, response_model=City))[-1].model_dump())
by_responses = client(instructor.Mode.RESPONSES_TOOLS).responses
by_messages = instructor.from_anthropic(anthropic.Anthropic(base_url=ROOT, api_key=KEY, max_retries=0, timeout=120),
                                        mode=instructor.Mode.ANTHROPIC_TOOLS)
for name, api, request in (("Responses", by_responses, RESPONSES), ("Anthropic's Messages", by_messages, REQUEST)):
    with check(f"tools: an object, by {name}"):
        assert isinstance(api.create(**request, response_model=City), City)
    with check(f"stream: a growing object, by {name}"):
        assert City.model_validate(list(api.create_partial(**request, response_model=City))[-1].model_dump())
with check("error: an unknown model"), refused(InstructorRetryException, "404", "model_not_found"):
    client().create(**REQUEST | {"model": "nobody"}, response_model=City)
with check("error: a wrong key"), refused(InstructorRetryException, "401", "invalid_api_key"):
    client(key="sk-wrong").create(**REQUEST, response_model=City)
with check("error: too long"), refused(InstructorRetryException, "400", "context_length_exceeded"):
    client().create(**REQUEST | {"messages": [{"role": "user", "content": TOO_LONG}]}, response_model=City)
with check("slow: a growing object"):
    cities = client(url=SLOW_URL).create_partial(**REQUEST | {"extra_body": {"max_thinking_tokens": 0}}, response_model=City)
    assert City.model_validate(list(cities)[-1].model_dump())
