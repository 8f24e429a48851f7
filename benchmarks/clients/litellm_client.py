"""LiteLLM: its provider for servers like OpenAI's, and those whose requests differ (Anthropic, Ollama, vLLM, DeepSeek)."""

import json

import checks
import litellm
from checks import ASK, BRIEF_THOUGHT, EAGER_ROOT, KEY, MODEL, ROOT, SLOW_URL, TOO_LONG, URL, City, check, refused, versions

litellm.telemetry, litellm.suppress_debug_info = False, True
OPENAI = {"model": f"openai/{MODEL}", "api_base": URL}
PROVIDERS = {"openai": OPENAI, "hosted_vllm": {"model": f"hosted_vllm/{MODEL}", "api_base": URL},
             "deepseek": {"model": f"deepseek/{MODEL}", "api_base": URL},
             "anthropic": {"model": f"anthropic/{MODEL}", "api_base": ROOT},
             "ollama_chat": {"model": f"ollama_chat/{MODEL}", "api_base": ROOT}}
SHORT = {"messages": ASK, "max_tokens": 60, "api_key": KEY, "num_retries": 0, "timeout": 120}
ROOMY = SHORT | {"max_tokens": 600, "extra_body": BRIEF_THOUGHT}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.",
                                         "parameters": City.model_json_schema()}}

versions("litellm")
for name, provider in PROVIDERS.items():
    with check(f"chat: as {name}"):
        reply = litellm.completion(**SHORT | provider)
        assert reply.choices[0].message.content.strip() and reply.usage.completion_tokens > 0
    with check(f"stream: as {name}"):
        pieces = list(litellm.completion(**SHORT | provider, stream=True, stream_options={"include_usage": True}))
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices).strip()
        assert litellm.stream_chunk_builder(pieces, messages=ASK).usage.completion_tokens > 0
    with check(f"tools: as {name}, and an answer to its result"):
        root = {"api_base": provider["api_base"].replace(ROOT, EAGER_ROOT)}  # some APIs cannot ask for a call
        message = litellm.completion(**SHORT | {"max_tokens": 600} | provider | root, tools=[TOOL]).choices[0].message
        call = message.tool_calls[0]
        assert call.function.name == "weather" and isinstance(json.loads(call.function.arguments), dict)
        messages = [*ASK, message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
        more = litellm.completion(**SHORT | provider | root | {"messages": messages}, tools=[TOOL])
        assert more.choices[0].message.content.strip()
    with check(f"error: an unknown model, as {name}"), refused(litellm.NotFoundError):
        litellm.completion(**SHORT | provider | {"model": provider["model"].replace(MODEL, "nobody")})
with check("chat: as text completion"):
    assert litellm.text_completion(model=f"text-completion-openai/{MODEL}", api_base=URL, api_key=KEY, prompt="12 + 30 is",
                                   max_tokens=8, temperature=0).choices[0].text  # sampled, it may end at once
with check("chat: responses"):
    result = litellm.responses(**OPENAI, api_key=KEY, input="What is 12 + 30?", max_output_tokens=100)
    assert result.output[-1].content[0].text.strip()
with check("chat: embedding"):
    assert len(litellm.embedding(**OPENAI, api_key=KEY, input=["one", "two"]).data) == 2
with check("structured: a class as response_format"):
    reply = litellm.completion(**ROOMY | OPENAI, response_format=City)
    assert City.model_validate_json(reply.choices[0].message.content)
with check("thought: reasoning_content, whole and as a stream"):
    checks.needs_thought()
    assert litellm.completion(**SHORT | OPENAI).choices[0].message.reasoning_content.strip()
    pieces = list(litellm.completion(**SHORT | OPENAI, stream=True))
    assert "".join(getattr(piece.choices[0].delta, "reasoning_content", None) or "" for piece in pieces).strip()
with check("error: too long"), refused(litellm.ContextWindowExceededError):
    litellm.completion(**SHORT | OPENAI | {"messages": [{"role": "user", "content": TOO_LONG}]})
with check("error: a wrong key"), refused(litellm.AuthenticationError):
    litellm.completion(**SHORT | OPENAI | {"api_key": "sk-wrong"})
with check("slow: a reply"):
    pieces = litellm.completion(**SHORT | OPENAI | {"api_base": SLOW_URL, "max_tokens": 8}, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces).strip()
