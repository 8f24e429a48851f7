"""Rollout workers over a stand-in for Ray: what is done how often, and what a worker's error becomes."""

import contextlib
import errno
from types import SimpleNamespace

import pytest
import tiny
import torch

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.scale import policy, rollout_workers, weight_updates
from spoutnik.scale.policy import policy_tensors
from spoutnik.scale.rollout_worker import Progress
from spoutnik.scale.rollout_workers import RolloutWorkers
from spoutnik.tasks.catalog import find_tasks
from spoutnik.train.grpo import grpo
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.loop import Checkpoints
from spoutnik.train.resumable import KeptCalls
from spoutnik.train.rollouts import PolicyEngine

PROMPTS, PARAMS = [[5, 6], [7]], SamplingParams(max_tokens=1)


class RayError(Exception):
    pass


class StoreFull(RayError):
    pass


class TaskError(RayError):
    """As Ray hands over an error of a worker's own."""

    def __init__(self, cause: Exception):
        self.cause = cause


class StandIn:
    """Ray: what is put comes back, and whoever waits for a worker gets `answer`."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayActorError=OSError, OutOfMemoryError=OSError,
                                 ObjectLostError=OSError, RayError=RayError, ObjectStoreFullError=StoreFull,
                                 OutOfDiskError=StoreFull)

    def __init__(self, answer=None):
        self.answer, self.puts = answer, []

    def put(self, value):
        self.puts.append(value.nbytes)
        return value

    def wait(self, refs, num_returns, timeout):
        return refs, []

    def get(self, ref):
        raise self.answer

    def kill(self, handle, no_restart):
        pass


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Two workers that answer nothing, and the stand-in."""
    ray, method = StandIn(), SimpleNamespace(remote=lambda argument: "a promise")
    monkeypatch.setattr(rollout_workers, "connected", lambda *_: contextlib.nullcontext(ray))
    monkeypatch.setattr(RolloutWorkers, "_new_handle", lambda self, number: SimpleNamespace(update=method, sample=method))
    monkeypatch.setattr(RolloutWorkers, "_await_start", lambda self, workers: None)
    model = tiny.model(tiny.QWEN, vocab_size=300)
    with RolloutWorkers(model, tiny.tokenizer(), RolloutSettings(rollout_workers=2), tmp_path) as workers:
        yield workers, ray


def test_weights_are_copied_hashed_and_handed_over_once(started, monkeypatch):
    workers, ray = started
    everything = policy_tensors(workers.model)
    size = sum(tensor.nbytes for tensor in everything.values())
    copied, hashed, copy, digest = [], [], policy.Source.__call__, weight_updates.digest
    monkeypatch.setattr(policy.Source, "__call__", lambda self: copied.append(1) or copy(self))
    monkeypatch.setattr(weight_updates, "digest", lambda tensor: hashed.append(1) or digest(tensor))
    workers.begin(PROMPTS, PARAMS, 0)
    assert (len(copied), len(hashed), ray.puts) == (len(everything), len(everything), [size])
    assert workers.take_metrics()["transfer_megabytes"] == pytest.approx(2 * size / 1e6)
    del copied[:], hashed[:], ray.puts[:]
    with torch.no_grad():
        workers.model.norm.weight += 1
    workers.begin(PROMPTS, PARAMS, 1)
    assert (len(copied), len(hashed), ray.puts) == (len(everything), 1, [workers.model.norm.weight.nbytes])


@pytest.mark.parametrize("error, sentence", [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."),
     r"worker 0 ran out of memory \(CUDA out of memory. Tried to allocate 2 GiB.\). Take"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), "worker 0 ran out of memory"),
    (MemoryError(), r"worker 0 ran out of memory \(MemoryError\). Take"),
    (OSError(errno.ENOSPC, "No space left on device", "/run/rollout-worker-0.stacks"),
     "worker 0 on there: /run/rollout-worker-0.stacks: No space left on device. Mend it there .* run the same command again"),
])
def test_what_ends_a_worker_is_told_with_a_remedy(started, error, sentence):
    workers, ray = started
    workers._workers[0].host = "there"
    pending = workers.begin(PROMPTS, PARAMS, 0)
    ray.answer = TaskError(error)
    with pytest.raises(RunError, match=sentence):
        pending.result()


