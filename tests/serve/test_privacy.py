"""Once a model is read, nothing of it, and nothing that is asked, goes anywhere."""

import json
import os
import re
import subprocess
import sys

import httpx
import pytest

# Where a library could be told to send what it sees.
TELEMETRY = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://203.0.113.1:4318",
             "OTEL_TRACES_EXPORTER": "otlp", "HF_HUB_OFFLINE": "0"}
# The server with a watch on every address that Python connects to, sends to or looks up.
WATCHED = """
import ipaddress, sys
seen = open(sys.argv.pop(1), "a", buffering=1)

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
                 "socket.gethostbyaddr", "urllib.Request"):
        address = arguments[0] if event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request") else arguments[1]
        name = address[0] if isinstance(address, tuple) else address
        try:
            outside = not ipaddress.ip_address(name).is_loopback
        except ValueError:
            outside = name not in ("localhost", None)
        seen.write(f"{'OUTSIDE' if outside else 'inside'} {event} {address}\\n")

sys.addaudithook(watch)
from spoutnik.commands.main import main
main()
"""
# A network of its own that has nothing but the loopback, in which the server is started and used.
ALONE = """
import fcntl, json, socket, struct, subprocess, sys
with socket.socket() as lo:
    fcntl.ioctl(lo, 0x8914, struct.pack("16sh22x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
try:
    socket.create_connection(("203.0.113.1", 80), 1)
    sys.exit("this network reaches others")
except OSError:
    pass
server = subprocess.Popen([sys.executable, "-m", "spoutnik", *sys.argv[2:]], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL)  # it may outlive this process: who reads our errors must not wait for it
sys.path.insert(0, sys.argv[1])
from test_privacy import use
try:
    print(json.dumps(use(json.loads(server.stdout.readline())["url"])))
finally:
    server.kill()
"""


def use(url):
    """The page with all that it loads, an answer, a stream. Returns how much there was of each."""
    with httpx.Client(base_url=url, timeout=60) as http:
        page = http.get("/").text
        parts = {part for part in re.findall(r'(?:src|href|from|import)[=\s]+"([^"]+)"', page) if not part.startswith("data:")}
        parts |= set(re.findall(r'": ?"(/[^"]+\.(?:m?js|css))"', page))
        outside = [part for part in parts if re.match(r"(https?:)?//", part)]
        assert not outside, f"the page loads from elsewhere: {outside}"
        for part in parts:
            if part.startswith("/"):
                http.get(part).raise_for_status()
        body = {"messages": [{"role": "user", "content": "What is 3 + 4 ?"}], "max_tokens": 8}
        answer = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        stream = http.post("/v1/chat/completions", json=body | {"stream": True}).text
        http.get("/metrics").raise_for_status()
    return [len(parts), len(answer), stream.count("data:")]


def test_no_library_calls_anybody_from_start_to_end(run, tmp_path):
    seen = tmp_path / "seen"
    server = subprocess.Popen([sys.executable, "-c", WATCHED, seen, "serve", run, "--port", "0", "--json", "--data", tmp_path],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | TELEMETRY)
    try:
        counts = use(json.loads(server.stdout.readline())["url"])
        server.terminate()
        assert server.wait(60) == 0
    finally:
        server.kill()
        log = server.communicate()[1]
    assert "telemetry" not in log
    assert all(counts) and "inside socket.getaddrinfo" in seen.read_text()  # so the watch was awake
    assert "OUTSIDE" not in seen.read_text()


def test_a_machine_without_network_is_enough(run, tmp_path):
    alone = ["unshare", "--map-root-user", "--net"]
    try:
        allowed = subprocess.run([*alone, "true"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine: a network namespace cannot be made")
    if allowed.returncode:
        pytest.skip(f"this machine lets nobody make a network namespace: {allowed.stderr.decode().strip()}")
    done = subprocess.run([*alone, sys.executable, "-c", ALONE, os.path.dirname(__file__), "serve", run, "--port", "0",
                           "--json", "--data", tmp_path], capture_output=True, text=True, timeout=120,
                          env=os.environ | TELEMETRY)
    assert done.returncode == 0, done.stderr
    assert all(json.loads(done.stdout))
