"""Ray: connected to where RAY_ADDRESS says, or started on this machine for as long as it is used; what is missing is said
before anything waits for it."""

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch

from spoutnik.errors import RunError, UserError
from spoutnik.parallel import cores
from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.scale.bounded import within
from spoutnik.scale.gpus import free_gpus, left_for_workers

_QUIET = {"logging_level": "ERROR", "log_to_driver": False}
_STARTS = 3  # Ray gives its own start 30 s and no more, which a machine with other work may not keep
_CONNECT_SECONDS = 120.0  # in which a cluster that is there has answered; Ray itself would ask for ever
_LEAST_STORE = 100 << 20  # bytes of Ray's shared memory, of which it wants about so much


@dataclass(frozen=True)
class Request:
    """What `count` workers take, each on one machine."""

    count: int
    cpus: int
    gpus: int

    @staticmethod
    def of(settings: RolloutSettings) -> "Request":
        return Request(settings.rollout_workers, settings.rollout_cpus, settings.rollout_gpus)

    def __str__(self) -> str:
        return f"{self.count} rollout workers with {_amount(self.cpus, self.gpus)} each"


def ray_module() -> ModuleType:
    """Raises UserError where Ray is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError("scale.rollout_workers: rollout workers run on Ray, which is not installed here. Install it (pip "
                        "install 'spoutnik[ray]'), or leave rollout_workers out: then this process samples.") from error


def refuse_unless_possible(request: Request, device: str) -> None:
    """Before anything runs, and without starting anything. device: on which the run trains.

    Raises:
        UserError: Ray is not installed, or its machines can never hold the workers.
        RunError: RAY_ADDRESS cannot be reached.
    """
    ray = ray_module()
    if ray.is_initialized() or "RAY_ADDRESS" in os.environ:
        with connected(request, 0):
            return
    _refuse_beyond_machine(request, left_for_workers(device))


def _refuse_beyond_machine(request: Request, gpus: int) -> None:
    """gpus: of this machine, that the run does not train on."""
    trained = torch.cuda.device_count() - gpus
    beside = f" beside {_amount_of(trained, 'GPU')} on which the run trains" if trained else ""
    refuse_impossible(request, [(cores(), gpus)], "this machine", beside)


@contextmanager
def connected(request: Request, update_bytes: int, taken: Collection[str] = ()) -> Iterator[ModuleType]:
    """Ray, ready for the workers. update_bytes: the largest thing that is sent to them. taken: GPUs of this machine that they
    may not have, by UUID: hidden from a Ray that is started here.

    Raises:
        UserError: Ray is not installed, or its machines can never hold the workers.
        RunError: RAY_ADDRESS cannot be reached, or Ray does not start.
    """
    ray = ray_module()
    if ray.is_initialized():  # by whoever calls, who also ends it
        refuse_impossible(request, machines(ray), "this Ray cluster")
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    free = free_gpus(taken) if torch.cuda.device_count() else None
    if address is None:
        _refuse_beyond_machine(request, len(free or ()))
    try:
        if address is None:
            with _visible(free):  # twice an update: old and new; and what comes back
                start_here(ray, cores(), 2 * update_bytes + _LEAST_STORE)
        else:
            _connect(ray, address)
    except TimeoutError as error:
        raise RunError(f"nothing at RAY_ADDRESS = {address} answers as Ray's head within {_CONNECT_SECONDS:g} s. Correct the "
                       "address (port 6379 by default), start the cluster, or leave scale.rollout_workers out.") from error
    except Exception as error:  # of many kinds, from Ray and from the system
        where = "on this machine" if address is None else f"at RAY_ADDRESS = {address}"
        remedy = "Free memory, ports or processor time" if address is None else "Correct the address, or start the cluster"
        raise RunError(f"Ray does not start {where}: {str(error).strip().splitlines()[0].rstrip('.')}. {remedy}, or leave "
                       "scale.rollout_workers out.") from error
    try:
        if address is not None:
            refuse_impossible(request, machines(ray), f"the Ray cluster at {address}")
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: ModuleType, address: str) -> None:
    """Raises TimeoutError where nothing there answers: Ray would ask for ever, in C++, so that it is asked in a thread."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # it would warn that a thread cannot handle SIGTERM
    within(_CONNECT_SECONDS, lambda: ray.init(address=address, **_QUIET))
    if threading.current_thread() is threading.main_thread():  # as Ray does there: what has begun is then ended in order
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))


@contextmanager
def _visible(gpus: Sequence[str] | None) -> Iterator[None]:
    """What is started inside it sees these GPUs alone; None: as this process does, which has its own already."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    try:
        yield
    finally:
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        elif gpus is not None:
            del os.environ["CUDA_VISIBLE_DEVICES"]


def start_here(ray: ModuleType, cpus: int, store_bytes: int) -> None:
    """A Ray of this process alone. Its workers have the priority that this process has: by default Ray is nice to all others
    (15), and a machine that has anything else to do leaves such workers next to nothing, while this process waits for them."""
    for attempt in range(_STARTS):
        try:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=store_bytes,
                     _system_config={"worker_niceness": 0}, **_QUIET)
            return
        except Exception as error:  # of no class of its own
            ray.shutdown()
            if "timed out during startup" not in str(error) or attempt == _STARTS - 1:
                raise


def machines(ray: ModuleType) -> list[tuple[float, float]]:
    """(cores, GPUs) of each machine that is alive."""
    return [(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in ray.nodes() if node["Alive"]]


def refuse_impossible(request: Request, machines: list[tuple[float, float]], where: str, beside: str = "") -> None:
    """Ray would wait for ever for what no machine has. beside: what else the machine has, which is not for them.

    Raises:
        UserError: with what is there and what is missing.
    """
    fit = sum(int(min(cpus // request.cpus, gpus // request.gpus if request.gpus else cpus)) for cpus, gpus in machines)
    if fit >= request.count:
        return
    have = _amount(*(sum(amounts) for amounts in zip(*machines))) if machines else "no machine"
    over = f" on {len(machines)} machines" if len(machines) > 1 else ""
    raise UserError(f"scale.rollout_workers: {request} are asked for, and {where} has {have}{beside}{over}, which is room for "
                    f"{fit}. Give at most {fit} rollout_workers" + (", smaller ones" if not fit else "") + ", or a larger "
                    "cluster (RAY_ADDRESS).")


def _amount(cpus: float, gpus: float) -> str:
    return _amount_of(cpus, "core") + (f" and {_amount_of(gpus, 'GPU')}" if gpus else "")


def _amount_of(number: float, name: str) -> str:
    return f"{number:g} {name}" + ("s" if number != 1 else "")
