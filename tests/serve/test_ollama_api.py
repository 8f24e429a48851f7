"""Ollama's API, as its clients send and read it over plain HTTP."""

import asyncio
import json

import httpx
import pytest
import torch
from listening import listening

from spoutnik.model.weights import save_tensors
from spoutnik.serve import auth
from spoutnik.serve.api.ollama import CallCollector
from spoutnik.serve.api.ollama_request import OllamaChatRequest, OllamaGenerateRequest
from spoutnik.serve.app import make_app
from spoutnik.serve.keys import Keys
from spoutnik.serve.settings import Settings

CHAT, GENERATE = "/api/chat", "/api/generate"
ASK = [{"role": "user", "content": "What is 12 + 30?"}]
SHORT = {"model": "tiny", "messages": ASK, "options": {"seed": 1, "num_predict": 40}}
PROMPT = {"model": "tiny", "prompt": "What is 12 + 30?", "options": {"seed": 1, "num_predict": 40}}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 6}}, "required": ["city"],
        "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": CITY}}]
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


@pytest.fixture
def call(api):
    def call(method: str, path: str, body: dict | None = None, service=None, **more) -> httpx.Response:
        async def work():
            async with api(service) as client:
                return await client.request(method, path, **({"json": body} if body is not None else {}), **more)

        return asyncio.run(work())

    return call


@pytest.fixture
def post(call):
    return lambda path, **body: call("POST", path, body)


def lines(answer: httpx.Response) -> list[dict]:
    assert answer.headers["content-type"] == "application/x-ndjson" and answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.split("\n")[:-1]]


def test_a_reply_comes_in_lines_where_nothing_else_is_asked_for(post):
    whole, stream = post(CHAT, **SHORT, stream=False).json(), lines(post(CHAT, **SHORT))
    assert whole["model"] == "tiny" and whole["done"] is True and whole["done_reason"] in ("stop", "length")
    assert whole["created_at"].endswith("Z") and whole["message"]["role"] == "assistant"
    for name in ("content", "thinking"):
        assert "".join(line["message"].get(name, "") for line in stream) == whole["message"][name] != ""
    assert [line["done"] for line in stream] == [False] * (len(stream) - 1) + [True]
    assert all(set(line) == {"model", "created_at", "message", "done"} for line in stream[:-1])
    for last in (whole, stream[-1]):
        assert all(type(last[name]) is int and last[name] > 0 for name in DURATIONS)
        assert last["prompt_eval_count"] > 0 and 0 < last["eval_count"] <= 40
        assert last["total_duration"] == sum(last[name] for name in DURATIONS[1:])


def test_a_prompt_is_answered_likewise(post):
    whole, stream = post(GENERATE, **PROMPT, stream=False).json(), lines(post(GENERATE, **PROMPT))
    assert "".join(line["response"] for line in stream) == whole["response"] != ""
    assert "".join(line.get("thinking", "") for line in stream) == whole["thinking"] != "" and "message" not in whole
    chat = post(CHAT, **SHORT, stream=False).json()["message"]
    assert (whole["response"], whole["thinking"]) == (chat["content"], chat["thinking"])
    system = post(GENERATE, **PROMPT, system="Be kind.", stream=False).json()
    assert system["prompt_eval_count"] > whole["prompt_eval_count"]


def test_a_raw_prompt_goes_to_the_model_as_it_is(post):
    whole, stream = post(GENERATE, **PROMPT, raw=True, stream=False).json(), lines(post(GENERATE, **PROMPT, raw=True))
    assert whole["prompt_eval_count"] < post(GENERATE, **PROMPT, stream=False).json()["prompt_eval_count"]
    assert "".join(line["response"] for line in stream) == whole["response"] != "" and "thinking" not in whole
    ask = {"model": "tiny", "prompt": "a", "raw": True, "stream": False, "return_applied": True}
    endings = [post(GENERATE, **ask, options={"seed": seed}).json() for seed in range(8)]  # each ends where the model wants
    assert max(end["eval_count"] for end in endings) > 16
    assert all(end["applied"]["max_tokens"] > 900 and "warning" not in end for end in endings)
    form = post(GENERATE, **PROMPT | {"options": {"num_predict": 300, "seed": 1}}, raw=True, stream=False, format=CITY).json()
    assert json.loads(form["response"]).keys() == {"city"}


@pytest.mark.parametrize(("think", "applied"), [
    (True, {"enable_thinking": True}), (False, {"enable_thinking": False, "max_thinking_tokens": 0}),
    ("low", {"max_thinking_tokens": 5}), ("none", {"enable_thinking": False}), (None, {"enable_thinking": True})])
