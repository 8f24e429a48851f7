"""Do real clients believe the server? Starts `spoutnik serve` with a key, as a user would, lets each client of
benchmarks/clients/ do what its users do, and prints what passed, client by kind of check.

    python benchmarks/client_conformance.py [--only openai_3]... [--model FOLDER] [--cases 5000]

The clients live in environments of their own, which `make clients` makes (and `make peers`): .venv-clients,
.venv-clients-older (older ones that are still in use), .venv-aider, and benchmarks/clients/node/node_modules (with a Node.js of
its own). PEERS_CLIENTS, PEERS_CLIENTS_OLDER and PEERS_AIDER name other folders. Java (11 or newer) and curl are the system's.
A client that is not there has not passed: it is named, and the exit status is 1.

The model: random weights with 8,192 places, so that long prompts of clients fit; what is tried is the form, not the sense.
Beside the plain server run altered ones (clients/altered_server.py): one that is slow, one whose model calls tools by itself,
one with a short context for schemathesis. cases: requests that schemathesis makes up from our own OpenAPI document; none of
them may be answered with a 5xx.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import machine, print_result
from random_model import write_checkpoint

from spoutnik.generation.catalog import list_models
from spoutnik.model.config import ModelConfig
from spoutnik.text.tokenizer import Tokenizer

HERE = Path(__file__).parent
SCRIPTS = HERE / "clients"
KINDS = ("chat", "stream", "tools", "structured", "thought", "error", "slow")
SHAPE = {"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 8192}
TIMEOUT = 3600  # seconds for one client


def environment(name: str) -> Path:
    variable = f"PEERS_{name.upper().replace('-', '_')}"
    return Path(os.environ.get(variable, HERE.parent / f".venv-{name}")) / "bin"


@dataclass(frozen=True)
class Client:
    """program: what runs it. script: in clients/, called with the API's URL, a key and a model's name. Says a line of JSON for
    each check. needs: another file that must be there."""

    program: Path
    script: str
    needs: Path | None = None

    @property
    def missing(self) -> str | None:
        """What is not there, in words."""
        for path in (self.program, self.needs):
            if path is not None and not shutil.which(path):
                return f"{path}: is not there. " + ("Install it." if path.parent == Path() else "Make it with `make clients`.")
        return None


PYTHON, OLDER = environment("clients") / "python", environment("clients-older") / "python"
NODE = SCRIPTS / "node" / "node_modules" / ".bin" / "node"
AIDER = environment("aider") / "aider"
CLIENTS = {
    "openai_3": Client(PYTHON, "openai_client.py"), "openai_2": Client(OLDER, "openai_client.py"),
    "openai_node": Client(NODE, "node/openai_node.mjs"),
    "anthropic": Client(PYTHON, "anthropic_client.py"), "anthropic_older": Client(OLDER, "anthropic_client.py"),
    "anthropic_node": Client(NODE, "node/anthropic_node.mjs"),
    "ollama": Client(PYTHON, "ollama_client.py"), "ollama_node": Client(NODE, "node/ollama_node.mjs"),
    "litellm": Client(PYTHON, "litellm_client.py"), "instructor": Client(OLDER, "instructor_client.py"),
    "pydantic_ai": Client(PYTHON, "pydantic_ai_client.py"), "openai_agents": Client(PYTHON, "openai_agents_client.py"),
    "langchain": Client(PYTHON, "langchain.py"), "langchain_others": Client(PYTHON, "langchain_others.py"),
    "langchain_node": Client(NODE, "node/langchain_node.mjs"), "ai_sdk": Client(NODE, "node/ai_sdk.mjs"),
    "java": Client(Path("java"), "JavaClient.java"), "curl": Client(PYTHON, "curl_client.py", Path("curl")),
    "lm_eval": Client(PYTHON, "lm_eval_tasks.py"), "open_webui": Client(PYTHON, "open_webui.py"),
    "aider": Client(PYTHON, "aider_requests.py", AIDER), "schemathesis": Client(PYTHON, "schemathesis_cases.py"),
}


def random_model(folder: Path) -> Path:
    """Random weights with the vocabulary and the template of a model that ships with the package."""
    tokenizer = Tokenizer.load(list_models(None)[0].folder)
    write_checkpoint(folder, ModelConfig.parse(SHAPE | {"vocab_size": tokenizer.vocab_size}, "the random model"))
    tokenizer.save(folder)
    # Without it, and at temperature 0, random weights say the same for ever, and clients hear of nothing but limits.
    (folder / "generation_config.json").write_text('{"repetition_penalty": 1.3}')
    return folder


@contextlib.contextmanager
def running(command: list[str | Path], log_path: Path) -> Iterator[dict]:
    """What a server says when it is ready; it must be alive and well at the end."""
    with open(log_path, "w") as log:
        server = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield json.loads(server.stdout.readline() or sys.exit(f"the server did not start:\n{log_path.read_text()}"))
        if server.poll() is not None:
            sys.exit(f"the server died:\n{log_path.read_text()[-3000:]}")
    finally:
        server.terminate()
        server.wait(60)


@contextlib.contextmanager
def served(model: Path, data: Path, kinds: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Arguments (URL of the API, a key, the model's name) and environment of the clients' scripts, while the servers run.
    kinds: of the altered ones."""
    spoutnik = ["-m", "spoutnik"]
    key = json.loads(subprocess.check_output([sys.executable, *spoutnik, "keys", "add", "clients", "--data", data, "--json"]))
    plain = [*spoutnik, "serve", model, "--port", "0", "--json", "--no-page", "--data", data]
    with contextlib.ExitStack() as servers:
        ready = servers.enter_context(running(plain, data / "log"))
        urls = {}
        for kind in kinds:
            altered = running([SCRIPTS / "altered_server.py", kind, model, data], data / f"{kind}.log")
            urls[f"{kind.upper()}_URL"] = servers.enter_context(altered)["api"]
        arguments = [ready["api"], key["key"], ready["models"][0]]
        yield arguments, urls | {"AIDER": str(AIDER), "THINKS": str(int(thinks(*arguments)))}


