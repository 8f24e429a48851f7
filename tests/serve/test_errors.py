"""Whatever is wrong: OpenAI's error object, the right status, and a server that goes on."""

import asyncio
import json
import logging
import time

import httpx
import openai
import pytest
import tiny
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from spoutnik.engine.llm import LLM
from spoutnik.errors import RunError
from spoutnik.serve import errors
from spoutnik.text.chat_template import ChatTemplates
from spoutnik.text.tokenizer import Tokenizer

ASK = [{"role": "user", "content": "What is 12 + 30?"}]
SHORT = {"messages": ASK, "seed": 1, "max_tokens": 8}
PATH = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def post(api, *bodies: dict, service=None, path: str = PATH) -> list[tuple[int, dict]]:
    async def work():
        async with api(service) as client:
            replies = [await client.post(path, json=body) for body in bodies]
            return [(reply.status_code, reply.json()) for reply in replies]

    return asyncio.run(work())


def is_error(body: dict) -> bool:
    error = body["error"]
    return list(body) == ["error"] and set(error) == {"message", "type", "param", "code"} and bool(error["message"])


@pytest.mark.parametrize("more, param", [
    ({"messages": []}, "messages"), ({"messages": None}, "messages"), ({"messages": "hi"}, "messages"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"), ({"messages": [*ASK, {"role": "wizard"}]}, "messages[1].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "reasoning", "text": "a"}]}]}, "messages[0]"),
    ({"messages": [*ASK, {"role": "assistant", "function_call": {"name": "f"}}, *ASK]}, "messages[1].function_call"),
    ({"messages": [{"role": "user", "content": "a", "prefix": True}]}, "messages[0].prefix"),
    ({"messages": [{"role": "user", "content": "a", "images": ["x"]}]}, "messages[0].images"),
    ({"stream": True, "stream_options": {"some": 1}}, "stream_options.some"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"), ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ({"allowed_token_ids": []}, "allowed_token_ids"), ({"allowed_token_ids": [5000]}, "allowed_token_ids"),
    ({"guided_choice": ["a"], "guided_regex": "a"}, "guided_choice"), ({"structured_outputs": {"xgrammar": 1}},
                                                                     "structured_outputs.xgrammar"),
    ({"response_format": {"type": "json_schema", "json_schema": {"type": "object"}}}, "response_format.json_schema"),
    ({"thinking": {"type": "enabled", "some": 1}}, "thinking.some"), ({"reasoning": {"some": 1}}, "reasoning.some"),
    ({"documents": [{"text": "a"}]}, "documents"),
    ({"model": 5}, "model"), ({"temperature": "hot"}, "temperature"), ({"temperature": 11}, "temperature"),
    ({"temperature": True}, "temperature"), ({"top_p": 0}, "top_p"), ({"top_p": 1.5}, "top_p"), ({"top_k": 0.5}, "top_k"),
    ({"min_p": -1}, "min_p"), ({"presence_penalty": 3}, "presence_penalty"), ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"), ({"seed": -2}, "seed"), ({"seed": 2 ** 70}, "seed"),
    ({"max_tokens": -3}, "max_tokens"), ({"max_tokens": 2.5}, "max_tokens"), ({"n": 0}, "n"), ({"n": 129}, "n"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"), ({"stop": [5]}, "stop"), ({"stop": ""}, "stop"),
    ({"logit_bias": {"x": 1}}, "logit_bias"), ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"5000": 1}}, "logit_bias"), ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"), ({"logprobs": 3}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"), ({"stream": "yes"}, "stream"),
    ({"reasoning_effort": "huge"}, "reasoning_effort"), ({"max_thinking_tokens": -2}, "max_thinking_tokens"),
    ({"max_thinking_tokens": 1, "thinking_token_budget": 2}, "max_thinking_tokens"),
    ({"enable_thinking": True, "reasoning_effort": "none"}, "enable_thinking"), ({"enable_thinking": "no"}, "enable_thinking"),
    ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}}, "enable_thinking"),
    ({"chat_template_kwargs": {"enable_thinking": 1}}, "chat_template_kwargs.enable_thinking"),
    ({"reasoning_format": "xml"}, "reasoning_format"), ({"n_thoughts": 0}, "n_thoughts"),
    ({"n_thoughts": 2, "n": 2}, "n_thoughts"), ({"n_thoughts": 2, "logprobs": True}, "n_thoughts"),
    ({"modalities": ["audio"]}, "modalities[0]"),
    ({"functions": [{"name": "f"}]}, "functions"), ({"audio": {}, "function_call": "auto"}, "function_call"),
    ({"guided_json": "{"}, "guided_json"), ({"continue_final_message": True}, "continue_final_message"),
    ({"response_format": {"type": "xml"}}, "response_format.type"), ({"response_format": "json"}, "response_format"),
    ({"tools": [{"type": "x"}]}, "tools[0]"), ({"tool_choice": "required"}, "tool_choice"),
], ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "")
def test_a_wrong_field_is_named(api, more, param):
    (status, body), (again, _) = post(api, SHORT | more, SHORT)
    assert (status, again) == (400, 200) and is_error(body), body
    assert body["error"]["type"] == "invalid_request_error" and body["error"]["param"] == param, body


