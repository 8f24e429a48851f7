"""A run of several processes: how they find each other, what they compare before anything begins, and how all end when one
does.

torchrun (or srun, or whoever sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT) starts the processes. Rank 0 runs the recipe,
the others follow. Whatever ends one of them ends all in bounded time: an error is told by who has it, a process that was killed
is missed by its connection, and one that hangs by its pulse (`watch.py`).
"""

import contextlib
import hashlib
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from uuid import uuid4

import torch

import spoutnik
from spoutnik.errors import RunError, UserError, is_out_of_memory
from spoutnik.parallel import cores
from spoutnik.scale.bounded import within
from spoutnik.scale.gpus import refuse_shared_gpus, take_gpu
from spoutnik.scale.watch import Watch
from spoutnik.world import LostRank, World, exchanging, started_in

_HANDSHAKE = 5.0  # seconds in which a store answers to whoever has reached it
NO_LIMIT = timedelta(days=365)  # of one exchange: a rank may sample for hours; `Watch` finds those that hang


def launched() -> bool:
    """Whether this process is one of several."""
    return _number("WORLD_SIZE", 1) > 1


def rank() -> int:
    return _number("RANK", 0)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        remedy = ("Give seconds, or leave it out (300)." if name == "SPOUTNIK_JOIN_SECONDS" else
                  "torchrun sets it: start with torchrun, or leave it out.")
        raise UserError(f"{name} = {text!r}: must be a whole number. {remedy}")
    return int(text)


@dataclass(frozen=True)
class Launch:
    """What torchrun, or whoever started the processes, says of this one."""

    rank: int
    size: int
    address: str
    port: int

    @staticmethod
    def from_environment() -> "Launch":
        """Raises UserError where something is missing or impossible."""
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise UserError(f"{missing[0]} is not set, but WORLD_SIZE = {os.environ.get('WORLD_SIZE')}. Start all processes "
                            "with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each.")
        launch = Launch(_number("RANK", 0), _number("WORLD_SIZE", 1), os.environ["MASTER_ADDR"], _number("MASTER_PORT", 0))
        if launch.rank >= launch.size:
            raise UserError(f"RANK = {launch.rank}: must be below WORLD_SIZE = {launch.size}. Number the processes from 0.")
        if not 0 < launch.port < 65536:
            raise UserError(f"{launch.name}: MASTER_PORT = {launch.port}: must be from 1 to 65535. Give all ranks the same "
                            "free port of rank 0's machine.")
        return launch

    @property
    def name(self) -> str:
        return f"rank {self.rank} of {self.size} on {socket.gethostname()}"


def run_together(lead: Callable[[], None], follow: Callable[[], None], identity: Mapping[str, str], timeout: float,
                 stacks: Path, say: Callable[[str], None], device: str = "cpu") -> int:
    """One process's part of a run: rank 0 leads, the others follow. Returns the exit status; errors are told by `say`, each by
    one process.

    Args:
        identity: what must be the same on all ranks (the recipe's text ...), by name; versions of the code are added.
        timeout: seconds without any sign of work on any rank, after which the run is taken to hang.
        stacks: the folder where all processes then write what they are at.
        device: the recipe's; of GPUs each process must have one of its own.
    """
    try:
        return _work_together(Launch.from_environment(), lead, follow, identity, timeout, stacks, say, device)
    except (UserError, RunError) as error:  # before all had come
        say(str(error))
        return error.exit_status


def _work_together(launch: Launch, lead: Callable[[], None], follow: Callable[[], None], identity: Mapping[str, str],
                   timeout: float, stacks: Path, say: Callable[[str], None], device: str) -> int:
    with _joined(launch, device) as (world, store), started_in(world):
        with Watch(store, world.rank, world.size, timeout, stacks, say, launch.name) as watch:
            try:
                refuse_others(world, {**identity, **versions()})
                refuse_shared_gpus(world, device)
                with exchanging():  # a sum or a norm in which another process is missed
                    lead() if world.is_main else follow()
            except KeyboardInterrupt:
                if world.is_main:
                    raise
                return 1  # rank 0 says it
            except LostRank as error:
                watch.tell_lost(str(error))
                return error.exit_status
            except Exception as error:
                sentence = _sentence(error)
                watch.tell(sentence or f"{type(error).__name__}: {error}")
                if sentence is None:
                    raise
                return getattr(error, "exit_status", 1)
        world.gather([])  # nobody leaves before all have stopped to listen
    return 0


