"""Rollout workers on a local Ray: any number of them gives the bytes of one process, whatever happens to them.

One small Ray and two workers for the whole file: starting them is what takes time.
"""

import os
import signal
from dataclasses import replace

import pytest
import ray
import tiny
import torch

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.scale import rollout_workers as module
from spoutnik.scale.ray_cluster import Request, connected, ray_module, start_here
from spoutnik.scale.rollout_workers import MainRanksWorkers, RolloutWorkers
from spoutnik.tasks.catalog import find_tasks
from spoutnik.text.thought import Reply
from spoutnik.train import rewards
from spoutnik.train.grpo import GRPOSettings, grpo
from spoutnik.train.loop import Checkpoints
from spoutnik.train.losses import Staleness
from spoutnik.train.reject import RejectSettings, reject
from spoutnik.train.resumable import KeptCalls
from spoutnik.train.rollouts import GradedCompletion, PolicyEngine

PROMPTS = [[2 + (7 * row + column) % 60 for column in range(3 + row % 4)] for row in range(9)]
PARAMS = SamplingParams(n=3, temperature=1.0, top_p=1.0, max_tokens=12)


@pytest.fixture(scope="module", autouse=True)
def small_ray():
    start_here(ray_module(), cpus=2, store_bytes=80 << 20)
    yield
    ray.shutdown()


def policy():
    return tiny.model(tiny.DEEPSEEK, vocab_size=300, max_position_embeddings=512)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with RolloutWorkers(policy(), tiny.tokenizer(), RolloutSettings(rollout_workers=2),
                        tmp_path_factory.mktemp("workers")) as workers:
        yield workers


@pytest.fixture
def workers(started, monkeypatch):
    """The workers with nothing counted and nothing said, quick to see that one hangs."""
    started.model.load_state_dict(policy().state_dict())
    started.said, started.counts = [], type(started.counts)()
    monkeypatch.setattr(started, "say", started.said.append)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.2)
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 1.0)
    return started


def tokens_of(groups) -> list:
    return [[(c.token_ids, c.logprobs, c.finish_reason) for c in group] for group in groups]


def here(workers: RolloutWorkers, seed: int, params: SamplingParams = PARAMS) -> list:
    """What this process samples by the weights of now."""
    return tokens_of(PolicyEngine(workers.model, tiny.tokenizer()).begin(PROMPTS, params, seed).result())


def process_of(workers: RolloutWorkers, number: int) -> int:
    return ray.get(workers._workers[number].handle.identity.options(concurrency_group="health").remote()).pid


@torch.no_grad()
def move(model) -> None:
    for parameter in model.parameters():
        parameter.mul_(1.01)


def test_two_workers_give_the_bytes_of_one_process_as_the_weights_change(workers):
    for seed in range(3):
        assert tokens_of(workers.begin(PROMPTS, PARAMS, seed).result()) == here(workers, seed)
        move(workers.model)
    outputs = MainRanksWorkers(workers).current().generate(PROMPTS, PARAMS, seed=0)
    assert tokens_of(output.outputs for output in outputs) == here(workers, 0)
    metrics = workers.take_metrics()
    assert metrics["worker_core_seconds"] > 0 and metrics["transfer_megabytes"] > 0
    used = sum(ray.get(worker.handle.progress.remote()).core_seconds for worker in workers._workers)
    assert 0.5 * used < sum(worker.core_seconds for worker in workers._workers) <= used  # its start too, which takes most
    assert not workers.counts["replaced"] and not workers.said


def test_a_killed_worker_is_replaced_and_its_prompts_have_the_tokens_of_the_weights_that_were_asked(workers):
    """Also where newer weights have been sent meanwhile."""
    params = replace(PARAMS, max_tokens=100)
    expected, older = here(workers, 5, params), workers.begin(PROMPTS, params, 5)
    move(workers.model)
    newer = workers.begin(PROMPTS, PARAMS, 6)
    os.kill(process_of(workers, 1), signal.SIGKILL)
    assert tokens_of(older.result()) == expected
    assert tokens_of(newer.result()) == here(workers, 6)
    assert workers.counts["replaced"] == 1
    said, = workers.said
    assert said.startswith("rollout worker 1 ended") and said.endswith("to the same tokens.")


def test_a_worker_that_is_killed_while_it_starts_is_replaced_again(workers, monkeypatch):
    """As its replacement may be, where a machine ends whatever is large."""
    expected, make, made = here(workers, 3), workers._new_handle, []

    def dying(number):
        made.append(make(number))
        if len(made) <= 2:
            ray.kill(made[-1])
        return made[-1]

    monkeypatch.setattr(workers, "_new_handle", dying)
    os.kill(process_of(workers, 0), signal.SIGKILL)
    assert tokens_of(workers.begin(PROMPTS, PARAMS, 3).result()) == expected
    assert len(made) == workers.counts["replaced"] == 3
    assert [sentence.partition(" (")[0] for sentence in workers.said] == [
        "rollout worker 0 ended", *["rollout worker 0 ended while it started"] * 2]


