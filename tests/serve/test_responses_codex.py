"""Responses as Codex asks for them, and as clients do that refer to items of earlier answers."""

import asyncio
import json

import pytest

from spoutnik.serve.api.recent_items import MAX_BYTES, SECONDS, RecentItems
from spoutnik.serve.api.responses_request import ResponsesRequest

PATH = "/v1/responses"
COMMAND = {"type": "object", "properties": {"cmd": {"type": "string", "maxLength": 6}}, "required": ["cmd"],
           "additionalProperties": False}
SHELL = {"type": "function", "name": "exec_command", "description": "Runs a command.", "strict": False, "parameters": COMMAND}
OTHERS = [{"type": "namespace", "name": "agents", "description": "Others.", "tools": [SHELL]},
          {"type": "web_search", "external_web_access": False}, {"type": "local_shell"}, {"type": "image_generation"},
          {"type": "tool_search"},
          {"type": "custom", "name": "apply_patch", "description": "Edits files.",
           "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}}]
TURN = [{"type": "message", "id": "msg_1", "role": "developer", "content": [{"type": "input_text", "text": "Rules."}]},
        {"type": "message", "id": "msg_2", "role": "developer", "content": [{"type": "input_text", "text": "More."},
                                                                            {"type": "input_text", "text": "Still more."}]},
        {"type": "message", "id": "msg_3", "role": "user", "content": [{"type": "input_text", "text": "Here."}]},
        {"type": "message", "id": "msg_4", "role": "user", "content": [{"type": "input_text", "text": "Say hi."}]}]
CODEX = {"model": "tiny", "instructions": "You are an agent.", "input": TURN, "tools": [SHELL, *OTHERS], "tool_choice": "auto",
         "parallel_tool_calls": True, "reasoning": {"effort": "low", "summary": "auto"}, "store": False, "stream": True,
         "include": ["reasoning.encrypted_content"], "prompt_cache_key": "session-1", "service_tier": "auto",
         "text": {"verbosity": "low"}, "client_metadata": {"turn_id": "1"}, "safety_identifier": "x",
         "max_output_tokens": 300, "seed": 1}


@pytest.fixture
def post(api):
    def post(*bodies: dict) -> list:
        async def work():
            async with api() as client:
                return [await client.post(PATH, json=body) for body in bodies]

        return asyncio.run(work())

    return post


def events(text: str) -> list[dict]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def messages(items: list[dict], find=lambda id: None) -> tuple[list[dict], list[str]]:
    chat, warnings = ResponsesRequest(input=items).for_chat(find)
    return chat.template_messages, warnings


def test_a_turn_of_codex(post):
    answer, = post(CODEX)
    stream = events(answer.text)
    assert answer.status_code == 200 and stream[0]["type"] == "response.created"
    last = stream[-1]
    assert last["type"] in ("response.completed", "response.incomplete") and last["response"]["usage"]["total_tokens"] > 0
    for tool in OTHERS:
        assert f"'{tool['type']}'" in last["response"]["warning"]
    assert last["response"]["tools"] == CODEX["tools"] and last["response"]["text"]["verbosity"] == "low"
    done = [event["item"] for event in stream if event["type"] == "response.output_item.done"]
    assert done == last["response"]["output"]


def test_a_call_and_its_output(post):
    answer, = post(CODEX | {"tool_choice": "required", "parallel_tool_calls": False})
    last = events(answer.text)[-1]["response"]
    call, = [item for item in last["output"] if item["type"] == "function_call"]
    assert call["name"] == "exec_command" and json.loads(call["arguments"]).keys() == {"cmd"}
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": [{"type": "input_text", "text": "ok"}]}
    again, = post(CODEX | {"input": [*TURN, *last["output"], output], "tool_choice": "none"})
    assert events(again.text)[-1]["response"]["output"][-1]["type"] == "message"


def test_items_of_all_kinds_become_messages():
    given, warnings = messages([
        *TURN, {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}], "content": None,
                "encrypted_content": "x"},
        {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** é", "status": "completed"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
        {"type": "local_shell_call", "id": "l1", "call_id": None, "status": "completed",
         "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "l1", "output": "a.txt"},
        {"type": "function_call", "call_id": "c2", "name": "view_image", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": [
            {"type": "input_text", "text": "seen"}, {"type": "input_image", "image_url": "data:"}]},
        {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "item_reference", "id": "rs_gone"}, {"type": "ghost_snapshot", "ghost_commit": {}},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"type": "message", "role": "user", "content": "So?"}])
    assert [message["role"] for message in given] == ["system", "user", "user", *["assistant", "tool"] * 3, "assistant", "user"]
    assert given[0]["content"] == "Rules.\n\nMore.\nStill more." and given[3]["reasoning_content"] == "Hm."
    calls = [call["function"] for message in given for call in message.get("tool_calls", ())]
    assert [call["name"] for call in calls] == ["apply_patch", "local_shell", "view_image"]
    assert json.loads(calls[0]["arguments"]) == {"input": "*** é"} and json.loads(calls[1]["arguments"])["command"] == ["ls"]
    assert [message["tool_call_id"] for message in given if message["role"] == "tool"] == ["c1", "l1", "c2"]
    assert given[8]["content"] == "seen" and given[9]["content"] == "No."
    assert [warning.split(":")[0] for warning in warnings] == ["input[10].output[1]", "input[11]", "input[12]", "input[13]"]


