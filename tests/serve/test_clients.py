"""Clients of others do here what their users do. Needs their environment (`make clients`, or PEERS_CLIENTS=its folder) and is
skipped without it; `benchmarks/client_conformance.py` tries more of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = Path(os.environ.get("PEERS_CLIENTS", ROOT / ".venv-clients"))
TRIED = ["openai_3", "anthropic", "ollama", "langchain", "open_webui", *(["curl"] if shutil.which("curl") else [])]


@pytest.mark.skipif(not (CLIENTS / "bin" / "python").exists(), reason=f"no clients' environment at {CLIENTS}: make clients")
def test_clients_of_others_believe_the_server():
    only = [word for name in TRIED for word in ("--only", name)]
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "client_conformance.py", *only], timeout=900,
                          capture_output=True, text=True, env=os.environ | {"PEERS_CLIENTS": str(CLIENTS)})
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["table"].keys() == set(TRIED) and report["failed"] == [] and report["ours"] == report["limit"] > 100