def test_a_worker_that_hangs_is_found_replaced_and_its_end_told(workers, monkeypatch):
    os.kill(process_of(workers, 0), signal.SIGSTOP)
    pending = workers.begin(PROMPTS, PARAMS, 7)
    while len(pending.parts) > 1:  # the other worker has all the time that it needs
        workers.wait(pending)
    monkeypatch.setattr(workers, "timeout", 1.5)
    monkeypatch.setattr(workers, "say", lambda sentence: (workers.said.append(sentence), setattr(workers, "timeout", 600.0)))
    assert tokens_of(pending.result()) == here(workers, 7)
    assert workers.counts["hung"] == workers.counts["replaced"] == 1
    assert "rollout worker 0 made no step for 1.5 s (it does not say what it was doing" in workers.said[0]


def test_weights_that_arrive_wrong_are_refused_counted_and_sent_again(workers):
    workers.begin(PROMPTS, PARAMS, 0).result()
    move(workers.model)
    workers._publish()
    update, _ = workers._update
    damaged = replace(update, parts=update.parts | {"norm.weight": replace(update.parts["norm.weight"], digest="0")})
    workers._update = damaged, ray.put(damaged)
    assert tokens_of(workers.begin(PROMPTS, PARAMS, 8).result()) == here(workers, 8)
    assert workers.counts["refused"] == 2
    assert "refused to sample: the checksum of norm.weight in version" in workers.said[0]


def test_what_kills_every_worker_that_samples_it_ends_with_a_sentence(workers):
    pending = workers.begin(PROMPTS, replace(PARAMS, max_tokens=100), 0)
    for part in pending.parts:
        part.attempts = 4  # as often as it has killed
    ray.kill(workers._workers[0].handle)
    with pytest.raises(RunError, match=r"rollout worker 0 failed 4 times at the same \d prompts .* the same command goes on"):
        pending.result()
    workers._replace(workers._workers[0], "was killed")  # for the other tests


def likes_even(asked, tokenizer, rule="lenient", style="chat") -> list[GradedCompletion]:
    return [GradedCompletion(c, Reply("", "", False, 0), sum(t % 2 == 0 for t in c.token_ids) / len(c.token_ids), 0.0)
            for _, c in asked]


@pytest.mark.parametrize("steps_behind", [0, 1])
def test_a_policy_trained_with_workers_has_the_bytes_of_one_trained_here(steps_behind, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(rewards, "grade", likes_even)
    settings = GRPOSettings(steps=3, prompts_per_step=3, group_size=4, max_tokens=6, learning_rate=0.003, optimizer="adamw",
                            warmup=0, max_mismatch_kl=10.0)
    logs, costs = {}, {}

    def train(model, engine, name):
        logs[name], costs[name] = grpo(model, tiny.tokenizer(), find_tasks(["arithmetic"]), settings, 0, "rl",
                             Checkpoints(tmp_path / name, 0.0), tiny.silent, engine=engine, staleness=Staleness(steps_behind))
        return model.state_dict()

    alone, together = train(policy(), None, "alone"), train(workers.model, workers, "together")
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    assert [row["loss"] for row in logs["alone"]] == [row["loss"] for row in logs["together"]]
    elsewhere = sum(row["worker_core_seconds"] for row in logs["together"])
    assert 0 < elsewhere < costs["together"].core_seconds and not any("worker_core_seconds" in row for row in logs["alone"])


def test_rejection_sampling_by_workers_goes_on_after_the_last_call_that_it_finished(workers, tmp_path, tokenizer):
    tasks, settings = find_tasks(["arithmetic"]), RejectSettings(prompts=4, samples=2, max_tokens=6)
    kept = KeptCalls(workers, Checkpoints(tmp_path))

    def sample(llm):
        with pytest.raises(RunError, match="none of 8 completions"):  # a model that knows nothing
            reject(llm, tokenizer, tasks, settings, 0, "start", tiny.silent)

    sample(kept)
    assert kept.spent.core_seconds > 0 and len(list(tmp_path.glob("*.safetensors"))) == 1
    again = KeptCalls(None, Checkpoints(tmp_path))  # which needs nobody any more
    sample(again)
    assert again.spent.core_seconds > 0


def test_more_workers_than_the_cluster_can_ever_hold_are_refused_before_they_are_waited_for():
    with pytest.raises(UserError, match=r"3 rollout workers with 1 core each are asked for, and this Ray cluster has 2 cores, "
                                        r"which is room for 2. Give at most 2"), connected(Request(3, 1, 0), 0):
        pass


def test_workers_for_which_there_is_no_room_now_are_not_waited_for_for_ever(workers, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_START_SECONDS", 0.5)
    more = RolloutWorkers(policy(), tiny.tokenizer(), RolloutSettings(rollout_workers=2), tmp_path)
    with pytest.raises(RunError, match="2 of them did not start in 0.5 s: the cluster has the room, but others use it"), more:
        pass