@pytest.mark.parametrize("content, headers, status", [
    (b"{", JSON, 400), (b"", JSON, 400), (b"[]", JSON, 400), (b"null", JSON, 400), (b'"hi"', JSON, 400),
    (b"\xff\xfe", JSON, 400), (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', JSON, 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "stop": "\\ud800", "return_applied": true}', JSON, 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "model": "\\ud800"}', JSON, 404),
    (b'{"messages": [{"role": "user", "content": "a"}], "documents": [{"a": ' + b"[" * 800 + b"]" * 800 + b"}]}", JSON, 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"a": "\\ud800"}}', JSON, 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "\\ud800": 1, "max_tokens": 2}', JSON, 400),
    (b'{"messages": [{"role": "user", "content": "\xff"}]}', JSON, 400), (b"[" * 100_000, JSON, 400),
    (b'{"messages": [], "seed": ' + b"9" * 5000 + b"}", JSON, 400), (b'{"temperature": NaN, "messages": []}', JSON, 400),
    (json.dumps(SHORT).encode(), {"content-type": "text/plain"}, 415), (json.dumps(SHORT).encode(), {}, 415),
    (json.dumps(SHORT).encode(), {"content-type": "application/json; charset=utf-8"}, 200)], ids=lambda value: str(value)[:40])
def test_bodies_that_are_no_requests(api, content, headers, status):
    async def work():
        async with api() as client:
            reply = await client.post(PATH, content=content, headers=headers)
            assert reply.status_code == status, reply.text
            assert status == 200 or is_error(reply.json())

    asyncio.run(work())


def test_a_body_that_cannot_be_read_is_told_why(api):
    async def work():
        async with api() as client:
            for content, reason in ((b'{"messages": "\xff"}', "UTF-8 (byte 14)"), (b"[" * 100_000, "nested too deeply")):
                reply = await client.post(PATH, content=content, headers=JSON)
                assert reply.status_code == 400 and reason in reply.json()["error"]["message"], reply.text

    asyncio.run(work())


def test_other_paths_and_methods(api):
    async def work():
        async with api() as client:
            for method, path, status in (("GET", "/v1/nothing", 404), ("GET", PATH, 405), ("DELETE", "/v1/models", 405),
                                         ("GET", "/v1/models/nothing", 404), ("GET", "/v1/models/%ff", 404)):
                reply = await client.request(method, path)
                assert reply.status_code == status and is_error(reply.json()), (path, reply.text)
            assert (await client.get(PATH)).headers["allow"] == "POST"

    asyncio.run(work())