def test_think(post, think, applied):
    answer = post(CHAT, **SHORT, think=think, stream=False, return_applied=True).json()
    assert applied.items() <= answer["applied"].items()
    assert ("thinking" in answer["message"]) is answer["applied"]["enable_thinking"]


def test_options_are_heard(post):
    options = {"temperature": 0.25, "top_k": 7, "top_p": 0.5, "min_p": 0.125, "seed": 3, "stop": ["x"], "num_predict": 9,
               "presence_penalty": 0.5, "frequency_penalty": 0.25, "repeat_penalty": 1.5, "repeat_last_n": -1}
    names = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
    answer = post(CHAT, **SHORT | {"options": options}, stream=False, return_applied=True).json()
    assert all(answer["applied"][names.get(name, name)] == value for name, value in options.items() if name != "repeat_last_n")
    unlimited = post(CHAT, **SHORT | {"options": {"num_predict": -1, "seed": -1}}, stream=False, return_applied=True).json()
    assert unlimited["applied"]["max_tokens"] > 900
    off = {"options": {"repeat_penalty": 1.5, "repeat_last_n": 0, "num_predict": 5}}
    assert post(CHAT, **SHORT | off, stream=False, return_applied=True).json()["applied"]["repetition_penalty"] == 1


def test_what_is_not_as_asked_for_is_said(post):
    options = {"num_ctx": 8192, "num_predict": 5, "num_gpu": 1, "num_thread": 4, "xtc_threshold": 0.5,
               "repeat_penalty": 1.1, "repeat_last_n": 64}
    warning = lines(post(CHAT, **SHORT | {"options": options}))[-1]["warning"]
    for words in ("num_ctx = 8192: this server holds 1024", "xtc_threshold", "repeat_last_n = 64"):
        assert words in warning
    assert "num_gpu" not in warning and "num_thread" not in warning
    assert "warning" not in post(CHAT, **SHORT | {"options": {"num_ctx": 512, "num_predict": 400, "seed": 1}}, think=False,
                                 stream=False).json()


def test_formats(post):
    asked = SHORT | {"options": {"num_predict": 300, "seed": 1}, "think": False, "stream": False}
    assert json.loads(post(CHAT, **asked, format=CITY).json()["message"]["content"]).keys() == {"city"}
    assert post(CHAT, **asked, format="json").json()["message"]["content"].lstrip().startswith("{")
    assert not post(CHAT, **asked, format="").json()["message"]["content"].lstrip().startswith("{")


