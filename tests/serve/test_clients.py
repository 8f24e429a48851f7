"""Clients of others do here what their users do. Needs their environment (`make peers`, or PEERS_CLIENTS=its folder) and is
skipped without it; `benchmarks/client_conformance.py` tries more of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = Path(os.environ.get("PEERS_CLIENTS", ROOT / ".venv-clients"))


@pytest.mark.skipif(not (CLIENTS / "bin" / "python").exists(), reason=f"no clients' environment at {CLIENTS}: make peers")
def test_clients_of_others_believe_the_server():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "client_conformance.py", "--only", "openai_3", "--only",
                           "langchain", "--only", "open_webui"], capture_output=True, text=True, timeout=600,
                          env=os.environ | {"PEERS_CLIENTS": str(CLIENTS)})
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failed"] == [] and report["ours"] == report["limit"] > 40
