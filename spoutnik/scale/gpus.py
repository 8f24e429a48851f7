"""Which GPU each process of a run computes on: one of its own, or the run is refused before anything begins. Rollout workers
have the others.

Two processes on one GPU would each have half of it, and NCCL, which joins one process to a GPU, fails in the first sum of
gradients with a sentence about ranks and bus numbers. GPUs are told apart by their UUIDs: numbers depend on what each process
sees (CUDA_VISIBLE_DEVICES, `srun --gpus-per-task`).
"""

import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from spoutnik.errors import UserError
from spoutnik.hardware import compute_device
from spoutnik.world import World


@dataclass(frozen=True)
class Seat:
    """Where a process computes. kind: of its device. gpu: the UUID of its GPU, None on a processor. seen: GPUs that it sees."""

    host: str
    kind: str
    gpu: str | None = None
    seen: int = 0


def local_rank(rank: int) -> int:
    """This process's number on its machine, as torchrun or SLURM says. Without them its rank, which is the same modulo GPUs
    where machines are filled one after another."""
    name = next((name for name in ("LOCAL_RANK", "SLURM_LOCALID") if os.environ.get(name, "").isdecimal()), None)
    return rank if name is None else int(os.environ[name])


def take_gpu(rank: int, setting: str) -> None:
    """Makes one of the GPUs that this process sees the one it computes on. setting: the recipe's `device`."""
    if setting != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(local_rank(rank) % torch.cuda.device_count())


def seat(setting: str) -> Seat:
    """Of this process, once it has taken its GPU.

    Raises:
        UserError: the setting names a GPU, and this process sees none.
    """
    device = compute_device(setting)
    if device.type == "cpu":
        return Seat(socket.gethostname(), "cpu")
    return Seat(socket.gethostname(), device.type, gpu_of(device), torch.cuda.device_count())


def gpu_of(device: torch.device) -> str | None:
    """The UUID of a GPU; None of a processor."""
    return None if device.type == "cpu" else str(torch.cuda.get_device_properties(device).uuid)


def seen_gpus() -> tuple[str, ...]:
    """The UUIDs of all GPUs that this process may use, in the order of their numbers."""
    return tuple(gpu_of(torch.device("cuda", number)) for number in range(torch.cuda.device_count()))


def free_gpus(taken: Collection[str]) -> list[str]:
    """Those that this process sees and that are not taken, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
    return [name.strip() for name, gpu in zip(names, seen_gpus()) if gpu not in taken]


def left_for_workers(setting: str) -> int:
    """GPUs of this machine that the processes which train here will not take. setting: the recipe's `device`."""
    count = torch.cuda.device_count()
    if not count or compute_device(setting).type == "cpu":
        return count
    trainers = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(0, count - (int(trainers) if trainers.isdecimal() else 1))


def refuse_shared_gpus(world: World, setting: str) -> None:
    """Raises UserError, on all ranks, where two compute on one GPU, or some on processors and others on GPUs."""
    if ":" in setting:  # refused by itself, where the recipe is read
        return
    if (complaint := complaint_about(world.gather([seat(setting)]))) is not None:
        raise UserError(complaint)


def complaint_about(seats: Sequence[Seat]) -> str | None:
    """What is wrong with where the processes of a run compute; None where nothing is. seats: by rank."""
    other = next((rank for rank, each in enumerate(seats) if each.kind != seats[0].kind), None)
    if other is not None:
        there = {"cpu": "sees no GPU", "cuda": "computes on a GPU"}
        return (f"device: auto: rank 0 on {seats[0].host} {there[seats[0].kind]}, and rank {other} on {seats[other].host} "
                f"{there[seats[other].kind]}. Mend torch or the driver there (nvidia-smi), or write device: cpu in the recipe.")
    first: dict[str, int] = {}
    for rank, each in enumerate(seats):
        if each.gpu is not None and first.setdefault(each.gpu, rank) != rank:
            return _shared(seats, first[each.gpu], rank)
    return None


def _shared(seats: Sequence[Seat], one: int, other: int) -> str:
    host, seen = seats[other].host, seats[other].seen
    count = sum(each.host == host for each in seats)
    what = (f"rank {one} and rank {other} would compute on the same GPU of {host}: {count} processes were started there, and "
            f"each sees {seen} GPU{'s' if seen != 1 else ''}. ")
    if count > seen:
        return what + (f"Start one for each GPU (torchrun: --nproc-per-node {seen}; where CUDA_VISIBLE_DEVICES hides some, "
                       "another one for each process), or write device: cpu in the recipe.")
    return what + "Give each its own number on the machine in LOCAL_RANK, from 0, as torchrun does."
