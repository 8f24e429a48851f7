"""Do real clients believe the server? Starts `spoutnik serve` with a key, as a user would, lets each client of
benchmarks/clients/ do what its users do, and prints what passed.

    python benchmarks/client_conformance.py [--only openai_client] [--model FOLDER] [--cases 5000]

The clients live in an environment of their own (`make peers`: .venv-clients, or the folder that PEERS_CLIENTS names); aider,
whose packages do not go together with theirs, in .venv-aider (or PEERS_AIDER), and is left out where that is missing. The
model: random weights with 8,192 places, so that long prompts of clients fit; what is tried is the form, not the sense.
cases: requests that schemathesis makes up from our own OpenAPI document; none of them may be answered with a 5xx.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import machine, print_result
from random_model import write_checkpoint

from spoutnik.generation.catalog import list_models
from spoutnik.model.config import ModelConfig
from spoutnik.text.tokenizer import Tokenizer

HERE = Path(__file__).parent
CLIENTS = ("openai_client", "langchain", "lm_eval_tasks", "open_webui", "aider_requests", "schemathesis_cases")
SHAPE = {"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 8192}
TIMEOUT = 3600  # seconds for one client


def environment(name: str) -> Path:
    return Path(os.environ.get(f"PEERS_{name.upper()}", HERE.parent / f".venv-{name}")) / "bin"


def random_model(folder: Path) -> Path:
    """Random weights with the vocabulary and the template of the base that ships with the package."""
    tokenizer = Tokenizer.load(list_models(None)[0].folder)
    write_checkpoint(folder, ModelConfig.parse(SHAPE | {"vocab_size": tokenizer.vocab_size}, "the random model"))
    tokenizer.save(folder)
    # Without it, and at temperature 0, random weights say the same for ever, and clients hear of nothing but limits.
    (folder / "generation_config.json").write_text('{"repetition_penalty": 1.3}')
    return folder


@contextlib.contextmanager
def served(model: Path, data: Path) -> Iterator[tuple[str, str, str]]:
    """(URL of the API, a key, the model's name) of a server that runs meanwhile; it must be alive and well at the end."""
    spoutnik = [sys.executable, "-m", "spoutnik"]
    key = json.loads(subprocess.check_output([*spoutnik, "keys", "add", "clients", "--data", data, "--json"]))["key"]
    with open(data / "log", "w") as log:
        server = subprocess.Popen([*spoutnik, "serve", model, "--port", "0", "--json", "--no-page", "--data", data],
                                  stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        ready = json.loads(server.stdout.readline() or sys.exit(f"the server did not start:\n{(data / 'log').read_text()}"))
        yield ready["api"], key, ready["models"][0]
        if server.poll() is not None:
            sys.exit(f"the server died:\n{(data / 'log').read_text()[-3000:]}")
    finally:
        server.terminate()
        server.wait(60)


def ask(client: str, url: str, key: str, model: str, cases: int) -> list[dict]:
    """What one client says: lines of JSON with its versions and its checks."""
    aider = environment("aider") / "aider"
    more = {"CASES": str(cases)} | ({"AIDER": str(aider)} if aider.exists() else {})
    with tempfile.TemporaryFile("w+") as log:
        command = [environment("clients") / "python", HERE / "clients" / f"{client}.py", url, key, model]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=log, timeout=TIMEOUT, env=os.environ | more)
        log.seek(0)
        rest = log.read()
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or any(line.get("passed") is False for line in lines):
        print(rest[-6000:], file=sys.stderr)
    if done.returncode:
        lines.append({"check": "runs to its end", "passed": False, "message": rest[-300:]})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CLIENTS, action="append")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cases", type=int, default=5000)
    options = parser.parse_args()
    if not (environment("clients") / "python").exists():
        sys.exit(f"{environment('clients')}: is not there. Make the clients' environment with `make peers`.")
    print(machine())
    results = {}
    with tempfile.TemporaryDirectory() as name:
        model = options.model or random_model(Path(name) / "nano")
        (Path(name) / "data").mkdir()
        with served(model, Path(name) / "data") as (url, key, model_name):
            for client in options.only or CLIENTS:
                results[client] = ask(client, url, key, model_name, options.cases)
                show(client, results[client])
    checks = [line for lines in results.values() for line in lines if "check" in line]
    facts = {name: value for lines in results.values() for line in lines if "check" not in line
             for name, value in line.items() if name != "versions"}
    versions = {name: value for lines in results.values() for line in lines for name, value in line.get("versions", {}).items()}
    failed = [line["check"] for line in checks if not line["passed"]]
    print_result({"name": "client_conformance", "ours": len(checks) - len(failed), "limit": len(checks), "unit": "checks",
                  "failed": failed, "versions": versions, **facts})
    sys.exit(bool(failed))


def show(client: str, lines: list[dict]) -> None:
    for line in lines:
        if "check" in line:
            print(f"{'pass' if line['passed'] else 'FAIL':<6}{client:<20}{line['check']}", flush=True)
            if not line["passed"]:
                print(f"{'':<26}{line['message']}", flush=True)


if __name__ == "__main__":
    main()