def test_fields_of_ours_are_heard_and_others_refused(post):
    heard, *refused = post({"input": "a", "max_output_tokens": 20, "enable_thinking": False, "return_applied": True, "odd": 1},
                           *({"input": "a"} | wrong for wrong in ({"mirostat": 2}, {"best_of": 3}, {"min_p": 7})))
    assert heard.json()["applied"]["enable_thinking"] is False and "odd: unknown here" in heard.json()["warning"]
    assert [answer.json()["error"]["param"] for answer in refused] == ["mirostat", "best_of", "min_p"]


def test_some_of_the_tools_are_allowed():
    tools = [SHELL, SHELL | {"name": "write_stdin"}, OTHERS[1]]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "write_stdin"}]}
    chat, _ = ResponsesRequest(input="a", tools=tools, tool_choice=choice).for_chat(lambda id: None)
    assert [function.name for function in chat.tool_set.callable] == ["write_stdin"] and chat.tool_set.required


def test_an_item_of_an_earlier_answer_can_be_referred_to(api):
    async def work(**more):
        body = CODEX | {"stream": False, "tool_choice": "required", "parallel_tool_calls": False} | more
        async with api() as client:
            output = (await client.post(PATH, json=body)).json()["output"]
            result = {"type": "function_call_output", "call_id": output[-1]["call_id"], "output": "ok"}
            given = [*TURN, *({"type": "item_reference", "id": item["id"]} for item in output), result]
            by_reference = await client.post(PATH, json=body | {"input": given, "tools": [SHELL], "tool_choice": "none"})
            written = await client.post(PATH, json=body | {"input": [*TURN, *output, result], "tools": [SHELL],
                                                           "tool_choice": "none"})
            return by_reference.json(), written.json()

    by_reference, written = asyncio.run(work(store=True))
    assert "input[" not in by_reference.get("warning", "")
    assert by_reference["usage"]["input_tokens"] == written["usage"]["input_tokens"]
    assert by_reference["output"][-1]["content"] == written["output"][-1]["content"]
    by_reference, written = asyncio.run(work(store=False))
    assert "item_reference" in by_reference["warning"]
    assert by_reference["usage"]["input_tokens"] < written["usage"]["input_tokens"]


def test_items_are_forgotten():
    now = [0.0]
    items = RecentItems(clock=lambda: now[0])
    items.add([{"id": "a"}], "laptop")
    assert items.find("a", "laptop") == {"id": "a"} and items.find("a", None) is None and items.find("b", "laptop") is None
    now[0] = SECONDS + 1
    assert items.find("a", "laptop") is None
    items.add([{"id": "b", "text": "x" * (MAX_BYTES - 100)}], None)
    assert items.find("b", None) and items.size < MAX_BYTES
    items.add([{"id": "c", "text": "x" * 1000}], None)
    assert items.find("b", None) is None and items.find("c", None)
