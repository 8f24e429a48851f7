"""Ollama's own Python client."""

import asyncio

import ollama
from checks import ASK, EAGER_ROOT, KEY, MODEL, ROOT, SLOW_ROOT, TOO_LONG, City, check, needs_thought, refused, versions


def client_of(root: str, key: str = KEY) -> ollama.Client:
    return ollama.Client(host=root, headers={"Authorization": f"Bearer {key}"}, timeout=120)


def weather(place: str) -> str:
    """The weather of a place.

    Args:
        place: its name
    """
    return f"sun in {place}"


client, eager = client_of(ROOT), client_of(EAGER_ROOT)
SHORT = {"model": MODEL, "messages": ASK, "options": {"num_predict": 60, "seed": 1, "temperature": 0}}
ROOMY = SHORT | {"options": {"num_predict": 600, "seed": 1}, "think": False}

versions("ollama")
with check("chat: list and show"):
    names = [one.model for one in client.list().models]
    shown = client.show(names[0])
    assert any(name.removesuffix(":latest") == MODEL for name in names) and "completion" in shown.capabilities
    assert any(key.endswith(".context_length") for key in shown.modelinfo)
with check("chat: a reply"):
    reply = client.chat(**SHORT)
    assert reply.message.content.strip() and reply.done and reply.done_reason in ("stop", "length") and reply.eval_count > 0
with check("chat: a model with the tag :latest"):
    assert client.chat(**SHORT | {"model": f"{MODEL}:latest"}).message.content.strip()
with check("chat: generate"):
    assert client.generate(MODEL, "What is 3 + 4?", system="Be brief.", options=SHORT["options"]).response.strip()
with check("chat: generate, raw"):
    assert client.generate(MODEL, "12 + 30 is", raw=True, options={"num_predict": 8, "temperature": 0}).response
with check("chat: embed"):
    assert len(client.embed(MODEL, ["one", "two"]).embeddings) == 2
with check("stream: a reply"):
    pieces = list(client.chat(**SHORT, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == reply.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True] and len(pieces) > 2
    assert pieces[-1].eval_count == reply.eval_count and pieces[-1].prompt_eval_count == reply.prompt_eval_count
with check("stream: generate"):
    pieces = list(client.generate(MODEL, "What is 3 + 4?", stream=True, options=SHORT["options"]))
    assert "".join(piece.response or "" for piece in pieces).strip() and pieces[-1].done
with check("stream: with the asynchronous client"):
    async def one() -> str:
        asynchronous = ollama.AsyncClient(host=ROOT, headers={"Authorization": f"Bearer {KEY}"})
        return "".join([piece.message.content or "" async for piece in await asynchronous.chat(**SHORT, stream=True)])
    assert asyncio.run(one()).strip()
with check("tools: a Python function, and an answer to its result"):
    message = eager.chat(**ROOMY, tools=[weather]).message
    call = message.tool_calls[0].function
    assert call.name == "weather" and isinstance(call.arguments["place"], str)
    messages = [*ASK, message, {"role": "tool", "tool_name": "weather", "content": "sun"}]
    assert client.chat(**SHORT | {"messages": messages}, tools=[weather]).message.content.strip()
with check("tools: as a stream"):
    calls = [call for piece in eager.chat(**ROOMY, tools=[weather], stream=True) for call in piece.message.tool_calls or ()]
    assert calls and {call.function.name for call in calls} == {"weather"}
with check("structured: a schema as format"):
    assert City.model_validate_json(client.chat(**ROOMY, format=City.model_json_schema()).message.content)
    text = client.generate(MODEL, "Describe Oslo.", format=City.model_json_schema(), think=False).response
    assert City.model_validate_json(text)
with check("thought: apart, on and off"):
    needs_thought()
    message = client.chat(**SHORT, think=True).message
    assert message.thinking.strip() and "<think>" not in message.content
    assert not client.chat(**SHORT, think=False).message.thinking
    assert client.generate(MODEL, "What is 3 + 4?", think="low", options=SHORT["options"]).thinking.strip()
with check("thought: as a stream"):
    needs_thought()
    pieces = list(client.chat(**SHORT, think=True, stream=True))
    assert "".join(piece.message.thinking or "" for piece in pieces).strip()
long = SHORT | {"messages": [{"role": "user", "content": TOO_LONG}]}
for name, code, call in (("an unknown model", 404, lambda: client.chat(**SHORT | {"model": "nobody"})),
                         ("a wrong key", 401, lambda: client_of(ROOT, "sk-wrong").chat(**SHORT)),
                         ("too long", 400, lambda: client.chat(**long)),
                         ("an unknown model, as a stream", 404, lambda: list(client.chat("nobody", ASK, stream=True)))):
    with check(f"error: {name}"), refused(ollama.ResponseError, f"(status code: {code})"):
        call()
with check("slow: a reply"):
    pieces = client_of(SLOW_ROOT).chat(MODEL, ASK, stream=True, options={"num_predict": 8})
    assert "".join(piece.message.content or "" for piece in pieces).strip()