def thinks(url: str, key: str, model: str) -> bool:
    body = {"model": model, "messages": [{"role": "user", "content": "What is 12 + 30?"}], "max_tokens": 60}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)) as reply:
        return bool(json.load(reply)["choices"][0]["message"].get("reasoning_content"))


def ask(client: Client, arguments: list[str], variables: dict[str, str]) -> list[dict]:
    """What one client says: lines of JSON with its versions and its checks."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        try:
            status = subprocess.run([client.program, SCRIPTS / client.script, *arguments], stdout=out, stderr=log,
                                    timeout=TIMEOUT, env=os.environ | variables).returncode
        except subprocess.TimeoutExpired:
            status = f"not done after {TIMEOUT} s"
        out.seek(0)
        log.seek(0)
        lines, rest = [json.loads(line) for line in out if line.startswith("{")], f"{log.read()}\nexit: {status}"
    if status or any(line.get("passed") is False for line in lines):
        print(rest[-6000:], file=sys.stderr)
    if status:
        lines.append({"check": "chat: runs to its end", "passed": False, "message": rest[-300:]})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CLIENTS, action="append")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cases", type=int, default=5000)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped, too
    chosen = {name: CLIENTS[name] for name in options.only or CLIENTS}
    missing = {name: client.missing for name, client in chosen.items() if client.missing}
    print(machine())
    results = {}
    with tempfile.TemporaryDirectory() as name:
        model = options.model or random_model(Path(name) / "nano")
        data = Path(name) / "data"
        data.mkdir()
        altered = ["slow", "eager"] if chosen.keys() - {"schemathesis"} else []
        with served(model, data, [*altered, *(["brief"] if "schemathesis" in chosen else [])]) as (arguments, variables):
            for client in (client for client in chosen if client not in missing):
                results[client] = ask(chosen[client], arguments, variables | {"CASES": str(options.cases)})
                show(client, results[client])
    table = {client: row(lines) for client, lines in results.items()}
    show_table(table, missing)
    checks = [line | {"client": client} for client, lines in results.items() for line in lines if "passed" in line]
    facts = {name: value for lines in results.values() for line in lines if "check" not in line
             for name, value in line.items() if name != "versions"}
    versions = {client: {name: value for line in lines for name, value in line.get("versions", {}).items()}
                for client, lines in results.items()}
    failed = [f"{line['client']}, {line['check']}" for line in checks if not line["passed"]]
    print_result({"name": "client_conformance", "ours": len(checks) - len(failed), "limit": len(checks), "unit": "checks",
                  "failed": failed, "missing": missing, "table": table, "versions": versions, **facts})
    sys.exit(bool(failed or missing))


def show(client: str, lines: list[dict]) -> None:
    for line in lines:
        if "check" in line:
            verdict = "skip" if "skipped" in line else "pass" if line["passed"] else "FAIL"
            print(f"{verdict:<6}{client:<18}{line['check']}", flush=True)
            if verdict != "pass":
                print(f"{'':<24}{line.get('skipped') or line['message']}", flush=True)


def row(lines: list[dict]) -> dict[str, str]:
    """Of each kind of check, how many passed of how many."""
    cells = {}
    for kind in KINDS:
        passed = [line["passed"] for line in lines if line.get("check", "").partition(":")[0] == kind and "passed" in line]
        if passed:
            cells[kind] = f"{sum(passed)}/{len(passed)}"
    return cells


def show_table(table: dict[str, dict[str, str]], missing: dict[str, str]) -> None:
    print("\n" + "".join(f"{name:<18}" if not name else f"{name:>12}" for name in ("", *KINDS)))
    for client, cells in table.items():
        print(f"{client:<18}" + "".join(f"{cells.get(kind, '-'):>12}" for kind in KINDS))
    for client, reason in missing.items():
        print(f"{client:<18}    NOT TRIED: {reason}")
    print()


if __name__ == "__main__":
    main()
