"""Many clients at once on a server with a small model: errors, starvation, memory, and what serving costs beside the engine.

    python benchmarks/serve_load.py [--model runs/nano] [--clients 200] [--seconds 60] [--tokens 384] [--disconnects 500]

Starts `spoutnik serve` as a user would and streams chat completions from so many clients without a pause: first problems of
the model's world, whose replies are as long as they come (some 60 tokens), then replies of --tokens each. Then it begins and
cuts off so many streams at random moments. Wanted: no error, no client without an answer, memory flat, overhead per token under
5 % of the engine's time, nothing left running after the cuts.

Processor time is what counts, since clients and whatever else runs share the cores: of the server's, what was not spent in the
engine's steps (by the thread that computes and the native kernels' own) is overhead. `engine alone` (the peer) is LLM.generate
with the same prompts, as many at a time, in a process of its own.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from common import machine, print_result

TICK = os.sysconf("SC_CLK_TCK")
CONTROLS = {"temperature": 0.6, "top_p": 0.95}
MAX_TOKENS = 384  # tokens of a reply that ends by itself


def resident(pid: int) -> int:
    """Bytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def ticks(stat: Path) -> float:
    """Processor seconds from a file of /proc."""
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def processor_seconds(pid: int) -> dict[str, float]:
    """A server's so far: all of it, the thread of the event loop (the first one), the native kernels' own threads."""
    team = sum(ticks(task / "stat") for task in Path(f"/proc/{pid}/task").iterdir()
               if (task / "comm").read_text().strip() == "spoutnik-pool")
    return {"all": ticks(Path(f"/proc/{pid}/stat")), "loop": ticks(Path(f"/proc/{pid}/task/{pid}/stat")), "team": team}


