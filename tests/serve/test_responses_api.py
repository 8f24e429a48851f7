"""Responses, as OpenAI's own client and plain HTTP see them."""

import asyncio
import json

import openai
import pydantic
import pytest
import tiny
import torch

from spoutnik.engine.llm import LLM
from spoutnik.serve.api.responses import Output
from spoutnik.serve.api.responses_request import ResponsesRequest

PATH = "/v1/responses"
SHORT = {"model": "tiny", "input": "What is 12 + 30?", "max_output_tokens": 40,
         "extra_body": {"seed": 1, "max_thinking_tokens": 8}}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 6}}, "required": ["city"],
        "additionalProperties": False}
TOOLS = [{"type": "function", "name": "weather", "description": "Of a city.", "parameters": CITY, "strict": True}]


class City(pydantic.BaseModel):
    rain: bool
    size: int = pydantic.Field(ge=0, le=99)


def post(api, **body):
    async def work():
        async with api() as client:
            return await client.post(PATH, json=body)

    return asyncio.run(work())


def without_ids(item):
    return {key: value for key, value in item.items() if key not in ("id", "call_id")}


def test_thought_and_answer_are_items(openai_client):
    response = openai_client.responses.create(**SHORT)
    thought, message = response.output
    assert response.id.startswith("resp_") and response.object == "response" and response.model == "tiny"
    assert response.store is False
    assert (thought.type, thought.summary, thought.content[0].type) == ("reasoning", [], "reasoning_text")
    assert thought.content[0].text and message.type == "message" and message.role == "assistant"
    assert response.output_text == message.content[0].text != ""
    assert response.status in ("completed", "incomplete") and response.error is None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert 0 < response.usage.output_tokens_details.reasoning_tokens <= response.usage.output_tokens <= 40
    assert response.max_output_tokens == 40 and response.tool_choice == "auto" and response.tools == []


def test_what_is_cut_off_is_incomplete(openai_client):
    response = openai_client.responses.create(**SHORT | {"max_output_tokens": 10})
    assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"
    assert response.output[-1].status == "incomplete" and response.output_text


