"""Rollout workers on Ray: the policy that is trained here is sampled there, with the tokens that this process would give it.

Stands where `train.rollouts.PolicyEngine` stands. Before it samples, the weights of now are sent as what changed in them. A
worker that dies or hangs is replaced and its part is sampled again, to the same tokens: who samples, and how often, decides
nothing.
"""

import platform
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.engine.outputs import CompletionOutput, RequestOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, is_out_of_memory
from spoutnik.files import sha256_json
from spoutnik.model.transformer import Transformer
from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.recipe.scale_settings import ScaleSettings
from spoutnik.scale.gpus import gpu_of
from spoutnik.scale.identity import Identity, identity, other_kernels, refusal_of, shared_gpu
from spoutnik.scale.policy import Policy, policy_sources
from spoutnik.scale.ray_cluster import Request, connected, refuse_unless_possible
from spoutnik.scale.rollout_worker import Progress, Refused, RolloutWorker, Work, shares
from spoutnik.scale.weight_updates import Snapshot, WeightUpdate
from spoutnik.text.thought_format import thought_format
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.rollouts import OnProgress, PendingRollouts, PolicyEngine, PolicySampler, Sampler, in_order
from spoutnik.world import main_only, pulse, world

_ATTEMPTS = 4  # of one part of a call: what kills every worker that samples it would go on for ever
_POLL_SECONDS = 2.0  # between two looks at workers that have not answered
_ANSWER_SECONDS = 5.0  # in which a worker that lives says how far it is
_START_SECONDS = 300.0  # in which Ray places a worker and it imports what it needs


@dataclass(eq=False)
class _Worker:
    """version: of the last weights that were sent to it. progress: its steps, as it last told them, and when they last grew.
    core_seconds: of its process, as far as they are counted. host: the machine of its process."""

    number: int
    handle: object
    version: int | None = None
    host: str = "a machine of the cluster"
    progress: int = -1
    core_seconds: float = 0.0
    grew: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class _Part:
    """Of a call, for one worker. ref: Ray's promise of its answer; owner: the handle that gave it."""

    worker: int
    numbers: list[int]
    ref: object = None
    owner: object = None
    attempts: int = 0


@dataclass(eq=False)
class WorkersRollouts:
    """A call whose prompts are being sampled by the weights that were there when it began."""

    workers: "RolloutWorkers"
    snapshot: Snapshot
    prompts: list[list[int]]
    params: SamplingParams
    seed: int
    parts: list[_Part]
    groups: dict[int, list[CompletionOutput]] = field(default_factory=dict)
    seconds: float = 0.0  # that the slowest of its workers took

    def result(self) -> list[list[CompletionOutput]]:
        """The completions of each prompt, in the order of the prompts. Waits for them."""
        while self.parts:
            self.workers.wait(self)
        return [self.groups[number] for number in range(len(self.prompts))]

    result_on_main = result


@dataclass(frozen=True)
class SampledElsewhere:
    """A `Sampler` over what begins to sample and is waited for."""

    workers: "RolloutWorkers | MainRanksWorkers"

    def generate(self, prompts: Sequence[list[int]], params: SamplingParams, *, seed: int,
                 on_progress: OnProgress | None = None) -> list[RequestOutput]:
        """As `LLM.generate` of prompts of token ids. on_progress: is called once."""
        groups = self.workers.begin(prompts, params, seed).result()
        if on_progress is not None:
            ended = [completion for group in groups for completion in group]
            on_progress(sum(len(completion.token_ids) for completion in ended), len(ended))
        return in_order(prompts, groups)