def test_an_error_of_rays_own_is_a_sentence(started):
    workers, ray = started
    pending = workers.begin(PROMPTS, PARAMS, 0)
    ray.answer = RayError("Failed to connect to GCS.\nMore.")
    with pytest.raises(RunError, match="Ray fails while rollout worker 0 .*: Failed to connect to GCS. Its logs are in"):
        pending.result()


def test_weights_for_which_rays_store_has_no_room_are_told_with_their_size(started, monkeypatch):
    workers, ray = started

    def full(value):
        raise StoreFull("The object cannot be created")

    monkeypatch.setattr(ray, "put", full)
    with pytest.raises(RunError, match="[0-9] MB, do not fit into Ray's object store .*--object-store-memory"):
        workers.begin(PROMPTS, PARAMS, 0)


def test_processor_time_of_a_worker_that_is_lost_is_counted_as_far_as_it_told(started, monkeypatch):
    workers, _ = started
    told = iter([Progress(1, 5.0), Progress(2, 7.5), Progress(1, 2.0)])
    monkeypatch.setattr(workers, "_ask", lambda worker, method: next(told))
    first, _ = workers._workers
    workers._replace_if_hung(first)
    workers._replace_if_hung(first)
    workers._replace(first, "was killed")
    workers._replace_if_hung(first)
    assert workers.take_metrics()["worker_core_seconds"] == 9.5
    assert workers.take_metrics()["worker_core_seconds"] == 0


def test_gpus_of_workers_are_counted_for_as_long_as_they_are_held(started, monkeypatch):
    workers, _ = started
    assert "worker_gpu_seconds" not in workers.take_metrics()
    monkeypatch.setattr(workers, "settings", RolloutSettings(rollout_workers=2, rollout_gpus=4))
    workers._held_since, now = 100.0, iter([110.0, 111.5])
    monkeypatch.setattr(rollout_workers.time, "monotonic", lambda: next(now))
    assert [workers.take_metrics()["worker_gpu_seconds"] for _ in range(2)] == [80.0, 12.0]


class CountedElsewhere(PolicyEngine):
    """Samples here, and tells of 1,000 core-seconds and 500 GPU-seconds elsewhere each time that it is asked."""

    def take_metrics(self) -> dict[str, float]:
        return {"worker_core_seconds": 1000.0, "worker_gpu_seconds": 500.0}


def test_what_workers_used_is_in_the_cost_of_grpo_with_what_they_sampled_after_the_last_step(tmp_path):
    model, settings = tiny.model(tiny.QWEN, vocab_size=300), GRPOSettings(
        steps=2, prompts_per_step=2, group_size=2, max_tokens=4, learning_rate=0.01)
    _, cost = grpo(model, tiny.tokenizer(), find_tasks(["arithmetic"]), settings, 0, "rl", Checkpoints(tmp_path, 1e9),
                   tiny.silent, engine=CountedElsewhere(model, tiny.tokenizer()))
    assert 3000 < cost.core_seconds < 3500 and cost.gpu_seconds == 1500


def test_what_workers_used_is_in_the_cost_of_rejection_sampling_and_is_kept(tmp_path):
    model = tiny.model(tiny.QWEN, vocab_size=300)
    kept = KeptCalls(CountedElsewhere(model, tiny.tokenizer()), Checkpoints(tmp_path))
    kept.generate(PROMPTS, PARAMS, seed=0)
    assert (kept.spent.core_seconds, kept.spent.gpu_seconds) == (1000, 500)
    again = KeptCalls(None, Checkpoints(tmp_path)).spent
    assert 1000 < again.core_seconds < 1500 and again.gpu_seconds == 500 and again.seconds > 0
