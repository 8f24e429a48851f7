"""`spoutnik serve`, `keys` and `history` as a user meets them."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest
from lora_parts import adapter_folder
from typer.testing import CliRunner

from spoutnik.commands.main import app
from spoutnik.errors import UserError
from spoutnik.generation.catalog import list_models
from spoutnik.model.weights import load_model
from spoutnik.serve.server import bind, listen
from spoutnik.serve.settings import Settings
from spoutnik.store import history
from spoutnik.store.history import FILE, History

QUESTION = "What is a zebra made of ?"


def spoutnik(*arguments, **environment):
    """A command in this process: what it says, and its exit status."""
    made = CliRunner().invoke(app, [str(one) for one in arguments], env=environment)
    return SimpleNamespace(stdout=made.stdout, stderr=made.stderr + str(made.exception or ""),
                           returncode=getattr(made.exception, "exit_status", made.exit_code))


@contextlib.contextmanager
def serving(*arguments, log=subprocess.DEVNULL, **environment):
    """A server as a process of its own, and what it says when it is ready."""
    server = subprocess.Popen([sys.executable, "-m", "spoutnik", "serve", *map(str, arguments), "--port", "0", "--json"],
                              stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | environment)
    try:
        yield server, json.loads(server.stdout.readline())
    finally:
        server.kill()
        server.wait()


def ask(url, **fields):
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8} | fields
    return httpx.post(f"{url}/v1/chat/completions?secret=1", json=body, timeout=60)


# ------------------------------------------------------------------------------------------------------------ what is offered

def test_a_run_offers_all_its_models_the_last_one_first(run):
    found = list_models(str(run))
    assert [served.id for served in found] == ["run", "run:base", "run:student_base", "run:midtrained"]
    assert found[0].folder.name.startswith("cold_start") and found[0].max_model_len == 512 and found[0].tokenizer.chat_template
    assert "cold_start" in found[0].about and len({served.folder for served in found}) == len(found)


def test_a_stage_or_a_folder_is_offered_alone(run):
    assert [served.id for served in list_models(str(run), "base")] == ["run:base"]
    folder = list_models(str(run))[0].folder
    assert [(served.id, served.folder) for served in list_models(str(folder))] == [(folder.name, folder)]
    with pytest.raises(UserError, match="no such model"):
        list_models(str(run), "lunch")
    with pytest.raises(UserError, match="there is no folder"):
        list_models("nowhere/at/all")


def test_nothing_named_is_the_newest_run_or_what_ships_with_the_package(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped, student = list_models(None)
    assert shipped.id == "nano" and student.id == "nano:distilled"
    assert shipped.folder.name.startswith("all_scenarios_rl-") and student.folder.name.startswith("distilled-")
    assert all(each.card.description["fr"] and each.card.examples["en"] for each in (shipped, student))
    for age, name in enumerate(["new", "old"]):
        shutil.copytree(run, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "run.json", (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "empty" / "run.json").write_text('{"order": [], "stages": {}}')
    assert list_models(None)[0].id == "new"


def test_what_cannot_be_listened_on_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: something else uses it"):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match="--host 203.0.113.1: is no address of this machine"):
        bind("203.0.113.1", 0)


@pytest.mark.parametrize("hosts", [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_two_servers_cannot_take_one_port(hosts):
    """Not even while the first one still reads its model."""
    with bind(hosts[0], 0) as first, pytest.raises(UserError, match="something else uses it"):
        bind(hosts[1], first.getsockname()[1])


def test_a_unix_socket_is_taken_once_and_removed_at_the_end(tmp_path):
    settings = Settings(uds=tmp_path / "spoutnik.sock")
    with listen(settings):
        with pytest.raises(UserError, match="another server listens there"), listen(settings):
            pass
        assert settings.uds.is_socket()  # the second one has taken nothing away
    assert not settings.uds.exists()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(settings.uds))
    with listen(settings):  # in place of what a killed server left
        pass
    for path in (tmp_path / "none" / "s.sock", tmp_path / ("x" * 200)):
        with pytest.raises(UserError, match="--uds"), listen(Settings(uds=path)):
            pass
    settings.uds.write_text("not a socket")
    with pytest.raises(UserError, match="--uds"), listen(settings):
        pass
    assert settings.uds.read_text() == "not a socket"


# ------------------------------------------------------------------------------------------------------------ the server

@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with open(folder / "log", "w") as log, serving(run, "--data", folder / "data", log=log) as (process, said):
        yield process, said, folder


def test_it_says_where_it_is_and_answers(server):
    _, said, _ = server
    assert said["models"] == ["run", "run:base", "run:student_base", "run:midtrained"] and said["api"] == f"{said['url']}/v1"
    for model in (*said["models"], None):
        assert ask(said["url"], model=model).json()["choices"][0]["message"]["content"]
    assert httpx.get(said["url"]).status_code == 200
    assert "spoutnik:prompt_tokens_total" in httpx.get(f"{said['url']}/metrics").text


def test_at_a_unix_socket_under_other_names_with_a_key_and_a_shorter_context(run, tmp_path):
    path = tmp_path / "spoutnik.sock"
    with serving(run, "--no-page", "--data", tmp_path, "--uds", path, "--served-model-name", "gpt-4o", "--served-model-name",
                 "mine", "--max-model-len", "64", SPOUTNIK_API_KEY="sesame") as (process, said):
        assert said["url"] == f"unix:{path}" and said["models"][0] == "gpt-4o"
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
            assert client.get("/v1/models").status_code == 401
            client.headers["Authorization"] = "Bearer sesame"
            listed = {model["id"]: model["max_model_len"] for model in client.get("/v1/models").json()["data"]}
            assert list(listed)[:2] == ["gpt-4o", "mine"] and listed["mine"] == 64
            body = {"messages": [{"role": "user", "content": "Hi"}], "model": "mine", "max_tokens": 4}
            assert client.post("/v1/chat/completions", json=body).json()["model"] == "gpt-4o"
            too_long = client.post("/v1/completions", json={"prompt": "1 " * 64})
            assert too_long.status_code == 400 and "64" in too_long.json()["error"]["message"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0 and not path.exists()


def test_the_log_names_paths_and_nothing_that_was_said(server):
    _, said, folder = server
    answer = ask(said["url"], seed=1, max_tokens=32).json()["choices"][0]["message"]["content"]
    log = (folder / "log").read_text()
    assert '"POST /v1/chat/completions HTTP/1.1" 200' in log
    assert "secret" not in log and "zebra" not in log and answer not in log


def test_headers_without_end_are_refused(server):
    _, said, _ = server
    assert httpx.get(f"{said['url']}/v1/models", headers={"x": "y" * (80 << 10)}).status_code == 431
    with contextlib.suppress(httpx.NetworkError):  # the connection may break before the answer is read
        assert httpx.get(f"{said['url']}/v1/models", headers={"x": "y" * (900 << 10)}).status_code == 400
    assert httpx.get(f"{said['url']}/health").status_code == 200


def test_a_key_made_while_it_runs_is_asked_for_at_once(server):
    _, said, folder = server
    made = json.loads(spoutnik("keys", "add", "laptop", "--data", str(folder / "data"), "--json").stdout)
    models = f"{said['url']}/v1/models"
    assert httpx.get(models).status_code == 401
    assert httpx.get(models, headers={"Authorization": f"Bearer {made['key']}"}).status_code == 200
    assert spoutnik("keys", "revoke", "laptop", "--data", str(folder / "data")).returncode == 0
    assert httpx.get(models, headers={"Authorization": f"Bearer {made['key']}"}).status_code == 401


def paused(url):
    """Begins a reply that will not end by itself."""
    http = httpx.Client(timeout=60)
    stream = http.send(http.build_request("POST", f"{url}/v1/chat/completions", json={
        "messages": [{"role": "user", "content": QUESTION}], "stream": True, "ignore_eos": True, "seed": 1}), stream=True)
    lines = stream.iter_lines()
    name = json.loads(next(line for line in lines if line.startswith("data:"))[5:])["id"]
    held = http.post(f"{url}/v1/chat/completions/{name}/control", json={"action": "pause"})
    return http, name, lines, held.status_code == 200


def test_a_stop_lets_replies_end_and_a_second_one_does_not(run, tmp_path):
    with serving(run, "--no-page", "--data", tmp_path) as (process, said):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    for _ in range(5):  # the reply may be over before it is paused
        with serving(run, "--no-page", "--data", tmp_path) as (process, said):
            http, name, lines, held = paused(said["url"])
            if not held:
                continue
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            return
    pytest.skip("no reply lasted long enough to be paused")


@pytest.mark.parametrize("arguments, said", [
    (("--host", "0.0.0.0"), "no API key"), (("--require-key",), "--require-key"), (("--stage", "lunch"), "no such model"),
    (("--passphrase",), "nobody to ask"), (("--port", "99999"), "port"), (("--cors-origin", "ui.example"), "is no origin"),
    (("--root-path", "chat"), "begins with /"), (("--root-path", "//evil.example"), "--root-path"),
    (("--api-key", ""), "--api-key"), (("--api-key", "open sesame"), "--api-key: must be one word"),
    (("--served-model-name", " "), "--served-model-name")])
def test_serve_refuses_with_a_sentence(run, tmp_path, arguments, said):
    shown = spoutnik("serve", str(run), "--data", str(tmp_path / "data"), *arguments)
    assert shown.returncode == 2 and said in shown.stderr, shown.stderr


def test_an_adapter_of_other_weights_ends_the_start_in_one_sentence(run, tmp_path):
    folder = list_models(str(run))[0].folder
    adapter_folder(tmp_path / "law", load_model(folder), 1)
    (tmp_path / "law" / "base.json").write_text(json.dumps({"sha256": "0" * 64}))
    command = [sys.executable, "-m", "spoutnik", "serve", str(run), "--port", "0", "--json", "--data", str(tmp_path / "data"),
               "--adapter", f"law={tmp_path / 'law'}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and not ended.stdout
    assert "Traceback" not in ended.stderr and "law: was trained on other weights than this model's" in ended.stderr


# ------------------------------------------------------------------------------------------------------- keys and history

def test_keys_from_the_command_line(tmp_path):
    data = ("--data", str(tmp_path))
    made = spoutnik("keys", "add", "laptop", "--requests-per-minute", "5", *data)
    assert made.stdout.startswith("sk-spoutnik-") and len(made.stdout.split()) == 1 and "cannot be shown again" in made.stderr
    listed = json.loads(spoutnik("keys", "list", "--json", *data).stdout)
    assert [(key["name"], key["revoked"], key["requests_per_minute"]) for key in listed] == [("laptop", False, 5)]
    assert "hash" not in listed[0] and listed[0]["ending"] == made.stdout.strip()[-4:]
    assert "laptop is revoked" in spoutnik("keys", "revoke", "laptop", *data).stdout
    assert "revoked" in spoutnik("keys", "list", *data).stdout
    again = spoutnik("keys", "revoke", "laptop", *data)
    assert again.returncode == 2 and "no key of that name" in again.stderr


def test_history_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "SCRYPT_COST", 2 ** 4)
    data = ("--data", str(tmp_path))
    assert "There is nothing" in spoutnik("history", "show", *data).stderr and not (tmp_path / FILE).exists()
    store = History(tmp_path / FILE, "correct horse")
    name = store.create("Zebras")
    store.append(name, "user", "Who stripes them?")
    refused = spoutnik("history", "show", *data)
    assert refused.returncode == 2 and "is encrypted" in refused.stderr
    phrase = {"SPOUTNIK_PASSPHRASE": "correct horse"}
    assert "Zebras" in spoutnik("history", "show", *data, **phrase).stdout
    assert "Zebras" in spoutnik("history", "show", "--search", "STRÎPES who", *data, **phrase).stdout
    assert "Who stripes them?" in spoutnik("history", "show", name, *data, **phrase).stdout
    assert "none of that id" in spoutnik("history", "show", "lunch", *data, **phrase).stderr
    spoutnik("history", "export", str(tmp_path / "all.jsonl"), *data, **phrase)
    assert json.loads((tmp_path / "all.jsonl").read_text())["messages"][0]["content"] == "Who stripes them?"
    assert (tmp_path / "all.jsonl").stat().st_mode & 0o077 == 0
    printed = spoutnik("history", "export", "--format", "markdown", *data, **phrase).stdout
    assert printed.startswith("# Zebras\n") and "## 1. You\n\nWho stripes them?" in printed
    (tmp_path / "chat_history").write_text("Who stripes them?\n")
    asked = spoutnik("history", "wipe", *data)
    assert asked.returncode == 1 and (tmp_path / FILE).exists()
    assert "It is gone" in spoutnik("history", "wipe", "--yes", *data).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]
    assert "There was nothing" in spoutnik("history", "wipe", "--yes", *data).stdout