def test_calls_of_tools_come_whole():
    """And what was cut off does not come."""
    collector, head = CallCollector(), {"type": "function", "function": {"name": "f", "arguments": ""}}
    assert collector.feed([{"index": 0, "id": "a", **head}]) == [] == collector.feed([])
    assert collector.feed([{"index": 0, "function": {"arguments": '{"x": '}}]) == []
    assert collector.feed([{"index": 0, "function": {"arguments": "1}"}}, {"index": 1, "id": "b", **head}]) == [
        {"id": "a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}]
    assert collector.feed([{"index": 1, "function": {"arguments": '{"x"'}}]) == []


def test_tools_and_their_results(post, tokenizer):
    calls = [{"id": "c", "function": {"name": "weather", "arguments": {"city": "Rome"}}}]
    given = [*ASK, {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": calls},
             {"role": "Tool", "tool_name": "weather", "tool_call_id": "c", "content": "sun"}]
    asked = OllamaChatRequest(model="tiny", messages=given, tools=TOOLS)
    call, result = asked.for_chat.template_messages[1:]
    assert call["reasoning_content"] == "Hm." and json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"city": "Rome"}
    assert (result["role"], result["name"], result["tool_call_id"], result["content"]) == ("tool", "weather", "c", "sun")
    told, untold = (post(CHAT, **SHORT | {"messages": given, "tools": tools}, stream=False).json() for tools in (TOOLS, None))
    assert told["prompt_eval_count"] > untold["prompt_eval_count"]


def test_log_probabilities(post):
    asked = SHORT | {"logprobs": True, "top_logprobs": 2, "think": False}
    whole, stream = post(CHAT, **asked, stream=False).json(), lines(post(CHAT, **asked))
    assert [entry for line in stream for entry in line.get("logprobs", ())] == whole["logprobs"]
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in whole["logprobs"])


def test_without_a_question_the_model_is_loaded(post):
    assert post(CHAT, model="tiny", messages=[]).json()["done_reason"] == "load"
    answer = post(GENERATE, model="tiny", keep_alive="5m").json()
    assert (answer["response"], answer["done"], answer["done_reason"]) == ("", True, "load")


def test_models_are_listed_and_shown(call, tokenizer):
    listed, = call("GET", "/api/tags").json()["models"]
    assert listed["name"] == listed["model"] == "tiny:latest" and len(listed["digest"]) == 64
    assert call("HEAD", "/api/tags").status_code == 200
    shown = call("POST", "/api/show", {"model": "tiny:latest"}).json()
    assert shown["template"] == tokenizer.chat_template
    assert shown["capabilities"] == listed["capabilities"] == ["completion", "tools", "thinking"]
    assert shown["model_info"] == call("POST", "/api/show", {"name": "tiny"}).json()["model_info"]
    assert call("GET", "/api/ps").json() == {"models": []}
    assert [int(part) for part in call("GET", "/api/version").json()["version"].split(".")] >= [0, 6, 4]
    assert call("POST", "/api/pull", {"model": "tiny"}).json() == {"status": "success"}


def test_a_loaded_model_is_described(api):
    async def work():
        async with api() as client:
            await client.post(CHAT, json={"model": "tiny"})
            return [(await client.get("/api/ps")).json(), (await client.post("/api/show", json={"model": "tiny"})).json(),
                    (await client.get("/api/tags")).json()]

    running, shown, listed = asyncio.run(work())
    assert running["models"][0]["context_length"] == 1024 and running["models"][0]["size_vram"] == 0
    info = shown["model_info"]
    assert info["general.architecture"] == "qwen2" and info["qwen2.context_length"] == 1024
    assert info["general.parameter_count"] > 0 and listed["models"][0]["details"]["family"] == "qwen2"


def test_the_size_is_that_of_the_weights_that_are_read(call, make_service, tmp_path):
    for name in ("model-00001-of-00002.safetensors", "consolidated.safetensors"):  # left over, or of another program
        save_tensors(tmp_path / name, {"other": torch.zeros(99, dtype=torch.bfloat16)})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "a.safetensors"}}))
    for name, kind in (("a.safetensors", torch.float16), ("model.safetensors", torch.float32)):
        save_tensors(tmp_path / name, {"a": torch.zeros(9, dtype=kind)})
        service = make_service()
        service.default.folder = folder = tmp_path / f"with_{name}"
        folder.symlink_to(tmp_path)  # sizes are remembered by folder
        listed, = call("GET", "/api/tags", service=service).json()["models"]
        assert listed["size"] == (tmp_path / name).stat().st_size
        assert listed["details"]["quantization_level"] == {torch.float16: "F16", torch.float32: "F32"}[kind]


def test_a_run_s_models_keep_their_names(call, make_service):
    for name, shown in (("nano:base", "nano:base"), ("org/nano", "org/nano:latest")):
        service = make_service((name,))
        assert call("GET", "/api/tags", service=service).json()["models"][0]["name"] == shown
        body = {"model": shown, "messages": ASK, "stream": False, "options": {"num_predict": 2}}
        assert call("POST", CHAT, body, make_service((name,))).json()["model"] == shown


def test_embeddings(post):
    several = post("/api/embed", model="tiny", input=["a", "What is 12 + 30?"]).json()
    assert len(several["embeddings"]) == 2 and several["prompt_eval_count"] > 2 and several["total_duration"] > 0
    assert post("/api/embeddings", model="tiny", prompt="a").json()["embedding"] == pytest.approx(several["embeddings"][0])
    long = {"model": "tiny", "input": "a " * 3000}
    assert len(post("/api/embed", **long).json()["embeddings"]) == 1
    assert post("/api/embed", **long, truncate=False).status_code == 400


