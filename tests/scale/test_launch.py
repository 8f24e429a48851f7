"""What a process of several says when it cannot even begin."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from scale.worlds import free_port
from torch.distributed import TCPStore

from spoutnik.scale import launch
from spoutnik.scale.launch import Launch, _own_part, launched, run_together


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
    ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "x", "MASTER_PORT": "99999"},
     "rank 1 of 2 on {host}: MASTER_PORT = 99999: must be from 1 to 65535. Give all ranks the same free port"),
    ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "x", "MASTER_PORT": "1", "SPOUTNIK_JOIN_SECONDS": "5m"},
     "SPOUTNIK_JOIN_SECONDS = '5m': must be a whole number. Give seconds, or leave it out (300)."),
])
def test_an_impossible_environment_is_refused(monkeypatch, tmp_path, environment, sentence):
    status, said = told(monkeypatch, tmp_path, **environment)
    assert status == 2 and len(said) == 1 and sentence.format(host=socket.gethostname()) in said[0]


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


def test_a_port_on_which_another_program_listens_is_told_by_those_who_wait_for_rank_0(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "_HANDSHAKE", 0.5)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        status, said = told(monkeypatch, tmp_path, RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert status == 1 and said[0].startswith("rank 1 of 2 on")
    assert f"what listens at 127.0.0.1:{port} does not answer as rank 0 would" in said[0] and "MASTER_PORT" in said[0]


def test_one_process_is_not_several(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not launched()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launched()


def test_processes_meet_whatever_earlier_ones_left_in_the_launchers_store():
    """torchrun's store stays when it starts the processes again, and its agents count differently how often they did."""
    server = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    server.set("spoutnik/hello/1", "of one that is gone")

    def one(rank: int, late: float = 0.0):
        time.sleep(late)
        client = TCPStore("127.0.0.1", server.port, None, False)
        return _own_part(client, Launch(rank, 2, "127.0.0.1", server.port), ["here/0", "here/1"], time.monotonic() + 60)

    for _ in range(2):  # the second time, both begin anew
        with ThreadPoolExecutor(2) as pool:
            late = pool.submit(one, 1, 0.3)
            first, second = pool.submit(one, 0).result(), late.result()
        assert first.check(["here/0", "here/1"]) and not second.check(["failed"])
        first.set("failed", "the disk is full")
        assert second.get("failed") == b"the disk is full"
