"""Who computes: the code, kernels and versions that decide the bits of a worker's tokens."""

import os
import platform
from collections.abc import Collection
from dataclasses import dataclass

import torch

import spoutnik
from spoutnik.native import describe
from spoutnik.scale.launch import code_hash


@dataclass(frozen=True)
class Identity:
    """A process that samples. code: a hash of the package's sources; kernels: the instructions of its kernels; gpus: the UUIDs
    of those that it was given."""

    version: str
    code: str
    torch: str
    kernels: str
    host: str
    pid: int
    gpus: tuple[str, ...] = ()


def identity(gpus: tuple[str, ...] = ()) -> Identity:
    """Of this process."""
    kernels = describe()
    return Identity(spoutnik.__version__, code_hash(), torch.__version__, kernels.instructions or "plain PyTorch",
                    platform.node(), os.getpid(), gpus)


def refusal_of(worker: Identity, here: Identity) -> str | None:
    """Why a worker cannot serve this process, in a sentence; None where it can."""
    for what, theirs, ours in (("spoutnik", f"{worker.version} ({worker.code})", f"{here.version} ({here.code})"),
                               ("torch", worker.torch, here.torch)):
        if theirs != ours:
            return (f"on {worker.host} a rollout worker runs {what} {theirs}, and this process {ours}: the same seed would "
                    "give other tokens. Install the same version on every machine, and leave it as it is while a run goes on.")
    return None


def shared_gpu(worker: Identity, taken: Collection[str]) -> str | None:
    """Why a worker cannot stay where it is: on one of the GPUs on which the run trains (`taken`)."""
    if not set(worker.gpus) & set(taken):
        return None
    return (f"on {worker.host} Ray gave a rollout worker the GPU on which this run trains: both would fill its memory. Leave "
            "it out of what Ray has there (CUDA_VISIBLE_DEVICES=1,2,... ray start ..., where the run trains on GPU 0).")


def other_kernels(worker: Identity, here: Identity) -> str | None:
    """A warning where a worker's processor rounds otherwise."""
    if worker.kernels == here.kernels:
        return None
    return (f"the kernels of the rollout worker on {worker.host} are of {worker.kernels}, those here of {here.kernels}: its "
            "tokens are right, and a run repeats to the byte only where the same machines sample.")