@pytest.mark.parametrize(("path", "body", "status", "words"), [
    (CHAT, {"model": "nobody"}, 404, "nobody"), (CHAT, {"think": "much"}, 400, "think"),
    (CHAT, {"format": "yaml"}, 400, "format"),
    (CHAT, {"options": {"mirostat": 2}}, 400, "options.mirostat"), (CHAT, {"options": {"tfs_z": 0.5}}, 400, "options.tfs_z"),
    (CHAT, {"options": {"typical_p": 0.5}}, 400, "options.typical_p"), (CHAT, {"options": {"top_p": 3}}, 400, "options.top_p"),
    (CHAT, {"format": {"type": "strin"}}, 400, "format:"),
    (CHAT, {"messages": [{"role": "boss", "content": "a"}]}, 400, "role"),
    (CHAT, {"messages": [{"role": "user", "content": "a", "images": ["AA=="]}]}, 400, "messages[0].images"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f g"}}]}, 400, "tools[0]"),
    (GENERATE, {"prompt": "a", "images": ["AA=="]}, 400, "images"), (GENERATE, {"prompt": "a", "suffix": "b"}, 400, "suffix"),
    (GENERATE, {"prompt": "a", "template": "{{ .Prompt }}"}, 400, "template"),
    (GENERATE, {"prompt": "a", "context": [1]}, 400, "context"),
    (GENERATE, {"prompt": "a", "raw": True, "system": "b"}, 400, "system"),
    ("/api/show", {"model": "nobody"}, 404, "nobody"), ("/api/pull", {"model": "nobody"}, 404, "nobody"),
    ("/api/embed", {"input": "a", "dimensions": 3}, 400, "dimensions"), ("/api/nothing", {}, 404, "")])
def test_errors_have_ollama_s_form(post, path, body, status, words):
    answer = post(path, **({"messages": ASK} if path == CHAT else {}) | body)
    assert answer.status_code == status and words in answer.json()["error"], answer.text


def test_json_that_is_declared_as_a_form_is_read_unless_a_browser_sends_it(call):
    """As `curl -d` does, in all of Ollama's documentation."""
    body = json.dumps(SHORT | {"stream": False})
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert call("POST", CHAT, content=body, headers=form).json()["done"] is True
    for header in ({"origin": "http://test"}, {"sec-fetch-site": "cross-site"}):
        refused = call("POST", CHAT, content=body, headers=form | header)
        assert refused.status_code == 415 and "application/json" in refused.json()["error"]


def test_a_conversation_that_is_too_long_loses_its_oldest_questions(post):
    turns = [{"role": role, "content": f"{number} " * 90} for number in range(20) for role in ("user", "assistant")]
    given = SHORT | {"messages": [*turns, *ASK], "stream": False}
    answer = post(CHAT, **given).json()
    assert "messages: the conversation is too long; the first " in answer["warning"] and answer["prompt_eval_count"] < 1024
    assert "maximum context length" in post(CHAT, **given, truncate=False).json()["error"]
    alone = post(CHAT, **SHORT | {"messages": [{"role": "user", "content": "a " * 3000}]})
    assert alone.status_code == 400 and "maximum context length" in alone.json()["error"]


def test_keys_and_limits_hold_here_too(make_service, tmp_path):
    app, keys = make_app(make_service(), settings := Settings(shutdown_seconds=0.0)), Keys(tmp_path / "keys.json")
    auth.install(app, settings, keys)
    app.state.serving.service.on_end.append(auth.charge)
    bearer = {"authorization": f"Bearer {keys.add('laptop', tokens_per_minute=30)}"}
    with listening(app) as url:
        refused = [httpx.get(f"{url}/api/tags"), httpx.post(url + CHAT, json=SHORT)]
        answers = [httpx.post(url + CHAT, json=SHORT, headers=bearer, timeout=60) for _ in range(2)]
    assert [answer.status_code for answer in refused + answers] == [401, 401, 200, 429]
    assert "key" in refused[0].json()["error"] and "minute" in answers[1].json()["error"]


def test_hanging_up_ends_the_reply(server, idle):
    body = {"model": "tiny", "messages": ASK, "options": {"num_predict": 900}}
    with httpx.stream("POST", server + CHAT, json=body) as response:
        next(response.iter_lines())
    assert idle()


def test_fields_of_ours_are_heard_here_too(post):
    answer = post(CHAT, **SHORT, stream=False, tools=TOOLS, tool_choice="none", max_thinking_tokens=4, return_applied=True,
                  width=3).json()
    assert answer["applied"]["tool_choice"] == "none" and answer["applied"]["max_thinking_tokens"] == 4
    assert "width: unknown here" in answer["warning"]
    for wrong in ({"best_of": 3}, {"mirostat": 2}, {"max_thinking_tokens": "many"}):
        refused = post(CHAT, **SHORT, **wrong)
        assert refused.status_code == 400 and next(iter(wrong)) in refused.json()["error"]


def test_silence_is_broken_by_lines_that_add_nothing(make_service):
    app = make_app(make_service(), Settings(ping_seconds=0.0001, shutdown_seconds=0.0))
    with listening(app) as url:
        stream = lines(httpx.post(url + CHAT, json=SHORT, timeout=60))
    empty = [line for line in stream if line["message"] == {"role": "assistant", "content": ""} and not line["done"]]
    assert len(empty) > 1 and stream[-1]["done"]


def test_a_prompt_with_a_system_text_becomes_a_conversation():
    chat = OllamaGenerateRequest(prompt="a", system="b").for_chat
    assert [(message["role"], message["content"]) for message in chat.template_messages] == [("system", "b"), ("user", "a")]