def test_what_is_too_long(openai_client):
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "1 " * 2000}])
    assert refused.value.code == "context_length_exceeded"


def test_a_full_queue_says_when_to_come_back(api, make_service):
    async def work():
        async with api(make_service(max_queue=0)) as client:
            for body in (SHORT, SHORT | {"stream": True}, SHORT | {"n_thoughts": 2, "stream": True}):
                reply = await client.post(PATH, json=body)
                assert reply.status_code == 429 and int(reply.headers["retry-after"]) > 0
                assert reply.json()["error"]["type"] == "rate_limit_error"

    asyncio.run(work())


def test_a_model_that_cannot_be_read(api, make_service):
    def load(served):
        raise RunError("model.safetensors: is damaged. Restore it.")

    async def work():
        async with api(make_service(load=load)) as client:
            assert (await client.get("/health")).status_code == 200  # nobody has asked for it
            reply = await client.post(PATH, json=SHORT)
            assert reply.status_code == 503 and "is damaged" in reply.json()["error"]["message"]
            health = await client.get("/health")
            assert health.status_code == 503 and health.json()["error"]["code"] == "broken"

    asyncio.run(work())


def test_requests_wait_while_the_model_is_read(api, make_service):
    async def work():
        service = make_service()
        read, load = asyncio.Event(), service._load
        loop = asyncio.get_running_loop()

        def slow(served) -> LLM:
            asyncio.run_coroutine_threadsafe(read.wait(), loop).result(60)
            return load(served)

        service._load = slow
        async with api(service) as client:
            waiting = asyncio.create_task(client.post(PATH, json=SHORT))
            while service.default.loading is None and not waiting.done():
                await asyncio.sleep(0)
            health = await client.get("/health")
            assert health.status_code == 503 and health.json()["error"]["code"] == "loading"
            read.set()
            assert (await waiting).status_code == 200 and (await client.get("/health")).json()["status"] == "ok"

    asyncio.run(work())


def test_an_engine_that_dies_says_so_to_all(api, make_service):
    async def work():
        service = make_service()
        async with api(service) as client:
            await service.model(None)

            def die():
                while len(service.active) < 2:  # else the later one would be refused before it begins
                    time.sleep(0.001)
                raise RuntimeError("out of luck")

            service.default.llm.core.step = die
            whole, stream = await asyncio.gather(*(client.post(PATH, json=SHORT | {"stream": on}) for on in (False, True)))
            assert whole.status_code == 500 and "out of luck" in whole.json()["error"]["message"]
            first, last = stream.text.strip().split("\n\n")
            assert is_error(json.loads(last.partition("data: ")[2])) and "DONE" not in stream.text
            later, health = await client.post(PATH, json=SHORT), await client.get("/health")
            assert later.status_code == health.status_code == 503 and not service.active

    asyncio.run(work())


def test_an_engine_that_dies_in_mid_stream_says_so_and_ends_the_stream(api, make_service, endless):
    async def work():
        service = make_service()
        async with api(service) as client:
            await service.model(None)
            core, steps = service.default.llm.core, iter(range(500))
            step = core.step
            core.step = lambda: step() if next(steps, None) is not None else 1 / 0
            body = {"messages": ASK, "logit_bias": endless, "stream": True}
            chat = (await client.post(PATH, json=body)).text.strip().split("\n\n")
            events = [json.loads(event.partition("data: ")[2]) for event in chat]
            assert any(one["choices"][0]["delta"].get("reasoning") for one in events[:-1]) and is_error(events[-1])
            assert events[-1]["error"]["code"] == "engine_error" and not service.active
            assert (await client.post(PATH, json=SHORT)).status_code == 503

    asyncio.run(work())


