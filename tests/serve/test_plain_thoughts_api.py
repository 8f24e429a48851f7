"""A model whose marks of thought are plain text, behind the API: whole, as streams, voting, steered."""

import asyncio
import json

import plain_marks
import pytest
import tiny

from spoutnik.engine.llm import LLM
from spoutnik.generation.service import GenerationService, ServedModel

POSITIONS = 512
ASK = {"messages": [{"role": "user", "content": "Combien y en a-t-il dans la boîte ?"}], "seed": 3, "temperature": 1.0,
       "max_tokens": 60, "max_thinking_tokens": 20, "detect_loops": False}
CLOSING = "J'ai assez réfléchi ; voici ma réponse."


@pytest.fixture
def service(tmp_path):
    tokenizer = plain_marks.tokenizer()

    def load(served):
        model = tiny.model(tiny.QWEN, vocab_size=340, max_position_embeddings=POSITIONS)
        return LLM(model, tokenizer, max_num_seqs=8, memory="64MB", eos_token_ids=tokenizer.eos_ids)

    return GenerationService([ServedModel("plain", tmp_path, tokenizer, POSITIONS)], load)


def chunks(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def added(events, name):
    return "".join(choice["delta"].get(name) or "" for event in events for choice in event["choices"])


def test_whole_and_as_a_stream_it_is_the_same(api, service):
    async def work():
        async with api(service) as client:
            for more in ({}, {"n_thoughts": 3, "logit_bias": {"2": 100}},
                         {"reasoning_effort": "none", "max_thinking_tokens": None}):
                body = ASK | more
                whole = (await client.post("/v1/chat/completions", json=body)).json()
                stream = chunks((await client.post("/v1/chat/completions", json=body | {
                    "stream": True, "stream_options": {"include_usage": True}})).text)
                message, usage = whole["choices"][0]["message"], whole["usage"]
                assert (added(stream, "reasoning_content"), added(stream, "content")) == (
                    message.get("reasoning_content", ""), message["content"])
                assert message["content"] and "think>" not in message["content"] + message.get("reasoning_content", "")
                last = stream[-1]["usage"]
                assert all(last[key] == usage[key] for key in ("completion_tokens", "completion_tokens_details"))
                if not more:
                    assert message["reasoning_content"].endswith(CLOSING) and "budget of 20 tokens" in whole["warning"]
                    assert usage["completion_tokens_details"]["reasoning_tokens"] == 20 < usage["completion_tokens"] <= 60
                if "reasoning_effort" in more:
                    assert "reasoning_content" not in message and not usage["completion_tokens_details"]["reasoning_tokens"]

    asyncio.run(work())


def test_responses_and_what_metrics_read_count_the_same(api, service):
    handles = []
    service.on_end.append(handles.append)

    async def work():
        async with api(service) as client:
            body = {"input": ASK["messages"][0]["content"], "max_output_tokens": 60, "max_thinking_tokens": 20,
                    "temperature": 1.0, "detect_loops": False, "seed": 3}
            reply = (await client.post("/v1/responses", json=body)).json()
            assert [item["type"] for item in reply["output"]] == ["reasoning", "message"]
            assert reply["output"][0]["content"][0]["text"].endswith(CLOSING)
            counted = reply["usage"]["output_tokens_details"]["reasoning_tokens"]
            assert counted == handles[0].job.choices[0].thought_tokens == 20

    asyncio.run(work())


def test_steering_closes_the_thought(service):
    from spoutnik.generation.options import GenerationOptions, plan_chat

    async def work():
        served = await service.model(None)
        plan = plan_chat(served.llm, ASK["messages"], GenerationOptions(detect_loops=False))
        handle = service.generate(served, plan)
        async with handle:
            await handle.pause()  # before it has thought to the end of its positions
            await handle.insert(" Vérifie.")
            await handle.end_thought()
            async for _ in handle:
                pass
        reply = handle.replies[0]
        assert "Vérifie." in reply.thought and reply.thought.endswith(CLOSING) and reply.answer
        assert reply.thought_tokens < 400 and not reply.warnings
        await service.close(0)

    asyncio.run(work())
