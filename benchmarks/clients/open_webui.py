"""Open WebUI's requests, as its public sources (0.6 and later, routers/openai.py, routers/tasks.py, utils/middleware.py) make
them: the list of models, the check of a connection, a chat in its stream, its turns with thoughts and tools, and the small
jobs that follow each answer. Its texts are not needed here, their shapes are. Nothing but the standard library.
"""

import json
import urllib.error
import urllib.request

from checks import KEY, MODEL, URL, check, needs_thought

JOBS = {"title": ({"max_completion_tokens": 1000}, '{ "title": "your concise title here" }'),
        "tags": ({}, '{ "tags": ["tag1", "tag2", "tag3"] }'),
        "follow-ups": ({}, '{ "follow_ups": ["Question 1?", "Question 2?"] }'),
        "search queries": ({}, '{ "queries": ["query1"] }'),
        "emoji": ({"max_completion_tokens": 4}, "one emoji"), "autocompletion": ({}, '{ "text": "..." }')}
TOOL = {"type": "function", "function": {"name": "get_time", "description": "Of a place.", "parameters": {
    "type": "object", "properties": {"place": {"type": "string", "description": "Its name"}}, "required": ["place"]}}}
ASKED = {"role": "user", "content": "What is 12 + 30?"}


def ask(path: str, body: dict | None = None, key: str = KEY) -> tuple[int, str]:
    """Status and text. It sends its key with every request, and what it calls a user in headers of its own."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "X-OpenWebUI-User-Name": "Ann%20Lee",
               "X-OpenWebUI-User-Id": "1", "X-OpenWebUI-User-Email": "ann@example.org", "X-OpenWebUI-User-Role": "admin"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers), timeout=120) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def answer(messages: list[dict], **more) -> dict:
    status, text = ask("/chat/completions", {"model": MODEL, "messages": messages, "stream": False} | more)
    assert status == 200, text
    return json.loads(text)["choices"][0]["message"]


def streamed(messages: list[dict], **more) -> dict:
    """What it puts together of a stream: it reads `data: ` lines, contents, both names of the thought, calls, usage."""
    body = {"model": MODEL, "messages": messages, "stream": True, "stream_options": {"include_usage": True}} | more
    status, text = ask("/chat/completions", body)
    assert status == 200, text
    message = {"content": "", "thought": "", "calls": [], "usage": None}
    lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    assert lines[-1] == "[DONE]"
    for data in map(json.loads, lines[:-1]):
        message["usage"] = data.get("usage") or message["usage"]
        for delta in (choice["delta"] for choice in data["choices"]):
            message["content"] += delta.get("content") or ""
            message["thought"] += delta.get("reasoning_content") or delta.get("reasoning") or ""
            message["calls"] += delta.get("tool_calls") or []
    return message


with check("chat: the list of models, with a key"):
    status, text = ask("/models")
    assert status == 200 and MODEL in [one["id"] for one in json.loads(text)["data"]]
with check("error: a connection with a wrong key is refused"):
    status, text = ask("/models", key="sk-wrong")
    assert status == 401 and json.loads(text)["error"]["message"]
with check("stream: a chat"):
    message = streamed([{"role": "system", "content": "Be brief."}, ASKED])
    assert message["content"].strip() and message["usage"]["total_tokens"]
with check("thought: apart, in the same stream"):
    needs_thought()
    assert message["thought"]
with check("stream: a chat with all that its controls can set"):
    message = streamed([ASKED], temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, max_tokens=80, seed=42, stop=["###"],
                    frequency_penalty=0.1, presence_penalty=0.1, repeat_penalty=1.1, reasoning_effort="low", num_ctx=4096,
                    logit_bias={"5": 2}, keep_alive="5m", user="1", metadata={"chat_id": "c"})
    assert message["content"].strip()
with check("stream: the next turn, with the thought in each of its forms"):
    for fields in ({"content": "42"}, {"content": "<think>\n12 and 30\n</think>\n42"},
                 {"content": "42", "reasoning_content": "12 and 30"}, {"content": "42", "thinking": "12 and 30"},
                 {"content": [{"type": "text", "text": "42"}]}):
        assert streamed([ASKED, {"role": "assistant"} | fields, {"role": "user", "content": "So?"}], max_tokens=60)["content"]
with check("error: a picture is refused with a sentence"):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": [picture]}], "stream": True}
    status, text = ask("/chat/completions", body)
    assert status == 400 and "text" in json.loads(text)["error"]["message"]
with check("tools: of its own, and their results"):
    streamed([ASKED], tools=[TOOL], max_tokens=60)
    call = {"id": "call_1", "index": 0, "type": "function", "function": {"name": "get_time", "arguments": '{"place": "Oslo"}'}}
    messages = [ASKED, {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "noon"}]
    assert streamed(messages, tools=[TOOL], tool_choice="none", max_tokens=60)["content"].strip()
for job, (more, form) in JOBS.items():
    with check(f"chat: the small job of each answer: {job}"):
        prompt = f"### Task:\nDo it for this chat.\n### Output:\nJSON format: {form}\n### Chat History:\n<chat_history>\n" \
                "USER: What is 12 + 30?\nASSISTANT: 42\n</chat_history>"
        fields = answer([{"role": "user", "content": prompt}], **more)
        assert fields["content"].strip() and "<think>" not in fields["content"]
