"""Fetching models: from a hub on this machine, in programs of their own as a user starts them."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys

import pytest
import tiny
from hub_server import hub_server

from spoutnik.model.weights import save_model

NAME = "org/model"
REPOSITORY = "Qwen/Qwen3-0.6B"  # what `spoutnik models` calls qwen3-0.6b


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small model in Hugging Face layout, with files that must not be fetched."""
    folder = tmp_path_factory.mktemp("published")
    save_model(folder, tiny.model(tiny.LLAMA, vocab_size=300))
    tiny.tokenizer().save(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture
def hub(published):
    with hub_server({NAME: published, REPOSITORY: published}) as server:
        yield server


@pytest.fixture
def spoutnik(hub, tmp_path):
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "spoutnik", *arguments], capture_output=True, text=True, timeout=120,
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1",
                              "HF_HUB_OFFLINE": "0", "COLUMNS": "160"} | environment)
    return run


def test_a_model_is_fetched_once_and_then_needs_no_network(spoutnik, hub, published):
    first = spoutnik("pull", NAME, "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    folder = told["folder"]
    assert told == {"model": NAME, "repository": NAME, "folder": folder, "fetched": True}
    assert "pytorch_model.bin" not in os.listdir(folder)
    with open(os.path.join(folder, "model.safetensors"), "rb") as copy:
        assert copy.read() == (published / "model.safetensors").read_bytes()
    again = spoutnik("pull", NAME, "--json", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert json.loads(again.stdout) == told | {"fetched": False}
    shown = spoutnik("inspect", NAME, "--json", HF_HUB_OFFLINE="1")
    assert json.loads(shown.stdout)["kind"] == "checkpoint"


def test_progress_and_what_to_do_next_are_said(spoutnik):
    done = spoutnik("pull", "qwen3-0.6b")
    assert done.returncode == 0 and "spoutnik chat qwen3-0.6b" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("qwen3-0.6b: ") and " of " in done.stderr
    sizes = done.stderr.splitlines()[-1].removeprefix("qwen3-0.6b: ").split(" of ")
    assert sizes[0] == sizes[1]


def test_a_name_of_the_list_leads_to_what_was_fetched(spoutnik):
    assert spoutnik("pull", "qwen3-0.6b").returncode == 0
    listed = json.loads(spoutnik("models", "--json", HF_HUB_OFFLINE="1").stdout)["models"]
    here = [model["name"] for model in listed if model["folder"]]
    assert here == ["qwen3-0.6b"]
    reply = spoutnik("chat", "qwen3-0.6b", "--max-tokens", "4", "--prompt", "Hello", "--json", HF_HUB_OFFLINE="1")
    assert reply.returncode == 0, reply.stderr


def starts(hub) -> list[int]:
    return [0 if asked is None else int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in hub.ranges]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(spoutnik, hub, published):
    hub.cut_after = [20_000, 10_000]
    assert spoutnik("pull", NAME).returncode == 0
    assert starts(hub) == [0, 20_000, 30_000]


def test_a_hub_that_sends_no_ranges_sends_it_all_again(spoutnik, hub, published):
    hub.sends_ranges, hub.cut_after = False, [20_000, 0]
    folder = json.loads(spoutnik("pull", NAME, "--json").stdout)["folder"]
    assert starts(hub) == [0, 20_000, 0]
    with open(os.path.join(folder, "model.safetensors"), "rb") as copy:
        assert copy.read() == (published / "model.safetensors").read_bytes()


def test_a_fetch_that_was_killed_goes_on_where_it_was(spoutnik, hub, published, tmp_path):
    hub.cut_after = [20_000, *[0] * 3]
    broken = spoutnik("pull", NAME)
    assert broken.returncode == 1 and "Try again, it goes on where it was" in broken.stderr and "Traceback" not in broken.stderr
    hub.cut_after, before = [], len(hub.ranges)
    again = json.loads(spoutnik("pull", NAME, "--json").stdout)
    assert starts(hub)[before:] == [20_000]
    with open(os.path.join(again["folder"], "model.safetensors"), "rb") as copy:
        assert copy.read() == (published / "model.safetensors").read_bytes()
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_what_arrives_damaged_is_thrown_away(spoutnik, hub, published, tmp_path):
    etag = hashlib.sha256((published / "model.safetensors").read_bytes()).hexdigest()
    part = tmp_path / "cache" / "models--org--model" / "blobs" / f"{etag}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"not the first bytes of these weights")
    answer = spoutnik("pull", NAME)
    assert answer.returncode == 1 and "arrived damaged" in answer.stderr and not part.exists()
    assert spoutnik("pull", NAME).returncode == 0


def test_two_programs_do_not_write_one_part(spoutnik, hub, published, tmp_path):
    etag = hashlib.sha256((published / "model.safetensors").read_bytes()).hexdigest()
    part = tmp_path / "cache" / "models--org--model" / "blobs" / f"{etag}.part"
    part.parent.mkdir(parents=True)
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = spoutnik("pull", NAME)
    assert answer.returncode == 1 and "another program is fetching it" in answer.stderr


@pytest.mark.parametrize("name, words", [
    ("org/none", "the hub has no such model"), ("nonsense", "`spoutnik models`"), ("org/../model", "`spoutnik models`")])
def test_what_is_not_there_is_answered_with_a_sentence(spoutnik, name, words):
    answer = spoutnik("pull", name)
    assert answer.returncode == 2 and words in answer.stderr and "Traceback" not in answer.stderr


def test_without_a_hub_it_says_what_is_missing(spoutnik):
    answer = spoutnik("pull", NAME, HF_ENDPOINT="http://127.0.0.1:9")
    assert answer.returncode == 1 and "the hub cannot be reached" in answer.stderr and "Traceback" not in answer.stderr


def test_a_repository_of_pickles_alone_is_refused(spoutnik, hub, tmp_path):
    folder = tmp_path / "pickles"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    hub.repositories["org/pickles"] = folder
    answer = spoutnik("pull", "org/pickles")
    assert answer.returncode == 1 and "safetensors" in answer.stderr