class RolloutWorkers:
    """To be entered before it is used: `with RolloutWorkers(...) as engine`.

    Args:
        model: the policy, which goes on changing.
        folder: where the stacks of workers that hang are written.
        say: takes a sentence for each thing that went wrong and was mended.
        timeout: seconds without a step after which a worker is taken to hang.
        taken: the UUIDs of the GPUs on which the run trains, which no worker may have.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, settings: RolloutSettings, folder: Path,
                 say: Callable[[str], None] = lambda sentence: None, timeout: float = 600.0, taken: Collection[str] = ()):
        self.model, self.settings, self.folder, self.say, self.timeout = model, settings, folder, say, timeout
        self.taken = taken
        self.policy = Policy.of(model, thought_format(tokenizer).end_ids, sha256_json(tokenizer.bpe.to_str()))
        self.counts: Counter[str] = Counter()  # of workers: replaced, hung; of their answers: refused; of weights: versions
        self._core_seconds = self._transfer_seconds = self._sent_bytes = 0.0
        self._held_since = 0.0  # the workers' GPUs, as far as that is not counted
        self._snapshot: Snapshot | None = None
        self._update: tuple[WeightUpdate, object] | None = None  # to the snapshot, and Ray's reference to it
        self._whole: tuple[int, object] | None = None  # a version, and Ray's reference to all of it
        self._stack = ExitStack()
        self._workers: list[_Worker] = []

    def __enter__(self) -> "RolloutWorkers":
        chosen = self.settings
        self._request = Request.of(chosen)
        sent = sum(source.nbytes for source in policy_sources(self.model).values())
        with ExitStack() as stack:  # which ends what has begun if the rest fails
            self._ray = stack.enter_context(connected(self._request, sent, self.taken))
            stack.callback(self._end_workers)
            self._held_since = time.monotonic()
            self._workers = [_Worker(number, self._new_handle(number)) for number in range(chosen.rollout_workers)]
            self._await_start(self._workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def current(self) -> Sampler:
        """Ready to sample with the weights of now."""
        return SampledElsewhere(self)

    def begin(self, prompts: Sequence[list[int]], params: SamplingParams, seed: int) -> WorkersRollouts:
        """Begins to sample by the weights of now; training may go on meanwhile."""
        self._publish()
        parts = [_Part(worker, numbers) for worker, numbers in enumerate(shares(prompts, len(self._workers))) if numbers]
        pending = WorkersRollouts(self, self._snapshot, list(prompts), params, seed, parts)
        for part in parts:
            self._send(pending, part)
        return pending

    def send_weights(self) -> None:
        """Those of now, to all workers, and waits until they have them and their checksums are right or wrong."""
        self._publish()
        self._ray.get([self._send_weights(worker, self._snapshot) for worker in self._workers])

    def take_metrics(self) -> dict[str, float]:
        """worker_core_seconds: of the workers' processes, as far as they told. worker_gpu_seconds: of the GPUs that they hold,
        whether they sample or wait. transfer_seconds: in which this process compared, hashed and handed over weights.
        transfer_megabytes: to all workers together."""
        taken = {"worker_core_seconds": self._core_seconds, "transfer_seconds": self._transfer_seconds,
                 "transfer_megabytes": self._sent_bytes / 1e6}
        if self.settings.rollout_gpus:
            now = time.monotonic()
            held, self._held_since = now - self._held_since, now
            taken["worker_gpu_seconds"] = held * len(self._workers) * self.settings.rollout_gpus
        self._core_seconds = self._transfer_seconds = self._sent_bytes = 0.0
        return taken

    def wait(self, pending: WorkersRollouts) -> None:
        """For an answer to one of its parts, or the end of one of their workers."""
        pulse.beat()
        ready, _ = self._ray.wait([part.ref for part in pending.parts], num_returns=1, timeout=_POLL_SECONDS)
        for part in [part for part in pending.parts if part.ref in ready]:
            self._receive(pending, part)
        if not ready:
            for number in sorted({part.worker for part in pending.parts}):
                self._replace_if_hung(self._workers[number])

    def _receive(self, pending: WorkersRollouts, part: _Part) -> None:
        errors, worker = self._ray.exceptions, self._workers[part.worker]
        try:
            answer = self._ray.get(part.ref)
        except errors.RayTaskError as error:
            if isinstance(error.cause, RunError):
                raise RunError(f"rollout worker {part.worker}: {error.cause}") from error
            if is_out_of_memory(error.cause):
                what = (str(error.cause).splitlines() or [type(error.cause).__name__])[0][:200]
                raise RunError(f"rollout worker {part.worker} ran out of memory ({what}). Take a smaller group_size, fewer "
                               "max_tokens or prompts_per_step, or more rollout_workers; the same command goes on from the "
                               "last checkpoint.") from error
            if isinstance(error.cause, OSError) and error.cause.strerror:
                raise RunError(f"rollout worker {part.worker} on {worker.host}: {error.cause.filename or 'a file'}: "
                               f"{error.cause.strerror}. Mend it there (the folder of the run must be one that all machines "
                               "can write) and run the same command again.") from error
            raise
        except (errors.RayActorError, errors.OutOfMemoryError, errors.ObjectLostError) as error:
            why = _first_line(error)
            self._refuse_endless(part, why)
            if part.owner is worker.handle:
                self._replace(worker, f"ended ({why})")
            self._send(pending, part)
            return
        except errors.RayError as error:
            raise RunError(f"Ray fails while rollout worker {part.worker} on {worker.host} samples: {_first_line(error)}. Its "
                           "logs are in /tmp/ray/session_latest/logs on that machine and this one; the same command goes on "
                           "from the last checkpoint.") from error
        worker.grew = time.monotonic()
        if isinstance(answer, Refused):
            self.counts["refused"] += 1
            if answer.final:
                raise RunError(f"rollout worker {part.worker}: {answer.sentence}. Start the run again.")
            self._refuse_endless(part, answer.sentence)
            self.say(f"rollout worker {part.worker} refused to sample: {answer.sentence}. It gets the whole weights again.")
            worker.version = None
            self._send(pending, part)
            return
        if part.owner is worker.handle:  # else of a process that has been replaced since, and tells of other seconds
            self._count(worker, answer.core_seconds)
        pending.seconds = max(pending.seconds, answer.seconds)
        pending.groups |= zip(part.numbers, answer.groups)
        pending.parts.remove(part)

    def _count(self, worker: _Worker, core_seconds: float) -> None:
        """What a worker's process has used since it was last asked."""
        self._core_seconds += max(0.0, core_seconds - worker.core_seconds)
        worker.core_seconds = max(worker.core_seconds, core_seconds)

    def _refuse_endless(self, part: _Part, why: str) -> None:
        if part.attempts >= _ATTEMPTS:
            raise RunError(f"rollout worker {part.worker} failed {part.attempts} times at the same {len(part.numbers)} prompts "
                           f"({why}). Where it ran out of memory, take fewer prompts_per_step, a smaller group_size or fewer "
                           "workers on a machine; what was trained so far stays, and the same command goes on from it.")

    def _send(self, pending: WorkersRollouts, part: _Part) -> None:
        """Asks the part's worker, after the weights that it lacks."""
        worker = self._workers[part.worker]
        if worker.version != pending.snapshot.version:
            self._send_weights(worker, pending.snapshot)
        work = Work(pending.snapshot.version, self.policy.vocabulary, [pending.prompts[number] for number in part.numbers],
                    pending.params, pending.seed, part.numbers)
        part.ref, part.owner, part.attempts = worker.handle.sample.remote(work), worker.handle, part.attempts + 1
        worker.grew = time.monotonic()

    def _send_weights(self, worker: _Worker, snapshot: Snapshot) -> object:
        """Ray's promise of the end of it."""
        done = worker.handle.update.remote(self._update_for(worker.version, snapshot))
        worker.version = snapshot.version
        return done

    def _update_for(self, version: int | None, snapshot: Snapshot) -> object:
        """Ray's reference to what makes `snapshot` of a version."""
        if self._update is not None and self._update[0].version == snapshot.version and self._update[0].base == version:
            self._sent_bytes += self._update[0].nbytes
            return self._update[1]
        if self._whole is None or self._whole[0] != snapshot.version:
            self._whole = None  # its memory first
            self._whole = snapshot.version, self._put(snapshot.whole())
        self._sent_bytes += sum(tensor.nbytes for tensor in snapshot.tensors.values())
        return self._whole[1]

    def _put(self, update: WeightUpdate) -> object:
        """Ray's reference to what it now holds for the workers."""
        errors = self._ray.exceptions
        try:
            return self._ray.put(update)
        except (errors.ObjectStoreFullError, errors.OutOfDiskError) as error:
            raise RunError(f"the weights for the rollout workers, {update.nbytes / 1e6:,.0f} MB, do not fit into Ray's object "
                           f"store on {platform.node()} ({_first_line(error)}). Start Ray with more "
                           "(ray start --object-store-memory=BYTES), give /dev/shm more room, or free the disk that holds "
                           "/tmp/ray; the same command goes on from the last checkpoint.") from error

    def _publish(self) -> None:
        """Takes the weights of now, as a new version if they are another."""
        began = time.perf_counter()
        if self._snapshot is None:
            self._snapshot = Snapshot.of(0, policy_sources(self.model))
        else:
            after, update = self._snapshot.next(policy_sources(self.model, all_of_it=False))
            if not update.parts:
                return
            self._snapshot, self._whole = after, None
            self._update = None
            self._update = update, self._put(update)
            self.counts["versions"] += 1
        self._transfer_seconds += time.perf_counter() - began

    def _new_handle(self, number: int) -> object:
        chosen, ray = self.settings, self._ray
        actor = ray.remote(concurrency_groups={"health": 1})(RolloutWorker)
        actor = actor.options(num_cpus=chosen.rollout_cpus, num_gpus=chosen.rollout_gpus, max_restarts=0)
        return actor.remote(self.policy, chosen.rollout_engine, chosen.rollout_cpus, chosen.rollout_gpus, self.timeout,
                            self._stacks(number))

    def _stacks(self, number: int) -> Path:
        return (self.folder / f"rollout-worker-{number}.stacks").absolute()

    def _await_start(self, workers: Sequence[_Worker]) -> None:
        """Until they have said who they are. In place of one that is killed meanwhile another is started, a few times.

        Raises:
            RunError: they do not start, or cannot serve.
        """
        there: dict[int, Identity] = {}
        for attempt in range(1, _ATTEMPTS + 1):
            missing = [worker for worker in workers if worker.number not in there]
            for worker, answer in zip(missing, self._identities(missing), strict=True):
                if isinstance(answer, Identity):
                    there[worker.number] = answer
                elif attempt == _ATTEMPTS or answer.actor_init_failed:  # which would fail again
                    reason = str(answer).strip().splitlines()
                    raise RunError(f"a rollout worker does not start: {reason[-1].strip()} Is spoutnik installed on every "
                                   "machine of the cluster, in the same version?") from answer
                else:
                    self.counts["replaced"] += 1
                    self.say(f"rollout worker {worker.number} ended while it started ({_first_line(answer)}): another is "
                             "started.")
                    worker.handle = self._new_handle(worker.number)
            if len(there) == len(workers):
                break
        here = identity()
        for worker in workers:
            theirs = there[worker.number]
            worker.host = theirs.host
            if refusal := refusal_of(theirs, here) or shared_gpu(theirs, self.taken):
                raise RunError(refusal)
        for warning in dict.fromkeys(other_kernels(theirs, here) for theirs in there.values()):
            if warning and self.settings.rollout_engine == "spoutnik" and not self.settings.rollout_gpus:
                self.say(warning)

    def _identities(self, workers: Sequence[_Worker]) -> "list[Identity | Exception]":
        """Who each worker says it is; of one that has ended, the error."""
        refs = [worker.handle.identity.remote() for worker in workers]
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=_START_SECONDS)
        if len(ready) < len(refs):
            raise RunError(f"{self._request} are asked for, and {len(refs) - len(ready)} of them did not start in "
                           f"{_START_SECONDS:g} s: the cluster has the room, but others use it, or its machines are slow. Free "
                           "it, or give fewer rollout_workers.")
        answers = []
        for ref in refs:
            try:
                answers.append(self._ray.get(ref))
            except self._ray.exceptions.RayTaskError as error:
                raise RunError(f"a rollout worker does not start: {error.cause}") from error
            except self._ray.exceptions.RayActorError as error:
                answers.append(error)
        return answers

    def _replace(self, worker: _Worker, how: str) -> None:
        """A new process in the worker's place, without weights."""
        self.counts["replaced"] += 1
        self.say(f"rollout worker {worker.number} {how}: a new one takes its place and samples its prompts again, to the same "
                 "tokens.")
        self._ray.kill(worker.handle, no_restart=True)
        worker.handle, worker.version, worker.progress, worker.core_seconds = self._new_handle(worker.number), None, -1, 0.0
        self._await_start([worker])
        worker.grew = time.monotonic()

    def _replace_if_hung(self, worker: _Worker) -> None:
        """A worker whose prompts are awaited is expected to make steps."""
        progress = self._ask(worker, "progress")
        if isinstance(progress, Progress):
            self._count(worker, progress.core_seconds)
            if progress.steps != worker.progress:
                worker.progress, worker.grew = progress.steps, time.monotonic()
        if time.monotonic() - worker.grew > self.timeout:
            self.counts["hung"] += 1
            self._replace(worker, f"made no step for {self.timeout:g} s ({self._written_stacks(worker)})")

    def _ask(self, worker: _Worker, method: str) -> object:
        """What it says from its second thread; None where it says nothing, or has ended."""
        ref = getattr(worker.handle, method).options(concurrency_group="health").remote()
        try:
            return self._ray.get(ref, timeout=_ANSWER_SECONDS)
        except (self._ray.exceptions.GetTimeoutError, self._ray.exceptions.RayActorError):
            return None

    def _written_stacks(self, worker: _Worker) -> str:
        """Where it is said what it was doing."""
        path, stacks = self._stacks(worker.number), self._ask(worker, "stacks")
        kept = path.with_name(f"{path.name}-{self.counts['hung']}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(stacks, str):
            kept.write_text(stacks, encoding="utf-8")
        elif path.exists() and path.stat().st_size:  # its interpreter is stuck, or it is stopped: what its own watchdog wrote
            path.replace(kept)
        else:
            return "it does not say what it was doing: its process is stopped, or its machine cannot be reached"
        return f"its stacks: {kept}"

    def _end_workers(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker.handle, no_restart=True)
            stacks = self._stacks(worker.number)
            if stacks.exists() and not stacks.stat().st_size:
                stacks.unlink()
        self._workers = []


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


class SamplersOnRay:
    """`recipe.sampling.Samplers` for recipes that ask for rollout workers."""

    def check(self, scale: RolloutSettings | None, device: str) -> None:
        if scale is not None and scale.rollout_workers:
            refuse_unless_possible(Request.of(scale), device)

    @contextmanager
    def open(self, model: Transformer, tokenizer: Tokenizer, scale: ScaleSettings | None, folder: Path,
             say: Callable[[str], None]) -> Iterator[PolicySampler]:
        if scale is None or not scale.rollout_workers:
            yield PolicyEngine(model, tokenizer)
            return
        taken = {gpu for gpu in world().gather([gpu_of(model.device)]) if gpu is not None}
        if world().is_main:
            with RolloutWorkers(model, tokenizer, scale, folder, say, scale.timeout, taken) as workers:
                yield workers if world().size == 1 else MainRanksWorkers(workers)
        else:
            yield MainRanksWorkers(None)


@dataclass(frozen=True)
class MainRanksWorkers:
    """The workers of a run in which several processes train: rank 0 has them, and every rank what they sampled."""

    workers: RolloutWorkers | None

    def current(self) -> Sampler:
        return SampledElsewhere(self)

    def begin(self, prompts: Sequence[list[int]], params: SamplingParams, seed: int) -> PendingRollouts:
        return _OnEveryRank(None if self.workers is None else self.workers.begin(prompts, params, seed))

    def take_metrics(self) -> dict[str, float]:
        return {} if self.workers is None else self.workers.take_metrics()


@dataclass(frozen=True)
class _OnEveryRank:
    pending: WorkersRollouts | None

    def result(self) -> list[list[CompletionOutput]]:
        return main_only(self.result_on_main)

    def result_on_main(self) -> list[list[CompletionOutput]]:
        return self.pending.result()
