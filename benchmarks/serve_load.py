"""Many clients at once on a server with a small model: errors, starvation, memory, and what HTTP costs beside the engine.

    python benchmarks/serve_load.py [--model runs/nano] [--clients 200] [--seconds 60] [--disconnects 500]

Starts `spoutnik serve` as a user would, then streams chat completions from so many clients without a pause, then begins and
cuts off so many streams at random moments. Wanted: no error, no client without an answer, memory flat, overhead under 5 % of
the engine's time, nothing left running after the cuts.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
from common import machine, print_result

QUESTIONS = ["Use 3, 5, 8 once each to make 16.", "What is 17 + 26?", "Write 13 in base 2.", "How many e are in nevertheless?"]


def resident(pid: int) -> int:
    """Bytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


async def stream(client: httpx.AsyncClient, model: str, seed: int, cut_after: float | None = None) -> tuple[int, float, bool]:
    """One completion: generated tokens, seconds to the first event, whether an answer came. cut_after: seconds."""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTIONS[seed % len(QUESTIONS)]}], "stream": True,
            "stream_options": {"include_usage": True}, "seed": seed}
    began, first, tokens, answered = time.perf_counter(), 0.0, 0, False
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"status {response.status_code}: {(await response.aread())[:200]!r}")
        async for line in response.aiter_lines():
            first = first or time.perf_counter() - began
            if cut_after is not None and time.perf_counter() - began > cut_after:
                return 0, first, False
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(str(event))
                answered = answered or any(choice["delta"].get("content") for choice in event["choices"])
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return tokens, first, answered


async def load(url: str, model: str, clients: int, seconds: float, pid: int) -> dict:
    """All clients at work until the time is over."""
    until, counts, errors, tokens, firsts, memory = time.monotonic() + seconds, [0] * clients, [], 0, [], []

    async def one(number: int, client: httpx.AsyncClient) -> None:
        nonlocal tokens
        while time.monotonic() < until:
            try:
                made, first, answered = await stream(client, model, number + clients * counts[number])
                tokens += made
                firsts.append(first)
                counts[number] += 1
                if not answered:
                    errors.append("no answer")
            except (httpx.HTTPError, RuntimeError) as error:
                errors.append(repr(error))

    async def watch() -> None:
        while time.monotonic() < until:
            memory.append(resident(pid))
            await asyncio.sleep(1)

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        began = time.perf_counter()
        await asyncio.gather(watch(), *(one(number, client) for number in range(clients)))
        took = time.perf_counter() - began
    half = len(memory) // 2
    return {"tokens_per_second": tokens / took, "replies": sum(counts), "fewest_of_a_client": min(counts),
            "errors": len(errors), "first_error": errors[0] if errors else "",
            "median_seconds_to_first_event": statistics.median(firsts or [0.0]),
            "memory_mb": memory[-1] / 1e6, "memory_growth_mb": (max(memory[half:]) - max(memory[:half] or [0])) / 1e6}


async def cut_off(url: str, model: str, count: int) -> None:
    draw = random.Random(0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=50)) as client:
        async def one(number: int) -> None:
            await stream(client, model, number, cut_after=draw.uniform(0, 0.05))
        for start in range(0, count, 50):
            await asyncio.gather(*(one(number) for number in range(start, min(start + 50, count))))


def gauge(url: str, name: str) -> float:
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/nano")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--disconnects", type=int, default=500)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    print(machine())
    command = [sys.executable, "-m", "spoutnik.cli", "serve", options.model, "--port", str(options.port), "--json", "--no-page",
               "--max-queue", str(2 * options.clients)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        ready = json.loads(server.stdout.readline())
        url, model = ready["url"].rstrip("/"), ready["models"][0]
        asyncio.run(load(url, model, 4, 2, server.pid))  # wakes everything
        busy, steps = gauge(url, "spoutnik:engine_busy_seconds_total"), gauge(url, "spoutnik:engine_step_seconds_total")
        found = asyncio.run(load(url, model, options.clients, options.seconds, server.pid))
        busy = gauge(url, "spoutnik:engine_busy_seconds_total") - busy
        steps = gauge(url, "spoutnik:engine_step_seconds_total") - steps
        asyncio.run(cut_off(url, model, options.disconnects))
        for _ in range(100):
            left = gauge(url, "spoutnik:num_requests_running") + gauge(url, "spoutnik:num_requests_waiting")
            if not left:
                break
            time.sleep(0.1)
    finally:
        server.terminate()
        server.wait(60)
    rate = found.pop("tokens_per_second")
    print_result({"name": "serve_load", "ours": rate, "limit": rate * options.seconds / steps if steps else None,
                  "unit": "tokens/s", "clients": options.clients, **found, "engine_busy_share": busy / options.seconds,
                  "engine_step_share": steps / options.seconds, "left_running_after_cuts": left})


if __name__ == "__main__":
    main()