def test_a_stream_tells_the_same_in_numbered_events(openai_client):
    response = openai_client.responses.create(**SHORT)
    events = list(openai_client.responses.create(**SHORT, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events if not event.type.endswith(".delta")]
    assert kinds == ["response.created", "response.in_progress",
                     "response.output_item.added", "response.content_part.added", "response.reasoning_text.done",
                     "response.content_part.done", "response.output_item.done",
                     "response.output_item.added", "response.content_part.added", "response.output_text.done",
                     "response.content_part.done", "response.output_item.done", f"response.{response.status}"]
    for kind, text in (("reasoning_text", response.output[0].content[0].text), ("output_text", response.output_text)):
        assert "".join(event.delta for event in events if event.type == f"response.{kind}.delta") == text
    last = events[-1].response
    assert [without_ids(item.to_dict()) for item in last.output] == [without_ids(item.to_dict()) for item in response.output]
    assert last.usage.output_tokens == response.usage.output_tokens and {e.item_id for e in events if "delta" in e.type} == {
        item.id for item in last.output}


@pytest.mark.parametrize("reasoning", [{"summary": "auto"}, {"generate_summary": "detailed"}])
def test_a_thought_is_its_summary_where_one_is_asked_for(openai_client, reasoning):
    response = openai_client.responses.create(**SHORT, reasoning=reasoning)
    thought = response.output[0]
    assert [(part.type, part.text) for part in thought.summary] == [("summary_text", thought.content[0].text)]
    events = list(openai_client.responses.create(**SHORT, reasoning=reasoning, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events if "reasoning_summary" in event.type]
    assert (kinds[0], *kinds[-2:]) == ("reasoning_summary_part.added", "reasoning_summary_text.done",
                                       "reasoning_summary_part.done")
    assert set(kinds[1:-2]) == {"reasoning_summary_text.delta"}
    deltas = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]
    done, = (event.text for event in events if event.type == "response.reasoning_summary_text.done")
    assert "".join(deltas) == done == thought.summary[0].text == events[-1].response.output[0].summary[0].text


@pytest.mark.parametrize("reasoning", [{}, {"summary": None}, {"summary": "none"}])
def test_no_summary_where_none_is_asked_for(openai_client, reasoning):
    assert openai_client.responses.create(**SHORT, reasoning=reasoning).output[0].summary == []


def test_the_client_s_own_reader_of_streams(openai_client):
    with openai_client.responses.stream(**SHORT) as stream:
        kinds = {event.type for event in stream}
    assert "response.output_text.delta" in kinds


def test_structured_output(openai_client):
    response = openai_client.responses.parse(**SHORT | {"max_output_tokens": 300}, text_format=City)
    assert response.status == "completed" and isinstance(response.output_parsed, City)
    assert json.loads(response.output_text).keys() == {"rain", "size"}


def test_tools(openai_client):
    for choice in ("required", {"type": "function", "name": "weather"}):
        response = openai_client.responses.create(**SHORT | {"max_output_tokens": 300}, tools=TOOLS, tool_choice=choice,
                                              parallel_tool_calls=False)
        calls = [item for item in response.output if item.type == "function_call"]
        assert [call.name for call in calls] == ["weather"] and calls[0].call_id.startswith("call_")
        assert json.loads(calls[0].arguments).keys() == {"city"} and response.output_text == ""
    events = list(openai_client.responses.create(**SHORT | {"max_output_tokens": 300}, tools=TOOLS, tool_choice="required",
                                                 parallel_tool_calls=False, stream=True))
    done, = (event for event in events if event.type == "response.function_call_arguments.done")
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == done.arguments == calls[0].arguments == events[-1].response.output[-1].arguments


def test_a_conversation_goes_on_with_calls_and_results(openai_client):
    asked = [{"role": "user", "content": "How is the weather?"}]
    first = openai_client.responses.create(**SHORT | {"input": asked, "max_output_tokens": 300}, tools=TOOLS,
                                           tool_choice="required", parallel_tool_calls=False)
    call = first.output[-1]
    given = asked + [item.to_dict() for item in first.output] + [
        {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}]
    assert openai_client.responses.create(**SHORT | {"input": given}, tools=TOOLS, tool_choice="none").output_text


def test_log_probabilities(openai_client):
    response = openai_client.responses.create(**SHORT, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = response.output[-1].content[0].logprobs
    assert logprobs and all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in logprobs)


def test_log_probabilities_are_those_of_chat(openai_client):
    """However the answer is cut into deltas: some have tokens and no text."""
    chat = openai_client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": SHORT["input"]}], logprobs=True, max_tokens=40,
        extra_body=SHORT["extra_body"])
    tokens = [entry.token for entry in chat.choices[0].logprobs.content]
    for _ in range(10):
        response = openai_client.responses.create(**SHORT, include=["message.output_text.logprobs"])
        assert [entry.token for entry in response.output[-1].content[0].logprobs] == tokens


