"""Chat completions, as OpenAI's own client and plain HTTP see them."""

import asyncio
import json
from itertools import groupby

import httpx
import openai
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.engine.llm import LLM
from spoutnik.generation.options import EFFORTS
from spoutnik.serve.api.chat import one_call_each
from spoutnik.serve.api.schemas import ChatCompletion
from spoutnik.serve.sse import encode_json

ASK = [{"role": "user", "content": "What is 12 + 30?"}]
SHORT = {"messages": ASK, "seed": 1, "max_tokens": 24}
PATH = "/v1/chat/completions"


def events(text: str) -> list[dict]:
    """The data of a finished stream."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(item) for item in data[:-1]]


def strings(chunks: list[dict]) -> dict[int, dict[str, str]]:
    """What was said in each choice of a stream, by the part of the message."""
    texts: dict[int, dict[str, str]] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        parts = texts.setdefault(choice["index"], {})
        for name in ("content", "reasoning_content", "reasoning"):
            if choice["delta"].get(name) is not None:
                parts[name] = parts.get(name, "") + choice["delta"][name]
        if choice["finish_reason"]:
            parts["finish_reason"] = choice["finish_reason"]
    return texts


def test_no_more_of_a_prompt_is_cached_than_it_has(api):
    """A thought that is closed before it begins follows the prompt, and may be found in the cache with it."""
    async def ask():
        async with api() as client:
            for length in range(16):  # of a block of the cache
                body = {"messages": [{"role": "user", "content": "a" * length}], "max_tokens": 40, "seed": 1, "think": False}
                first, again = [(await client.post(PATH, json=body)).json() for _ in range(2)]
                counts = again["usage"]
                assert 0 <= counts["prompt_tokens_details"]["cached_tokens"] <= counts["prompt_tokens"]
                assert again["timings"]["prompt_n"] >= 0 and again["choices"] == first["choices"]

    asyncio.run(ask())


def whole_strings(reply: dict) -> dict[int, dict[str, str]]:
    return {choice["index"]: {name: choice["message"][name] for name in ("content", "reasoning_content", "reasoning")
                              if choice["message"].get(name) is not None} | {"finish_reason": choice["finish_reason"]}
            for choice in reply["choices"]}


def run(work):
    return asyncio.run(work())


# With OpenAI's client


def test_a_reply(openai_client):
    reply = openai_client.chat.completions.create(model="tiny", **SHORT)
    message, counts = reply.choices[0].message, reply.usage
    assert reply.id.startswith("chatcmpl-") and reply.object == "chat.completion" and reply.model == "tiny"
    assert reply._request_id == reply.id
    assert message.role == "assistant" and message.content.strip() and message.reasoning_content == message.reasoning
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert counts.total_tokens == counts.prompt_tokens + counts.completion_tokens and counts.completion_tokens <= 24
    assert 0 < counts.completion_tokens_details.reasoning_tokens <= counts.completion_tokens
    assert counts.prompt_tokens_details.cached_tokens < counts.prompt_tokens


def test_a_stream_gives_the_strings_of_the_whole_reply(openai_client):
    reply = openai_client.chat.completions.create(model="tiny", n=2, **SHORT)
    chunks = list(openai_client.chat.completions.create(model="tiny", n=2, stream=True, **SHORT))
    assert strings([chunk.model_dump() for chunk in chunks]) == whole_strings(reply.model_dump())


def test_a_stream_has_the_form_that_clients_expect(openai_client):
    chunks = list(openai_client.chat.completions.create(model="tiny", stream=True, stream_options={"include_usage": True},
                                                        **SHORT))
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].object == "chat.completion.chunk"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason and not chunks[-2].choices[0].delta.model_dump(exclude_unset=True)
    assert [key for key, _ in groupby(bool(chunk.choices[0].finish_reason) for chunk in chunks[:-1])] == [False, True]
    unasked = list(openai_client.chat.completions.create(model="tiny", stream=True, **SHORT))
    assert all(chunk.usage is None and chunk.choices for chunk in unasked)


def test_many_clients_at_once_get_what_each_gets_alone(openai_client, server):
    async def ask(client, seed):
        stream = await client.chat.completions.create(model="tiny", messages=ASK, seed=seed, max_tokens=20, stream=True)
        return strings([chunk.model_dump() async for chunk in stream])

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, seed) for seed in range(24)))

    together = run(ask_all)
    for seed in (0, 11, 23):
        alone = openai_client.chat.completions.create(model="tiny", messages=ASK, seed=seed, max_tokens=20)
        assert whole_strings(alone.model_dump()) == together[seed]


# What a request may hold


@settings(max_examples=15)
@given(seed=st.integers(0, 9), n=st.integers(1, 2), most=st.integers(1, 30), thought=st.one_of(st.none(), st.integers(0, 30)),
       kind=st.sampled_from(["deepseek", "none", "deepseek-legacy", "auto"]), shown=st.booleans(),
       stop=st.sampled_from([None, "e", ["a", "\n"]]))
def test_streams_and_wholes_say_the_same(server, seed, n, most, thought, kind, shown, stop):
    body = {"messages": ASK, "seed": seed, "n": n, "max_tokens": most, "max_thinking_tokens": thought, "stop": stop,
            "reasoning_format": kind, "include_reasoning": shown}
    whole = httpx.post(server + PATH, json=body).json()
    ChatCompletion.model_validate(whole)
    chunks = events(httpx.post(server + PATH, json=body | {"stream": True}).text)
    texts = strings(chunks)
    for parts in texts.values():
        parts.setdefault("content", "")
    assert texts == whole_strings(whole)
    assert whole["usage"]["completion_tokens"] <= most * n
    for choice in whole["choices"]:
        assert ("<think>" in choice["message"]["content"]) <= (kind in ("none", "deepseek-legacy") and shown)


def test_where_the_thought_is_shown(api):
    async def ask(client, **more):
        return whole_strings((await client.post(PATH, json=SHORT | {"max_thinking_tokens": 8} | more)).json())[0]

    async def work():
        async with api() as client:
            beside, inside, both, hidden = [await ask(client, **more) for more in (
                {}, {"reasoning_format": "none"}, {"reasoning_format": "deepseek-legacy"}, {"include_reasoning": False})]
        thought, answer = beside["reasoning_content"], beside["content"]
        assert thought and inside["content"] == f"<think>\n{thought}\n</think>\n\n{answer}" and "reasoning" not in inside
        assert both == beside | {"content": inside["content"]}
        assert hidden["content"] == answer and "reasoning" not in hidden and "reasoning_content" not in hidden

    run(work)


def test_a_bounded_thought_says_so_and_no_thought_is_none(api):
    async def work():
        async with api() as client:
            cut = (await client.post(PATH, json=SHORT | {"max_thinking_tokens": 3})).json()
            none = (await client.post(PATH, json=SHORT | {"enable_thinking": False})).json()
            same = (await client.post(PATH, json=SHORT | {"chat_template_kwargs": {"enable_thinking": False}})).json()
        assert "budget of 3 tokens" in cut["warning"] and cut["choices"][0]["message"]["content"]
        assert "warning" not in none and "reasoning_content" not in none["choices"][0]["message"]
        assert none["choices"] == same["choices"]

    run(work)


def test_every_parameter_in_force_is_told(api, make_service, tmp_path):
    service = make_service()
    service.default.folder = tmp_path
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.25, "top_p": null}')
    fields = {"top_p": 0.5, "top_k": 7, "min_p": 0.125, "presence_penalty": 1, "frequency_penalty": -1, "stop": "x", "n": 2,
             "repetition_penalty": 1.5, "seed": 3, "logit_bias": {"9": 2.5}, "min_tokens": 2, "stop_token_ids": [7],
             "max_thinking_tokens": 5}

    async def work():
        async with api(service) as client:
            body = {"messages": ASK, "max_completion_tokens": 12, "return_applied": True} | fields
            applied = (await client.post(PATH, json=body)).json()["applied"]
            first = events((await client.post(PATH, json=body | {"stream": True})).text)[0]["applied"]
        assert applied | {"stream": True} == first
        expected = fields | {"temperature": 0.25, "max_tokens": 12, "stop": ["x"], "model": "tiny", "n_thoughts": 1}
        assert {name: applied[name] for name in expected} == expected

    run(work)


def test_log_probabilities(api, tokenizer):
    async def work():
        async with api() as client:
            body = SHORT | {"logprobs": True, "top_logprobs": 3, "enable_thinking": False, "temperature": 0}
            choice = (await client.post(PATH, json=body)).json()["choices"][0]
            chunks = events((await client.post(PATH, json=body | {"stream": True})).text)
        content = choice["logprobs"]["content"]
        assert bytes(b for token in content for b in token["bytes"]).decode(errors="replace").strip() \
            == choice["message"]["content"]
        for token in content:
            assert len(token["top_logprobs"]) == 3 and token["logprob"] <= token["top_logprobs"][0]["logprob"] <= 0
        streamed = [token for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]
                    for token in choice["logprobs"]["content"]]
        assert [token["token"] for token in streamed] == [token["token"] for token in content]

    run(work)


@pytest.mark.parametrize("messages", [
    [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}],
    [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": None}],
    [*ASK, {"role": "assistant", "content": "42", "reasoning_content": "12 and 30"}, *ASK],
    [*ASK, {"role": "assistant", "content": "<think>\nhm\n</think>\n\n42", "refusal": None, "annotations": []}, *ASK],
    [*ASK, {"role": "assistant", "content": "42", "reasoning": "12 and 30"}],
    [{"role": "user", "content": "One <think> is seven characters", "name": "ann"}],
    [*ASK, {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "reasoning", "text": "so"},
        {"type": "redacted_thinking", "data": "x"}, {"type": "output_text", "text": "42"},
        {"type": "refusal", "refusal": "No."}]}, *ASK],
    [{"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
     {"role": "user", "content": ["one", {"type": "input_text", "text": "two", "cache_control": {}}]}],
    [*ASK, {"role": "assistant", "content": None, "refusal": "No."}, *ASK],
    [{"role": "system", "content": "A"}, *ASK, {"role": "system", "content": "B"}, *ASK],
    [*ASK, {"role": "function", "name": "f", "content": [{"type": "text", "text": "42"}]}, *ASK],
    [*ASK, {"role": "assistant", "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
     {"role": "tool", "tool_call_id": "c", "content": "42"}],
], ids=str)
def test_messages_of_all_kinds(api, messages):
    async def work():
        async with api() as client:
            reply = await client.post(PATH, json=SHORT | {"messages": messages})
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["message"]["content"]

    run(work)


def test_unknown_fields_and_nulls_are_ignored(api):
    nulls = dict.fromkeys(["temperature", "top_p", "stop", "seed", "n", "tools", "response_format", "logit_bias", "max_tokens",
                           "stream", "stream_options", "reasoning_effort", "functions", "logprobs", "tool_choice"])

    async def work():
        async with api() as client:
            body = nulls | {"messages": ASK, "max_completion_tokens": 4, "user": "u", "metadata": {"a": "b"}, "store": True,
                            "service_tier": "auto", "no_such_field": {"x": [1]}, "modalities": ["text"]}
            return (await client.post(PATH, json=body)).status_code

    assert run(work) == 200


@pytest.mark.parametrize("effort", EFFORTS)
def test_efforts(api, effort):
    async def work():
        async with api() as client:
            return (await client.post(PATH, json=SHORT | {"reasoning_effort": effort, "return_applied": True})).json()

    reply = run(work)
    assert reply["applied"]["max_thinking_tokens"] == int(24 * EFFORTS[effort])
    assert reply["choices"][0]["message"]["content"]


def test_several_thoughts_vote(api, tokenizer):
    async def work():
        async with api() as client:
            body = SHORT | {"n_thoughts": 4, "logit_bias": {str(tokenizer.eos_id): 100}}
            whole = (await client.post(PATH, json=body)).json()
            chunks = events((await client.post(PATH, json=body | {"stream": True})).text)
        assert len(whole["choices"]) == 1 and 0 <= whole["agreement"] <= 1
        assert round(4 * whole["agreement"]) + sum(other["votes"] for other in whole["runners_up"]) <= 4  # no cut ones
        assert strings(chunks) == whole_strings(whole) and chunks[-1]["agreement"] == whole["agreement"]
        assert whole["usage"]["completion_tokens"] >= 4 * 2

    run(work)


def test_thoughts_that_came_to_nothing_have_no_vote(api):
    async def work():
        async with api() as client:
            body = SHORT | {"n_thoughts": 3}
            whole = (await client.post(PATH, json=body)).json()
            chunks = events((await client.post(PATH, json=body | {"stream": True})).text)
        assert (whole["agreement"], whole["runners_up"], whole["choices"][0]["finish_reason"]) == (0.0, [], "length")
        assert "none of the 3 thoughts came to a finished answer" in whole["warning"]
        assert strings(chunks) == whole_strings(whole) and whole["choices"][0]["message"]["content"]
        assert any("none of the 3 thoughts" in chunk.get("warning", "") for chunk in chunks)

    run(work)


def test_structured_output_and_tools(api):
    tool = {"type": "function", "function": {"name": "pick", "parameters": {
        "type": "object", "properties": {"one": {"enum": ["a", "b"]}}, "required": ["one"], "additionalProperties": False}}}
    schema = {"name": "x", "schema": {"enum": ["yes", "no"]}}

    async def work():
        async with api() as client:
            body = {"messages": ASK, "seed": 2, "max_thinking_tokens": 5}
            form = body | {"response_format": {"type": "json_schema", "json_schema": schema}}
            assert json.loads((await client.post(PATH, json=form)).json()["choices"][0]["message"]["content"]) in ("yes", "no")
            called = body | {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
            whole = (await client.post(PATH, json=called)).json()
            choice, chunks = whole["choices"][0], events((await client.post(PATH, json=called | {"stream": True})).text)
        ChatCompletion.model_validate(whole)
        call, = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
        assert call["function"]["name"] == "pick" and json.loads(call["function"]["arguments"])["one"] in ("a", "b")
        deltas = [delta for chunk in chunks for delta in chunk["choices"][0]["delta"].get("tool_calls", ())]
        assert "".join(delta["function"]["arguments"] for delta in deltas) == call["function"]["arguments"]
        assert [delta["function"].get("name") for delta in deltas if "id" in delta] == ["pick"]

    run(work)


def test_a_chunk_has_one_call():
    calls = [{"index": index, "function": {"arguments": "{}"}} for index in range(3)]
    assert one_call_each({"content": "a", "tool_calls": calls}) == [
        {"content": "a", "tool_calls": calls[:1]}, {"tool_calls": calls[1:2]}, {"tool_calls": calls[2:]}]
    assert one_call_each({"content": "a"}) == [{"content": "a"}] and one_call_each({}) == [{}]


# Models


def test_models(openai_client, api, make_service):
    listed, = openai_client.models.list()
    assert (listed.id, listed.object, listed.max_model_len) == ("tiny", "model", 1024)
    assert openai_client.models.retrieve("tiny") == listed
    with pytest.raises(openai.NotFoundError, match="Choose tiny") as refused:
        openai_client.chat.completions.create(model="gpt-4", messages=ASK)
    assert refused.value.code == "model_not_found" and refused.value.param == "model"

    async def work():
        async with api(make_service(names=("a", "org/b"))) as client:
            for path in ("/v1/models/org/b", "/models/org/b"):
                assert (await client.get(path)).json()["id"] == "org/b"
            replies = [await client.post("/chat/completions", json=SHORT | {"model": name}) for name in (None, "org/b", "")]
        assert [reply.json()["model"] for reply in replies] == ["a", "org/b", "a"]

    run(work)


def test_tokens_and_back(api, tokenizer):
    async def work():
        async with api() as client:
            async def post(path, **body):
                return (await client.post(path, json=body)).json()

            text = "12 + 30 <think>"
            plain = await post("/tokenize", prompt=text, parse_special=False, add_special_tokens=False)
            assert plain["tokens"] == tokenizer.encode(text) and plain["count"] == len(plain["tokens"])
            read = await post("/v1/tokenize", content=text, return_token_strs=True)
            assert read["tokens"][0] == tokenizer.bos_id and read["tokens"][-1] == tokenizer.think_id
            assert read["token_strs"][-1] == "<think>"
            chat = await post("/tokenize", messages=ASK)
            assert chat["tokens"] == tokenizer.chat_ids(ASK)
            assert (await post("/detokenize", tokens=plain["tokens"]))["prompt"] == text
            info = (await client.get("/tokenizer_info")).json()
            eos = await post("/tokenize", prompt=info["eos_token"], add_special_tokens=False)
            assert eos["tokens"] == [tokenizer.eos_id] and info["chat_template"] == tokenizer.chat_template

    run(work)


def test_an_event_is_one_line_to_those_who_know_more_ends_than_one():
    data = {"content": "a\x85b\u2028c\u2029d\u00e9"}
    text = encode_json(data)
    assert len(text.splitlines()) == 1 and json.loads(text) == data and "\u00e9" in text


def test_the_list_of_models_may_end_with_a_slash(api):
    async def work():
        async with api() as client:
            return [(await client.get(path)).json() for path in ("/v1/models", "/v1/models/")]

    plain, ended = run(work)
    assert plain == ended


# Clients that hang up


def test_hanging_up_ends_the_reply(server, idle, endless, caplog):
    body = {"messages": ASK, "logit_bias": endless, "seed": 1}
    for received in range(3):
        with httpx.stream("POST", server + PATH, json=body | {"stream": True}) as response:
            for _ in zip(range(received), response.iter_lines()):
                pass
        assert idle()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(server + PATH, json=body | {"n": 8}, timeout=0.2)
    assert idle() and not caplog.records


def test_hanging_up_in_the_queue_ends_the_reply(server, server_app, idle, endless):
    async def work():
        async with httpx.AsyncClient(timeout=30) as client:
            body = {"messages": ASK, "logit_bias": endless, "n": 8, "detect_loops": False}
            tasks = [asyncio.create_task(client.post(server + PATH, json=body)) for _ in range(4)]
            while len(server_app.state.serving.service.active) < 4 and not any(task.done() for task in tasks):
                await asyncio.sleep(0.005)
            for task in tasks:
                task.cancel()

    run(work)
    assert idle()
    assert httpx.post(server + PATH, json=SHORT).status_code == 200


def test_models_tell_the_context_that_requests_are_held_to_and_no_folder(api, make_service, tokenizer, tmp_path, monkeypatch):
    def load(served):
        model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
        return LLM(model, tokenizer, max_num_seqs=2, memory="64MB", max_model_len=100)

    service = make_service(load=load)
    service.default.about = f"Stage last of {tmp_path}/a run/model."
    monkeypatch.setitem(tokenizer.config, "name_or_path", f"{tmp_path}/model")

    async def work():
        async with api(service) as client:
            await client.post(PATH, json=SHORT)  # it is loaded when it is asked for
            one, = (await client.get("/v1/models")).json()["data"]
            assert one["max_model_len"] == one["context_length"] == 100
            assert (await client.post("/tokenize", json={"prompt": "a"})).json()["max_model_len"] == 100
            long = (await client.post(PATH, json=SHORT | {"max_tokens": 5000, "return_applied": True})).json()
            assert long["applied"]["max_tokens"] < 100 and "maximum context length is 100 tokens" in long["warning"]
            pages = [(await client.get(path)).text for path in ("/v1/models", "/v1/models/tiny", "/tokenizer_info")]
        assert one["about"].endswith("a run/model.")
        assert not any(str(tmp_path.parent) in page for page in pages)

    run(work)


def test_what_is_asked_for_and_is_otherwise_is_said_in_streams_too(api):
    async def work():
        async with api() as client:
            body = SHORT | {"max_tokens": 5000.0, "no_such_field": 1, "stop": "e", "return_applied": True,
                            "chat_template_kwargs": {"keep_last_thought": True, "mood": "good"}}
            whole = (await client.post(PATH, json=body)).json()
            chunks = events((await client.post(PATH, json=body | {"stream": True})).text)
        assert "max_tokens = 5000: " in whole["warning"] and "no_such_field: unknown here" in whole["warning"]
        assert chunks[0]["applied"]["notes"] == whole["applied"]["notes"] and len(whole["applied"]["notes"]) == 3
        assert "chat_template_kwargs.mood: this model's template does not read it" in whole["warning"]
        assert whole["warning"].startswith(chunks[0]["warning"])

    run(work)


def test_each_chunk_may_tell_how_many_tokens_there_are(api):
    async def work():
        async with api() as client:
            body = SHORT | {"stream": True, "stream_options": {"continuous_usage_stats": True, "include_usage": True}}
            return events((await client.post(PATH, json=body)).text), events((await client.post("/v1/completions", json={
                "prompt": "a", "seed": 1, "stream": True, "stream_options": {"continuous_usage_stats": True}})).text)

    for chunks in run(work):
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counts == sorted(counts) and counts[-1] > 0


def test_reasoning_and_answer_are_the_completion_and_the_closing_is_neither(api, endless):
    async def work():
        async with api() as client:
            body = {"messages": ASK, "seed": 1, "max_tokens": 20, "max_thinking_tokens": 8, "logit_bias": endless}
            whole = (await client.post(PATH, json=body | {"logprobs": True})).json()
            answer = (await client.post("/v1/responses", json={
                "input": "What is 12 + 30?", "seed": 1, "max_output_tokens": 20, "max_thinking_tokens": 8,
                "logit_bias": endless})).json()
        return whole, answer

    whole, answer = run(work)
    usage = whole["usage"]
    assert usage["completion_tokens"] == 20 and usage["completion_tokens_details"]["reasoning_tokens"] == 8
    assert "I have thought long enough" in whole["choices"][0]["message"]["reasoning_content"]
    assert answer["usage"]["output_tokens_details"]["reasoning_tokens"] == 8 and answer["usage"]["output_tokens"] == 20
