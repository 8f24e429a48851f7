"""Streams that say nothing for a while: OpenAI's own client reads on, on every endpoint."""

import httpx
import openai
import pytest
from listening import listening

from spoutnik.serve.app import make_app
from spoutnik.serve.settings import Settings
from spoutnik.serve.streams import StreamRecording

ASK = [{"role": "user", "content": "Why?"}]


@pytest.fixture(scope="module")
def silent(make_service):
    """The address of a server that is impatient with silence."""
    with listening(make_app(make_service(), Settings(ping_seconds=0.001, shutdown_seconds=1.0))) as url:
        yield url


@pytest.fixture
def client(silent):
    with openai.OpenAI(base_url=f"{silent}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def pings(monkeypatch):
    """Three pings before every event; the list grows with each."""
    sent, wait = [], StreamRecording._wait_for_event

    async def wait_longer(self, seconds: float) -> bool:
        if len(sent) % 4 < 3:
            sent.append(self)
            return False
        sent.append(None)
        return await wait(self, 60.0)

    monkeypatch.setattr(StreamRecording, "_wait_for_event", wait_longer)
    return sent


def chat_text(stream) -> str:
    return "".join((chunk.choices[0].delta.content or "") + getattr(chunk.choices[0].delta, "reasoning", "")
                   for chunk in stream if chunk.choices)


@pytest.mark.parametrize("more", [{}, {"resumable": True}, {"n_thoughts": 3}, {"n": 2}])
def test_chat(client, pings, more):
    def ask():
        return client.chat.completions.create(model="tiny", messages=ASK, seed=1, max_tokens=40, stream=True, extra_body=more,
                                              stream_options={"include_usage": True})
    chunks = list(ask())
    assert len(pings) > 3 and chunks[-1].usage.completion_tokens > 0 and chat_text(chunks)
    assert sum(bool(chunk.choices and chunk.choices[0].finish_reason) for chunk in chunks) == more.get("n", 1)


@pytest.mark.parametrize("more", [{}, {"resumable": True}])
def test_completions(client, pings, more):
    def ask(**how):
        return client.completions.create(model="tiny", prompt="Why?", seed=1, max_tokens=30, **how)
    streamed = "".join(chunk.choices[0].text for chunk in ask(stream=True, extra_body=more))
    assert len(pings) > 3 and streamed == ask().choices[0].text


@pytest.mark.parametrize("more", [{}, {"resumable": True}])
def test_responses(client, pings, more):
    with client.responses.stream(model="tiny", input="Why?", max_output_tokens=40, extra_body={"seed": 1} | more) as stream:
        first, *_, last = stream
    assert len(pings) > 3 and first.type == "response.created" and last.response.usage.output_tokens > 0


def test_a_reply_that_is_paused(client, silent, endless):
    """Until some pings have come, which a second reader of the same stream sees."""
    stream = client.chat.completions.create(model="tiny", messages=ASK, seed=1, max_tokens=900, stream=True,
                                            logit_bias=endless, extra_body={"detect_loops": False, "resumable": True})
    name = next(stream).id
    url = f"{silent}/v1/chat/completions/{name}"
    assert httpx.post(f"{url}/control", json={"action": "pause"}).status_code == 200
    with httpx.stream("GET", f"{url}/stream") as second:
        pings = 0
        for line in second.iter_lines():
            pings += line == ": ping"
            if pings == 20:
                break
    assert httpx.post(f"{url}/control", json={"action": "end_thought"}).status_code == 200
    assert "here is my answer" in chat_text(stream)
