"""curl, as people type it: with an offer of HTTP/2, a compressed answer, a body from its standard input."""

import json
import re
import subprocess

from checks import ASK, KEY, MODEL, SLOW_URL, TOO_LONG, URL, check, report

HTTP2, PLAIN = ("--http2",), ("--http1.1",)
LONG = [{"role": "user", "content": TOO_LONG}]


def curl(path: str, body: dict | None = None, *options: str, url: str = URL, key: str = KEY) -> tuple[int, str]:
    """Status and text. A body goes through standard input: from 1 MB on, curl waits for leave to send it (Expect)."""
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--max-time", "120", "--write-out", "\n%{http_code}",
               *options, url + path, "--header", f"Authorization: Bearer {key}", "--header", "Content-Type: application/json"]
    sent = [] if body is None else ["--data-binary", "@-"]
    done = subprocess.run(command + sent, input=json.dumps(body), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def chat(*options: str, messages: list[dict] = ASK, url: str = URL, key: str = KEY, tokens: int = 60,
         **more) -> tuple[int, str]:
    body = {"model": MODEL, "messages": messages, "max_tokens": tokens} | more
    return curl("/chat/completions", body, *options, url=url, key=key)


report(versions={"curl": re.match(r"curl (\S+)", subprocess.check_output(["curl", "--version"], text=True))[1]})
for name, options in (("HTTP/1.1", PLAIN), ("--http2", HTTP2), ("--http2 --compressed", (*HTTP2, "--compressed"))):
    with check(f"chat: {name}"):
        status, text = chat(*options)
        assert status == 200 and json.loads(text)["choices"][0]["message"]["content"].strip(), (status, text[:300])
        status, text = curl("/models", None, *options)
        assert status == 200 and MODEL in text, (status, text[:300])
    with check(f"stream: {name}"):
        status, text = chat(*options, stream=True)
        assert status == 200 and text.count("data: ") > 2 and text.rstrip().endswith("data: [DONE]"), (status, text[:300])
    with check(f"error: {name}, an unknown model"):
        status, text = chat(*options, model="nobody")
        assert status == 404 and json.loads(text)["error"]["code"] == "model_not_found", (status, text[:300])
    with check(f"error: {name}, a wrong key"):
        status, text = chat(*options, key="sk-wrong")
        assert status == 401 and json.loads(text)["error"]["code"] == "invalid_api_key", (status, text[:300])
    with check(f"error: {name}, too long"):
        for messages in (LONG, LONG * 40):  # the second is a body of more than a megabyte
            status, text = chat(*options, messages=messages)
            assert status == 400 and json.loads(text)["error"]["code"] == "context_length_exceeded", (status, text[:300])
    with check(f"slow: {name}"):
        status, text = chat(*options, url=SLOW_URL, tokens=8, stream=True)
        assert status == 200 and text.rstrip().endswith("data: [DONE]"), (status, text[:300])