def test_items_become_messages():
    items = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
             {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
             {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
             {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
             {"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}"},
             {"type": "function_call_output", "call_id": "a", "output": "1"},
             {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
             {"type": "reasoning", "summary": []}, {"role": "user", "content": "So?"}]
    messages = ResponsesRequest(input=items, instructions="Be brief.").messages(lambda id: None, [])
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert messages[0]["content"] == "Be brief.\n\nBe kind." and messages[2]["content"] == "I look."
    assert messages[2]["reasoning_content"] == "Hm."
    assert [call["function"]["name"] for call in messages[2]["tool_calls"]] == ["f", "g"]
    assert messages[4] == {"role": "tool", "tool_call_id": "b", "content": "2"}


def test_a_call_between_two_texts_is_an_item_of_its_own():
    output = Output()
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    events = [*output.add("message", "a", []), *output.call(call), *output.call({"function": {"arguments": "{}"}}),
              *output.add("message", "b", []), *output.close("incomplete")]
    assert [(item["type"], item["status"]) for item in output.items] == [
        ("message", "completed"), ("function_call", "completed"), ("message", "incomplete")]
    assert [event["output_index"] for event in events] == [0] * 6 + [1] * 4 + [2] * 6


@pytest.mark.parametrize(("body", "param"), [
    ({"previous_response_id": "resp_1"}, "previous_response_id"), ({"conversation": "conv_1"}, "conversation"),
    ({"background": True}, "background"), ({"truncation": "some"}, "truncation"), ({"prompt": {"id": "p"}}, "prompt"),
    ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
    ({"input": []}, "input"), ({"input": [{"type": "item_reference", "id": "x"}]}, "input"), ({"input": None}, "input"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0]"), ({"input": [3]}, "input[0]"),
    ({"tools": TOOLS * 2}, "tools[1].name"), ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({"n": 2}, "n"), ({"max_output_tokens": -3}, "max_output_tokens"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "strin"}}}}, "text.format.schema"),
    ({"max_tokens": -5}, "max_tokens"), ({"echo": True}, "echo"), ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"input": [{"type": "reasoning", "content": None}]}, "input"),
    ({"text": {"verbosity": "huge"}}, "text.verbosity"), ({"input": "a " * 3000}, "input")])
def test_what_cannot_be_served_is_refused_with_its_field(body, param, api):
    answer = post(api, **{"input": "a"} | body)
    assert answer.status_code == 400 and (answer.json()["error"]["param"] or "").startswith(param), answer.text


def test_a_reply_that_fails_says_so(api, make_service, tokenizer):
    def broken(served):
        model = tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size)
        torch.nn.init.constant_(model.embed_tokens.weight, float("nan"))
        return LLM(model, tokenizer)

    async def work():
        async with api(make_service(load=broken)) as client:
            return [await client.post(PATH, json={"input": "a", "stream": stream}) for stream in (False, True)]

    whole, stream = asyncio.run(work())
    assert whole.status_code == 500 and "not finite" in whole.json()["error"]["message"]
    name, data = stream.text.strip().split("\n")[-2:]
    last = json.loads(data.removeprefix("data: "))["response"]
    assert name == "event: response.failed" and last["status"] == "failed" and "not finite" in last["error"]["message"]


def test_more_than_there_is_room_for_is_taken_for_all_there_is(api):
    answer = post(api, input="a", max_output_tokens=10 ** 6, reasoning={"effort": "none"}).json()
    assert answer["max_output_tokens"] < 1024 and answer["warning"].startswith("max_output_tokens = 1000000: ")


def test_a_conversation_that_is_too_long_may_lose_its_oldest_questions(api):
    turns = [{"role": role, "content": f"{number} " * 90} for number in range(20) for role in ("user", "assistant")]
    given = {"input": [{"role": "system", "content": "Be kind."}, *turns, {"role": "user", "content": "So?"}],
             "max_output_tokens": 9}
    assert post(api, **given).json()["error"]["code"] == "context_length_exceeded"
    answer = post(api, **given, truncation="auto").json()
    assert answer["truncation"] == "auto" and 100 < answer["usage"]["input_tokens"] < 1024
    assert answer["warning"].startswith("input: the conversation is too long; the first ")


def test_what_was_in_force_is_told(api):
    answer = post(api, input="a", max_output_tokens=7, reasoning={"effort": "low"}, top_k=3, return_applied=True).json()
    assert {"max_tokens": 7, "max_thinking_tokens": 0, "top_k": 3, "model": "tiny"}.items() <= answer["applied"].items()


def test_an_unknown_model(openai_client):
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.create(model="nobody", input="a")
