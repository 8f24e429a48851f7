"""OpenAI's Agents SDK, over Chat Completions and over Responses."""

import asyncio
from typing import Literal

import agents
import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from checks import BRIEF_THOUGHT, EAGER_URL, KEY, MODEL, SLOW_URL, TOO_LONG, City, check, needs_thought, refused, versions

agents.set_tracing_disabled(True)
SETTINGS = ModelSettings(max_tokens=600, extra_body=BRIEF_THOUGHT)
KINDS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}
CALLED = []


@function_tool
def weather(place: Literal["Oslo", "Rome"]) -> str:
    """The weather of a place."""
    CALLED.append(place)
    return "sun"


def agent_of(api: str, url: str = EAGER_URL, key: str = KEY, model: str = MODEL, settings: ModelSettings = SETTINGS,
             **more) -> Agent:
    client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=120)
    return Agent("helper", instructions="Be brief.", model=KINDS[api](model, client), model_settings=settings, **more)


async def streamed(agent: Agent) -> tuple[list, str]:
    """The events of a streamed run, and its final output."""
    result = Runner.run_streamed(agent, "Describe Oslo.")
    return [event async for event in result.stream_events()], result.final_output


versions("openai-agents")
for api in KINDS:
    with check(f"chat: {api}"):
        result = Runner.run_sync(agent_of(api), "What is 12 + 30?")
        assert result.final_output.strip() and result.context_wrapper.usage.output_tokens > 0
        assert Runner.run_sync(agent_of(api), [*result.to_input_list(), {"role": "user", "content": "So?"}]).final_output
    with check(f"stream: {api}"):
        events, output = asyncio.run(streamed(agent_of(api)))
        deltas = [event.data.delta for event in events if event.type == "raw_response_event"
                  and event.data.type == "response.output_text.delta"]
        assert "".join(deltas) == output and output.strip()
    for name, run in (("", lambda agent: Runner.run_sync(agent, "Describe Oslo.").final_output),
                      (", as a stream", lambda agent: asyncio.run(streamed(agent))[1])):
        with check(f"tools: {api}, and an answer to their results{name}"):
            CALLED.clear()
            assert run(agent_of(api, tools=[weather])).strip() and CALLED and set(CALLED) <= {"Oslo", "Rome"}
    with check(f"structured: {api}, output_type"):
        assert isinstance(Runner.run_sync(agent_of(api, output_type=City), "Describe Oslo.").final_output, City)
    with check(f"thought: {api}, an item of its own"):
        needs_thought()
        assert "reasoning_item" in [item.type for item in Runner.run_sync(agent_of(api), "Describe Oslo.").new_items]
    with check(f"error: {api}, an unknown model"), refused(openai.NotFoundError, "nobody"):
        Runner.run_sync(agent_of(api, model="nobody"), "Hi")
    with check(f"error: {api}, a wrong key"), refused(openai.AuthenticationError, "API key"):
        Runner.run_sync(agent_of(api, key="sk-wrong"), "Hi")
    with check(f"error: {api}, too long"), refused(openai.BadRequestError, "maximum context length"):
        Runner.run_sync(agent_of(api), TOO_LONG)
    with check(f"slow: {api}"):
        try:
            assert asyncio.run(streamed(agent_of(api, SLOW_URL, settings=ModelSettings(max_tokens=8))))[1].strip()
        except agents.ModelBehaviorError as error:  # so it calls a limit that is reached: after the whole stream
            assert "response.incomplete" in str(error)
