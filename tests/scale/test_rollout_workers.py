"""Rollout workers on a local Ray: any number of them gives the bytes of one process, whatever happens to them.

One small Ray for the file; workers are started once for what can share them.
"""

import os
import signal
from dataclasses import replace

import pytest
import tiny
import torch

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.scale.rollout_workers import RolloutWorkers
from spoutnik.train.rollouts import PolicyEngine

ray = pytest.importorskip("ray")

PROMPTS = [[2 + (7 * row + column) % 60 for column in range(3 + row % 4)] for row in range(9)]
PARAMS = SamplingParams(n=3, temperature=1.0, top_p=1.0, max_tokens=12)


@pytest.fixture(scope="module", autouse=True)
def small_ray():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False,
             logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def workers(tmp_path_factory, said):
    model = tiny.model(tiny.DEEPSEEK, vocab_size=300)
    with RolloutWorkers(model, tiny.tokenizer(), RolloutSettings(rollout_workers=2), tmp_path_factory.mktemp("workers"),
                        said.append) as pool:
        yield pool


def completions(outputs) -> list:
    return [[(c.token_ids, c.logprobs, c.finish_reason) for c in output.outputs] for output in outputs]


def here(pool: RolloutWorkers, seed: int) -> list:
    return completions(PolicyEngine(pool.model, tiny.tokenizer()).current().generate(PROMPTS, PARAMS, seed=seed))


def move(model, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + by)


def test_two_workers_give_the_bytes_of_one_process_as_the_weights_change(workers):
    for seed in range(3):
        assert completions(workers.current().generate(PROMPTS, PARAMS, seed=seed)) == here(workers, seed)
        move(workers.model, 0.01)
    assert workers.counts["versions"] == 2


def test_a_worker_that_is_killed_while_it_samples_is_replaced_and_its_prompts_have_the_same_tokens(workers, said):
    pids = [identity.pid for identity in ray.get([w.handle.identity.remote() for w in workers._workers])]
    long = replace(PARAMS, max_tokens=100)
    pending = workers.begin(PROMPTS, long, 5)
    os.kill(pids[1], signal.SIGKILL)
    groups = pending.result()
    expected = PolicyEngine(workers.model, tiny.tokenizer()).current().generate(PROMPTS, long, seed=5)
    assert [[c.token_ids for c in group] for group in groups] == [[c.token_ids for c in o.outputs] for o in expected]
    assert workers.counts["replaced"] == 1
    assert len(said) == 1 and said[0].startswith("rollout worker 1 ended") and "to the same tokens" in said[0]