@contextlib.contextmanager
def _joined(launch: Launch, device: str) -> Iterator[tuple[World, object]]:
    """The process group, with all ranks in it, and the store that they share. Raises RunError where some do not come."""
    import torch.distributed as dist

    everybody, store = [f"here/{rank}" for rank in range(launch.size)], None
    deadline = time.monotonic() + joining_seconds()
    try:
        store = _own_part(_store(launch), launch, everybody, deadline)
        store.wait(everybody, _until(deadline))
        take_gpu(launch.rank, device)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.size, timeout=NO_LIMIT)
    except RuntimeError as error:
        missing = [0] if store is None else [rank for rank, key in enumerate(everybody) if not store.check([key])]
        who = f"rank {', '.join(map(str, missing[:8]))} did not come" if missing else str(error).splitlines()[0]
        raise RunError(f"{launch.name}: {who} within {joining_seconds():g} s. Look at what it says, and whether its machine "
                       f"reaches {launch.address}:{launch.port} (GLOO_SOCKET_IFNAME names the network to use).") from error
    try:
        alone = World(launch.rank, launch.size)
        yield replace(alone, cores=min(alone.gather([cores()])), divide=divide), store
    finally:
        dist.destroy_process_group()


def _own_part(store: object, launch: Launch, everybody: Sequence[str], deadline: float) -> object:
    """The part of the store that belongs to this start of the processes, in which each of them sets its key of `everybody`.

    torchrun's store outlives the processes that it starts again, with all that they wrote; and its agents on several machines
    count for themselves how often that was (one that sees another machine's agent come back counts nothing). So rank 0 names
    the part, and tells the name to whoever says hello until all are here. Those who are gone do not hear it.

    Raises:
        RuntimeError: rank 0 says nothing.
    """
    import torch.distributed as dist

    name = uuid4().hex
    if launch.rank:
        store.set(f"spoutnik/hello/{launch.rank}", name)
        store.wait([f"spoutnik/welcome/{name}"], _until(deadline))
        name = store.get(f"spoutnik/welcome/{name}").decode()
    own = dist.PrefixStore(f"spoutnik/{name}", store)
    own.set(everybody[launch.rank], socket.gethostname())
    missing = [] if launch.rank else list(range(1, launch.size))
    while missing and time.monotonic() < deadline:
        for rank in [rank for rank in missing if store.check([f"spoutnik/hello/{rank}"])]:
            hello = store.get(f"spoutnik/hello/{rank}").decode()
            store.set(f"spoutnik/welcome/{hello}", name)
        time.sleep(0.02)
        missing = [rank for rank in missing if not own.check([everybody[rank]])]
    return own


def _until(deadline: float) -> timedelta:
    return timedelta(seconds=max(0.1, deadline - time.monotonic()))


def divide(*arguments: object) -> None:
    """`sharding.divide`, whose imports wait until they are needed."""
    from spoutnik.scale import sharding

    sharding.divide(*arguments)


def joining_seconds() -> float:
    """In which all processes must have come."""
    return float(_number("SPOUTNIK_JOIN_SECONDS", 300))


def _store(launch: Launch) -> object:
    """torchrun's own, or one that rank 0 serves."""
    import torch.distributed as dist

    torchruns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = within(joining_seconds() + _HANDSHAKE, lambda: dist.TCPStore(
            launch.address, launch.port, launch.size, launch.rank == 0 and not torchruns, timedelta(seconds=joining_seconds()),
            wait_for_workers=False))
    except TimeoutError as error:
        raise RunError(f"{launch.name}: what listens at {launch.address}:{launch.port} does not answer as rank 0 would: it is "
                       "another program. Set another MASTER_PORT for all ranks, or correct MASTER_ADDR.") from error
    except RuntimeError as error:
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise RunError(f"{launch.name}: port {launch.port} is taken on this machine, by another run or program. Set "
                           "another MASTER_PORT for all ranks (torchrun: --standalone or --rdzv-endpoint).") from error
        raise RunError(f"{launch.name}: does not reach rank 0 at {launch.address}:{launch.port}. Start rank 0, and check "
                       "MASTER_ADDR, MASTER_PORT and the firewall between the machines.") from error
    return store


def versions() -> dict[str, str]:
    """What must be alike on all machines for the same result, by name."""
    return {"Spoutnik's code": code_hash(), "PyTorch": torch.__version__, "Python": platform.python_version()}


@cache
def code_hash() -> str:
    """Of every file of the package that computes."""
    root, digest = Path(spoutnik.__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*")):
        if file.suffix in (".py", ".cpp", ".h", ".jinja"):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def refuse_others(world: World, identity: Mapping[str, str]) -> None:
    """Raises UserError, on all ranks, where one has another version or another recipe than rank 0."""
    known = world.gather([(socket.gethostname(), dict(identity))])
    for rank, (host, values) in enumerate(known):
        for what, value in values.items():
            if value != known[0][1].get(what):
                raise UserError(f"{what} of rank {rank} on {host} ({value}) differs from that of rank 0 on {known[0][0]} "
                                f"({known[0][1].get(what)}). Start all ranks with the same; nothing has begun.")


def _sentence(error: Exception) -> str | None:
    """What is told of an error; None where it is a mistake of ours, whose traceback is wanted."""
    if hasattr(error, "exit_status"):
        return str(error)
    if is_out_of_memory(error):
        return ("the memory of this machine is used up. Start fewer processes on it, or lower micro_batch_tokens (training) or "
                "group_size, max_tokens and prompts_per_step (sampling) in the recipe; then run the same command again.")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the output'}: {error.strerror}. Mend it and run the same command again."
    return None