def test_a_template_that_refuses_is_a_wrong_request(api, make_service, tokenizer, tmp_path):
    template = "{% if messages | length > 1 %}{{ raise_exception('Say one thing at a time.') }}{% endif %}a<think>"
    own = Tokenizer(tokenizer.bpe, ChatTemplates({"default": template}, "a template"), tokenizer.config)
    service = make_service(load=lambda served: LLM(tiny.model(tiny.QWEN, vocab_size=own.vocab_size), own, memory="64MB"))
    service.default.tokenizer = own

    async def work():
        async with api(service) as client:
            refused = await client.post(PATH, json=SHORT | {"messages": [*ASK, {"role": "assistant", "content": "42"}, *ASK]})
            assert refused.status_code == 400 and "Say one thing at a time." in refused.json()["error"]["message"]
            assert (await client.post(PATH, json=SHORT)).status_code == 200

    asyncio.run(work())


def test_a_reply_that_dies_takes_no_other_with_it(api, make_service, monkeypatch):
    async def work():
        service = make_service()
        async with api(service) as client:
            await service.model(None)
            monkeypatch.setattr("spoutnik.generation.thought_budget.is_repetitive", lambda ids: 1 / 0)
            # A fast machine would be done before the first delivery, when the thought is looked at.
            monkeypatch.setattr("spoutnik.generation.engine_thread.MIN_PERIOD", 0.0)
            monkeypatch.setattr("spoutnik.generation.engine_thread.MAX_RATE", 1e9)
            body = {"messages": ASK, "max_tokens": 200, "seed": 1}
            dies, lives = await asyncio.gather(*(client.post(PATH, json=body | {"detect_loops": detect, "logit_bias": {
                str(service.default.tokenizer.end_think_id): -100}}) for detect in (True, False)))
            assert dies.status_code == 500 and is_error(dies.json()) and lives.status_code == 200
            monkeypatch.undo()
            assert (await client.post(PATH, json=SHORT)).status_code == 200

    asyncio.run(work())


def test_a_server_that_stops_gives_replies_up(api, make_service, endless):
    async def work():
        service = make_service()
        async with api(service) as client:
            body = {"messages": ASK, "logit_bias": endless, "detect_loops": False}
            tasks = [asyncio.create_task(client.post(PATH, json=body | more)) for more in ({}, {"stream": True})]
            while len(service.active) < 2 and not any(task.done() for task in tasks):
                await asyncio.sleep(0)
            await service.close(0.0)
            whole, stream = [await task for task in tasks]
            assert whole.status_code == 503 and "shutting down" in whole.json()["error"]["message"]
            assert "shutting down" in stream.text and "DONE" not in stream.text
            assert (await client.get("/health")).json()["error"]["code"] == "draining"
            assert (await client.post(PATH, json=SHORT)).status_code == 429

    asyncio.run(work())


def test_surprises_are_answered_and_their_texts_not_logged(caplog):
    app, secret = FastAPI(), "the user's secret"

    @app.get("/now")
    async def now():
        raise ZeroDivisionError(secret)

    @app.get("/later")
    async def later():
        async def pieces():
            yield b"begun"
            raise ZeroDivisionError(secret)

        return StreamingResponse(pieces())

    errors.install(app)

    async def work():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            reply = await client.get("/now")
            assert reply.status_code == 500 and reply.json()["error"]["code"] == "internal_error"
            with pytest.raises(RuntimeError, match="given up"):
                await client.get("/later")

    with caplog.at_level(logging.ERROR):
        asyncio.run(work())
    assert "ZeroDivisionError" in caplog.text and "test_errors.py" in caplog.text and secret not in caplog.text


def test_the_openapi_document(api):
    async def work():
        async with api() as client:
            return (await client.get("/openapi.json")).json()

    document = asyncio.run(work())
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"] and "200" in operation["responses"], path
    chat = document["paths"][PATH]["post"]["responses"]
    assert {"400", "401", "404", "413", "415", "429", "503"} < set(chat) and "text/event-stream" in chat["200"]["content"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
