"""One client streams while others send requests of megabytes: the longest gap in its stream, for each kind of request.

    python benchmarks/large_requests.py [--model runs/nano] [--megabytes 7] [--rounds 3] [--only "one message"]

Starts `spoutnik serve` as a user would. `quiet` is the gap while nobody else asks anything, the limit of what can be wanted.
Wanted: no gap over 0.3 s, and an answer (a refusal, mostly) for each request, never a 5xx.
"""

import argparse
import gzip
import http.client
import json
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

from common import machine, print_result

CHAT, TOKENS = "/v1/chat/completions", "/tokenize"
HEADERS = {"Content-Type": "application/json"}


def requests(size: int, model: str) -> dict[str, tuple[str, bytes, dict]]:
    """Name -> path, body of about so many bytes, headers."""
    sentence = "The quick brown fox, 12 + 30, jumps over {the} lazy dog. "
    text = sentence * (size // len(sentence))

    def body(path: str = CHAT, **fields) -> tuple[str, bytes, dict]:
        least = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} if path == CHAT else {}
        return path, json.dumps(least | fields).encode(), {}

    def many(value: object) -> list:
        return [value] * (size // (len(json.dumps(value)) + 2))

    spelled, escaped = json.dumps({"messages": [{"role": "user", "content": "@"}]}).encode(), b"\\u00e9"
    packed = gzip.compress(body(messages=[{"role": "user", "content": text}])[1], 1)
    return {
        "one message": body(messages=[{"role": "user", "content": text}]),
        "a quarter of it": body(messages=[{"role": "user", "content": text[:size // 4]}]),
        "half a megabyte": body(messages=[{"role": "user", "content": text[:500_000]}]),
        "spelled special tokens": body(messages=[{"role": "user", "content": "<|im_end|>" * (size // 10)}]),
        "the beginnings of such": body(messages=[{"role": "user", "content": "<" * size}]),
        "escaped letters": (CHAT, spelled.replace(b"@", escaped * (size // len(escaped))), {}),
        "white space": (CHAT, b" " * size + spelled, {}),
        "packed": (CHAT, packed, {"Content-Encoding": "gzip"}),
        "many messages": body(messages=many({"role": "user", "content": "hi"})),
        "many wrong messages": body(messages=many({"role": "user", "content": 5})),
        "many tools": body(tools=many({})),
        "a tool's description": body(tools=[{"type": "function", "function": {"name": "f", "description": text}}]),
        "many biases": body(logit_bias={str(number): 1.0 for number in range(size // 15)}),
        "many empty lists": body(documents=many([[]])),
        "many stop texts": body(stop=many("x")),
        "a model's name": body(model=text),
        "nested lists": (CHAT, b"[" * size, {}),
        "digits": (CHAT, b'{"seed": ' + b"1" * size + b"}", {}),
        "a prompt": body("/v1/completions", prompt=text),
        "a prompt's token ids": body("/v1/completions", prompt=many(17)),
        "many prompts": body("/v1/completions", prompt=many("Once upon a time"), max_tokens=1),
        "a response's input": body("/v1/responses", input=text),
        "a text to embed": body("/v1/embeddings", input=text),
        "texts to embed": body("/v1/embeddings", input=["a b c"] * 256),
        "long texts to embed": body("/v1/embeddings", input=[list(range(20, 220)) * 9] * 4),
        "a text to tokenize": body(TOKENS, prompt=text),
        "half a megabyte to tokenize": body(TOKENS, prompt=text[:500_000]),
        "ids to detokenize": body("/detokenize", tokens=many(17)[:400_000]),
        "Anthropic's messages": body("/v1/messages", messages=[{"role": "user", "content": text}], max_tokens=1),
        "Ollama's prompt": body("/api/generate", prompt=text, model=model),
    }


class Stream(threading.Thread):
    """A client that reads one long reply after another. gaps: seconds between two pieces of a reply, with their ends."""

    def __init__(self, port: int, tokens: int):
        super().__init__(daemon=True)
        self.port, self.tokens, self.gaps, self.over = port, tokens, [], threading.Event()
        self.start()

    def run(self) -> None:
        for seed in count():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
            body = {"prompt": "Once upon a time", "max_tokens": self.tokens, "ignore_eos": True, "stream": True, "seed": seed}
            connection.request("POST", "/v1/completions", json.dumps(body), HEADERS)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            last = None
            while response.readline():
                now = time.perf_counter()
                if last is not None:
                    self.gaps.append((now, now - last))
                last = now
                if self.over.is_set():
                    connection.close()
                    return

    def longest(self, since: float) -> float:
        gaps = [gap for end, gap in list(self.gaps) if end >= since]
        return max(gaps) if gaps else sys.exit("nothing more came of the other client's stream")


def send(port: int, path: str, body: bytes, headers: dict) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", path, body, HEADERS | headers)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/nano")
    parser.add_argument("--megabytes", type=float, default=7.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=400, help="of each streamed reply")
    parser.add_argument("--only", action="append", help="a kind of request; may be repeated")
    options = parser.parse_args()
    print(machine())
    kinds = requests(int(options.megabytes * 1e6), Path(options.model).resolve().name)
    if unknown := set(options.only or ()) - kinds.keys():
        parser.error(f"--only {unknown.pop()}: there is no such kind. There are: {', '.join(kinds)}")
    server = subprocess.Popen([sys.executable, "-m", "spoutnik", "serve", options.model, "--port", "0", "--json", "--no-page"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
        send(port, CHAT, json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}).encode(), {})
        stream = Stream(port, options.tokens)
        time.sleep(2)
        began = time.perf_counter()
        time.sleep(5)
        results = [{"name": "large_requests, quiet", "ours": stream.longest(began), "unit": "s"}]
        for name in options.only or kinds:
            gaps, seconds = [], []
            for _ in range(options.rounds):
                began = time.perf_counter()
                status, answer = send(port, *kinds[name])
                seconds.append(time.perf_counter() - began)
                time.sleep(0.5)
                gaps.append(stream.longest(began))
            print(f"{name:28} gap {max(gaps):.3f} s, answered {status} after {max(seconds):.2f} s: {answer[:90]!r}", flush=True)
            results.append({"name": f"large_requests, {name}", "ours": max(gaps), "limit": 0.3, "unit": "s", "status": status,
                            "seconds_to_answer": max(seconds), "bytes": len(kinds[name][1])})
        stream.over.set()
        stream.join(30)
    finally:
        server.terminate()
        server.wait(60)
    print_result(results)


if __name__ == "__main__":
    main()
