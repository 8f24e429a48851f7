"""Rollout workers over a stand-in for Ray: what is done how often, and what a worker's error becomes."""

import contextlib
from types import SimpleNamespace

import pytest
import tiny
import torch

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.scale import policy, rollout_workers, weight_updates
from spoutnik.scale.policy import policy_tensors
from spoutnik.scale.rollout_workers import RolloutWorkers

PROMPTS, PARAMS = [[5, 6], [7]], SamplingParams(max_tokens=1)


class TaskError(Exception):
    """As Ray hands over an error of a worker's own."""

    def __init__(self, cause: Exception):
        self.cause = cause


class StandIn:
    """Ray: what is put comes back, and whoever waits for a worker gets `answer`."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayActorError=OSError, OutOfMemoryError=OSError,
                                 ObjectLostError=OSError)

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


def test_a_worker_without_memory_is_told_with_a_remedy(started):
    workers, ray = started
    pending = workers.begin(PROMPTS, PARAMS, 0)
    ray.answer = TaskError(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."))
    with pytest.raises(RunError, match=r"worker 0 ran out of memory \(CUDA out of memory. Tried to allocate 2 GiB.\). Take"):
        pending.result()
