"""Pydantic AI: its models for Chat Completions, vLLM, Responses, Ollama and Anthropic's API."""

from typing import Literal

from checks import BRIEF_THOUGHT, EAGER_URL, KEY, MODEL, SLOW_URL, TOO_LONG, URL, City, check, needs_thought, refused, versions
from pydantic_ai import Agent, NativeOutput, ThinkingPart, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.vllm import VLLMProvider

QUESTION = "Describe Oslo."
SETTINGS = {"max_tokens": 600, "timeout": 120}
BRIEF = SETTINGS | {"extra_body": BRIEF_THOUGHT}  # Anthropic's API has no such field
APIS = {"chat": lambda url, key, model: OpenAIChatModel(model, provider=OpenAIProvider(url, key)),
        "vllm": lambda url, key, model: OpenAIChatModel(model, provider=VLLMProvider(base_url=url, api_key=key)),
        "responses": lambda url, key, model: OpenAIResponsesModel(model, provider=OpenAIProvider(url, key)),
        "ollama": lambda url, key, model: OllamaModel(model, provider=OllamaProvider(url, key)),
        "anthropic": lambda url, key, model: AnthropicModel(model, provider=AnthropicProvider(
            base_url=url.removesuffix("/v1"), api_key=key))}


def model_of(api: str, url: str = URL, key: str = KEY, model: str = MODEL) -> Model:
    return APIS[api](url, key, model)


versions("pydantic-ai-slim")
CALLED = []


def weather(place: Literal["Oslo", "Rome"]) -> str:
    """The weather of a place."""
    CALLED.append(place)
    return "sun"


for api in APIS:
    settings = SETTINGS if api == "anthropic" else BRIEF
    with check(f"chat: {api}"):
        result = Agent(model_of(api), instructions="Be brief.", model_settings=settings).run_sync("What is 12 + 30?")
        assert result.output.strip() and result.usage.output_tokens > 0
        assert Agent(model_of(api)).run_sync("So?", message_history=result.all_messages(), model_settings=settings).output
    with check(f"stream: {api}"):
        with Agent(model_of(api), model_settings=settings).run_stream_sync("What is 12 + 30?") as result:
            assert "".join(result.stream_text(delta=True, debounce_by=None)).strip() and result.usage.output_tokens > 0
    with check(f"tools: {api}, and an answer to their results"):
        CALLED.clear()
        agent = Agent(model_of(api, EAGER_URL), tools=[weather], model_settings=settings)
        assert agent.run_sync(QUESTION).output.strip() and CALLED and set(CALLED) <= {"Oslo", "Rome"}
    for kind, way in (("tools", ToolOutput), ("structured", NativeOutput)):
        if (api, way) != ("anthropic", NativeOutput):  # of that API, this client knows by their names the models that can
            with check(f"{kind}: {api}, an object by {way.__name__}"):
                agent = Agent(model_of(api), output_type=way(City), model_settings=settings)
                assert isinstance(agent.run_sync(QUESTION).output, City)
    with check(f"error: {api}, an unknown model"), refused(ModelHTTPError, "status_code: 404"):
        Agent(model_of(api, model="nobody")).run_sync(QUESTION)
    with check(f"error: {api}, a wrong key"), refused(ModelHTTPError, "status_code: 401"):
        Agent(model_of(api, key="sk-wrong")).run_sync(QUESTION)
    with check(f"error: {api}, too long"), refused(ModelHTTPError, "status_code: 400"):
        Agent(model_of(api)).run_sync(TOO_LONG)
    with check(f"slow: {api}"):
        with Agent(model_of(api, SLOW_URL), model_settings={"max_tokens": 8}).run_stream_sync("Hi") as result:
            assert "".join(result.stream_text(delta=True, debounce_by=None)).strip()
for api, more in (("vllm", {}), ("responses", {"openai_reasoning_summary": "auto"}),
                  ("anthropic", {"anthropic_thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1600})):
    with check(f"thought: {api}, a part of its own"):
        needs_thought()
        parts = Agent(model_of(api)).run_sync(QUESTION, model_settings=SETTINGS | more).all_messages()[-1].parts
        assert isinstance(parts[0], ThinkingPart) and parts[0].content.strip(), parts
