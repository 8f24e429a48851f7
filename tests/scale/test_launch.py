"""What a process of several says when it cannot even begin."""

import socket

import pytest
from scale.worlds import free_port

from spoutnik.scale.launch import launched, run_together


def told(monkeypatch, tmp_path, **environment) -> tuple[int, list[str]]:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"SPOUTNIK_JOIN_SECONDS": "1"} | environment).items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    status = run_together(lambda: pytest.fail("it began"), lambda: pytest.fail("it began"), {}, 1.0, tmp_path, said.append)
    return status, said


@pytest.mark.parametrize("environment, sentence", [
    ({"WORLD_SIZE": "2"}, "RANK is not set, but WORLD_SIZE = 2. Start all processes with"),
    ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "RANK = 2: must be below WORLD_SIZE = 2"),
    ({"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "WORLD_SIZE = 'two': must be a whole number"),
])
def test_an_impossible_environment_is_refused(monkeypatch, tmp_path, environment, sentence):
    status, said = told(monkeypatch, tmp_path, **environment)
    assert status == 2 and len(said) == 1 and sentence in said[0]


def test_a_port_that_is_taken_is_named(monkeypatch, tmp_path):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = str(other.getsockname()[1])
        status, said = told(monkeypatch, tmp_path, RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert status == 1 and f"port {port} is taken on this machine" in said[0] and "MASTER_PORT" in said[0]


def test_a_rank_0_that_is_not_there_is_missed(monkeypatch, tmp_path):
    port = str(free_port())
    status, said = told(monkeypatch, tmp_path, RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert status == 1 and f"does not reach rank 0 at 127.0.0.1:{port}" in said[0]


def test_one_process_is_not_several(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not launched()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launched()