def questions(count: int) -> list[str]:
    """Of all families, in turn."""
    from spoutnik.evals.protocol import held_out_problems
    from spoutnik.tasks import FAMILIES
    problems = held_out_problems([FAMILIES[name] for name in sorted(FAMILIES)], -(-count // len(FAMILIES)))
    each = len(problems) // len(FAMILIES)
    return [problems[family * each + place].prompt for place in range(each) for family in range(len(FAMILIES))][:count]


def bodies(model: str, prompts: list[str], tokens: int | None) -> list[dict]:
    """tokens: of each reply; None: as they come."""
    length = {"max_tokens": MAX_TOKENS} if tokens is None else {"max_tokens": tokens, "ignore_eos": True}
    return [{"model": model, "messages": [{"role": "user", "content": question}], "stream": True, "seed": number,
             "stream_options": {"include_usage": True}, **CONTROLS, **length} for number, question in enumerate(prompts)]


def engine_alone(model: str, prompts: list[str], clients: int, tokens: int | None) -> dict:
    """In a process of its own: tokens, seconds and processor seconds of LLM.generate."""
    request = {"model": model, "prompts": prompts, "clients": clients, "tokens": tokens}
    completed = subprocess.run([sys.executable, __file__, "--alone"], input=json.dumps(request), text=True, capture_output=True)
    if completed.returncode:
        sys.exit(completed.stderr)
    return json.loads(completed.stdout.splitlines()[-1])


def compute_alone() -> None:
    from spoutnik import LLM, SamplingParams
    request = json.load(sys.stdin)
    llm = LLM(request["model"], max_num_seqs=request["clients"])
    prompts = [llm.tokenizer.chat_ids([{"role": "user", "content": question}]) for question in request["prompts"]]
    length = {"max_tokens": request["tokens"] or MAX_TOKENS, "ignore_eos": request["tokens"] is not None}
    params = [SamplingParams(seed=number, **length, **CONTROLS) for number in range(len(prompts))]
    llm.generate(prompts[:8], params[:8])  # wakes everything
    began, cpu = time.perf_counter(), time.process_time()
    outputs = llm.generate(prompts, params)
    print(json.dumps({"tokens": sum(len(output.outputs[0].token_ids) for output in outputs),
                      "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}))


class Server:
    """`spoutnik serve` in a process of its own."""

    def __init__(self, model: str, port: int, clients: int):
        command = [sys.executable, "-m", "spoutnik", "serve", model, "--port", str(port), "--json", "--no-page",
                   "--max-queue", str(2 * clients)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ready = json.loads(self.process.stdout.readline())
        self.port, self.url, self.model = port, ready["url"].rstrip("/"), ready["models"][0]

    def ask(self, **request) -> dict:
        """The clients' side, in a process of its own."""
        client = Path(__file__).parent / "streaming_client.py"
        parameters = json.dumps({"host": "127.0.0.1", "port": self.port, **request})
        completed = subprocess.run([sys.executable, client], input=parameters, text=True, stdout=subprocess.PIPE, check=True)
        return json.loads(completed.stdout)

    def figure(self, name: str) -> float:
        """Of /metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            text = answer.read().decode()
        return sum(map(float, re.findall(rf"^spoutnik:{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)))

    def spent(self) -> dict[str, float]:
        names = ("engine_busy_seconds_total", "engine_step_seconds_total", "engine_cpu_seconds_total",
                 "engine_step_cpu_seconds_total", "engine_steps_total")
        return processor_seconds(self.process.pid) | {name: self.figure(name) for name in names}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class Memory(threading.Thread):
    """Looks every half second."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.seen, self.over = pid, [], threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.5):
            self.seen.append(resident(self.pid))

    def growth(self) -> tuple[int, int]:
        """The last, and how much more the second half had than the first."""
        self.over.set()
        half = len(self.seen) // 2
        return self.seen[-1], max(self.seen[half:]) - max(self.seen[:half])


def measure(server: Server, options: argparse.Namespace, prompts: list[str], tokens: int | None) -> dict:
    alone = engine_alone(options.model, prompts[:(5 if tokens is None else 2) * options.clients], options.clients, tokens)
    requests = bodies(server.model, prompts, tokens)
    server.ask(bodies=requests, clients=options.clients, seconds=2)  # wakes everything
    before, memory = server.spent(), Memory(server.process.pid)
    load = server.ask(bodies=requests, clients=options.clients, seconds=options.seconds)
    spent = {name: value - before[name] for name, value in server.spent().items()}
    last, growth = memory.growth()
    return {"name": f"serve_load, {'replies as they come' if tokens is None else f'replies of {tokens} tokens'}"} \
        | costs(load, spent, alone) | {name: load[name] for name in (
            "replies", "errors", "first_error", "fewest_of_a_client", "seconds_to_first_event", "longest_wait",
            "seconds_of_a_reply")} | {"memory_mb": last / 1e6, "memory_growth_mb": growth / 1e6}


def costs(load: dict, spent: dict, alone: dict) -> dict:
    """Microseconds of processor time for each generated token, and shares."""
    tokens, seconds = load["tokens"], load["seconds"]
    steps = spent["engine_step_cpu_seconds_total"] + spent["team"]
    thread = spent["engine_cpu_seconds_total"] - spent["engine_step_cpu_seconds_total"]
    parts = {"engine_steps": steps, "engine_thread_besides": thread, "event_loop": spent["loop"],
             "other_threads": spent["all"] - steps - thread - spent["loop"], "server": spent["all"],
             "clients": load["client_cpu_seconds"]}
    each = {f"us_{name}": 1e6 * value / tokens for name, value in parts.items()}
    engine = 1e6 * alone["cpu_seconds"] / alone["tokens"]
    overhead, replies = spent["all"] - steps, max(load["replies"], 1)
    return {"ours": tokens / seconds, "peer": alone["tokens"] / alone["seconds"], "unit": "tokens/s",
            "tokens_of_a_reply": tokens / replies, "events_of_a_reply": load["events"] / replies,
            **each, "us_engine_alone": engine, "overhead_over_steps": overhead / steps,
            "overhead_over_engine_alone": 1e6 * overhead / tokens / engine,
            "us_overhead_of_a_reply": 1e6 * overhead / replies,
            "cores_server": spent["all"] / seconds, "cores_clients": load["client_cpu_seconds"] / seconds,
            "engine_busy_share": spent["engine_busy_seconds_total"] / seconds,
            "engine_step_share": spent["engine_step_seconds_total"] / seconds,
            "rows_of_a_step": tokens / max(spent["engine_steps_total"], 1)}


def cut_off(server: Server, options: argparse.Namespace, prompts: list[str]) -> dict:
    server.ask(bodies=bodies(server.model, prompts, options.tokens), clients=50, cuts=options.disconnects)
    for _ in range(100):
        left = server.figure("num_requests_running") + server.figure("num_requests_waiting") + server.figure("replies_live")
        if not left:
            break
        time.sleep(0.1)
    return {"name": "serve_load, disconnects", "ours": left, "unit": "left running", "cut_off": options.disconnects}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/nano")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=384, help="of each reply in the second part")
    parser.add_argument("--disconnects", type=int, default=500)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    print(machine())
    prompts = questions(8 * options.clients)
    server = Server(options.model, options.port, options.clients)
    try:
        results = [measure(server, options, prompts, tokens) for tokens in (None, options.tokens)]
        results.append(cut_off(server, options, prompts))
    finally:
        server.stop()
    print_result(results)


if __name__ == "__main__":
    compute_alone() if sys.argv[1:] == ["--alone"] else main()
