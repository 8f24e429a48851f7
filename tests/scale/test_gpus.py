"""Each process of a run has a GPU of its own, or is refused; told from what processes say of themselves, without any GPU."""

from dataclasses import dataclass

import pytest
import torch

from spoutnik.errors import UserError
from spoutnik.scale import gpus
from spoutnik.scale.gpus import Seat, complaint_about, local_rank, refuse_shared_gpus, take_gpu


def node(host: str, names: str, seen: int) -> list[Seat]:
    return [Seat(host, "cuda", f"{host}-{name}", seen) for name in names]


def test_one_process_for_each_gpu_is_right_on_any_number_of_machines():
    assert complaint_about([*node("a", "0123", 4), *node("b", "0123", 4)]) is None
    assert complaint_about(node("a", "0123", 1)) is None  # each sees another one, as after srun --gpus-per-task=1
    assert complaint_about([Seat("a", "cpu"), Seat("a", "cpu")]) is None


def test_more_processes_than_gpus_are_refused_with_their_numbers():
    complaint = complaint_about([*node("a", "01", 2), *node("b", "0101", 2)])
    assert complaint.startswith("rank 2 and rank 4 would compute on the same GPU of b: 4 processes were started there, and "
                                "each sees 2 GPUs. Start one for each GPU (torchrun: --nproc-per-node 2;")


def test_processes_that_are_numbered_wrongly_are_told_so():
    assert complaint_about(node("a", "0202", 4)).endswith(
        "4 processes were started there, and each sees 4 GPUs. Give each its own number on the machine in LOCAL_RANK, from 0, "
        "as torchrun does.")


def test_a_machine_whose_gpus_cannot_be_seen_is_named():
    complaint = complaint_about([*node("a", "01", 2), Seat("b", "cpu"), Seat("b", "cpu")])
    assert complaint.startswith("device: auto: rank 0 on a computes on a GPU, and rank 2 on b sees no GPU. Mend torch or")


@pytest.mark.parametrize("environment, expected", [
    ({"LOCAL_RANK": "3", "SLURM_LOCALID": "5"}, 3), ({"SLURM_LOCALID": "5"}, 5), ({}, 9)])
def test_the_number_on_a_machine_is_the_launchers(monkeypatch, environment, expected):
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert local_rank(9) == expected


def test_a_gpu_is_taken_by_its_number_and_none_where_the_recipe_computes_on_processors(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "6")
    take_gpu(14, "auto")
    take_gpu(14, "cpu")
    assert taken == [2]


def test_all_ranks_hear_of_it_before_anything_begins(monkeypatch):
    @dataclass
    class Two:
        def gather(self, values):
            return values * 2

    monkeypatch.setattr(gpus, "seat", lambda setting: Seat("a", "cuda", "one", 1))
    with pytest.raises(UserError, match="rank 0 and rank 1 would compute on the same GPU of a"):
        refuse_shared_gpus(Two(), "auto")
    refuse_shared_gpus(Two(), "cuda:1")
