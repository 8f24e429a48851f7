"""A rollout worker without Ray: it samples what the training process would, and refuses what it cannot do truthfully."""

import os
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.model.lora import LoraConfig, add_lora
from spoutnik.native import library
from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.scale import gpus, ray_cluster
from spoutnik.scale.identity import Identity, identity, other_kernels, refusal_of, shared_gpu
from spoutnik.scale.policy import Policy, policy_tensors
from spoutnik.scale.ray_cluster import Request, ray_module, refuse_impossible, refuse_unless_possible
from spoutnik.scale.rollout_worker import Refused, RolloutWorker, Work, shares
from spoutnik.scale.weight_updates import Snapshot
from spoutnik.train.rollouts import PolicyEngine

PROMPTS = [[2 + (7 * row + column) % 60 for column in range(3 + row % 4)] for row in range(7)]
PARAMS = SamplingParams(n=2, temperature=1.0, top_p=1.0, max_tokens=8)
ENDS = (1,)


def trained(kind: str, dtype: torch.dtype, adapter: LoraConfig | None = None):
    model = tiny.model(tiny.ALL[kind])
    model.compute_dtype = dtype
    if adapter is not None:
        add_lora(model, adapter, torch.Generator().manual_seed(0))
        step(model)  # an adapter begins as zero
    return model


@torch.no_grad()
def step(model) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(autouse=True)
def own_cores(monkeypatch):
    """A worker sets the number of its process's cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


def worker_of(model, tmp_path, seconds: float = 60.0) -> RolloutWorker:
    return RolloutWorker(Policy.of(model, ENDS, "v"), "spoutnik", 2, 0, seconds, tmp_path / "worker.stacks")


def work(version: int, numbers=(0, 1, 2, 3, 4, 5, 6), **changes) -> Work:
    return Work(**{"version": version, "vocabulary": "v", "prompts": [PROMPTS[number] for number in numbers],
                   "params": PARAMS, "seed": 3, "numbers": list(numbers)} | changes)


def tokens_of(groups) -> list:
    return [[(c.token_ids, c.logprobs, c.finish_reason) for c in group] for group in groups]


@pytest.mark.parametrize(["kind", "dtype", "adapter"], [
    ("deepseek_v3", torch.float32, None), ("deepseek_v3", torch.bfloat16, None), ("qwen3", torch.bfloat16, None),
    ("qwen2", torch.bfloat16, LoraConfig(2, 4.0)), ("deepseek_v3", torch.float32, LoraConfig(2, 4.0, experts=True)),
    ("qwen2", torch.float32, LoraConfig(2, 4.0, use_dora=True))], ids=str)
@pytest.mark.skipif(library() is None, reason="without a compiler, rounding depends on the batch")
def test_a_worker_samples_what_the_training_process_would_as_the_policy_is_trained(kind, dtype, adapter, tmp_path):
    model = trained(kind, dtype, adapter)
    worker, engine = worker_of(model, tmp_path), PolicyEngine(model, None, ENDS)
    snapshot = Snapshot.of(0, policy_tensors(model))
    worker.update(snapshot.whole())
    for _ in range(2):
        expected = tokens_of(engine.begin(PROMPTS, PARAMS, 3).result())
        parts = [(5, 1), (0, 2, 3, 4, 6)]  # as two workers would have them
        there = {number: group for part in parts
                 for number, group in zip(part, worker.sample(work(snapshot.version, part)).groups)}
        assert tokens_of([there[number] for number in range(len(PROMPTS))]) == expected
        step(model)
        snapshot, update = snapshot.next(policy_tensors(model, all_of_it=False))
        worker.update(update)
    assert tokens_of(worker.sample(work(2)).groups) != expected  # the policy did move


def test_without_native_kernels_tokens_are_the_same_and_their_probabilities_but_for_rounding(plain_kernels, tmp_path):
    model = trained("deepseek_v3", torch.float32)
    worker = worker_of(model, tmp_path)
    worker.update(Snapshot.of(0, policy_tensors(model)).whole())
    expected = PolicyEngine(model, None, ENDS).begin(PROMPTS, PARAMS, 3).result()
    for number, group in zip((5, 1), worker.sample(work(0, (5, 1))).groups):
        for completion, other in zip(group, expected[number]):
            assert completion.token_ids == other.token_ids
            assert completion.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_weights_with_a_wrong_checksum_are_never_sampled(tmp_path):
    model = trained("qwen2", torch.float32)
    worker, snapshot = worker_of(model, tmp_path), Snapshot.of(0, policy_tensors(model))
    whole = snapshot.whole()
    damaged = replace(whole, parts=whole.parts | {"norm.weight": replace(whole.parts["norm.weight"], digest="0")})
    worker.update(damaged)
    assert worker.sample(work(0)) == Refused("the checksum of norm.weight in version 0 of the weights is wrong")
    worker.update(whole)
    assert len(worker.sample(work(0)).groups) == len(PROMPTS)


def test_what_goes_wrong_while_weights_are_taken_over_is_told_by_who_is_asked_to_sample(tmp_path):
    """Nobody waits for the end of an update."""
    (tmp_path / "file").touch()
    model = trained("qwen2", torch.float32)
    worker = worker_of(model, tmp_path / "file")  # where its stacks cannot be written
    for ask in (lambda: worker.update(Snapshot.of(0, policy_tensors(model)).whole()), lambda: worker.sample(work(0))):
        with pytest.raises(OSError, match="File exists|Not a directory"):
            ask()


def test_another_version_and_another_vocabulary_are_refused(tmp_path):
    model = trained("qwen2", torch.float32)
    worker = worker_of(model, tmp_path)
    assert worker.sample(work(0)) == Refused("it was asked for version 0 of the weights and has none")
    worker.update(Snapshot.of(4, policy_tensors(model)).whole())
    assert worker.sample(work(0)) == Refused("it was asked for version 0 of the weights and has version 4")
    assert worker.sample(work(4, vocabulary="w")) == Refused("it has another vocabulary (v) than the prompts (w)", final=True)


def test_what_a_worker_that_hangs_is_doing_is_written_down(tmp_path):
    model = trained("qwen2", torch.float32)
    worker, stacks = worker_of(model, tmp_path, seconds=0.05), tmp_path / "worker.stacks"
    worker.update(Snapshot.of(0, policy_tensors(model)).whole())

    def hangs(asked, on_step):
        while not stacks.read_text():
            on_step_that_never_comes.wait(0.01)
        return []

    on_step_that_never_comes = threading.Event()
    worker.engine = SimpleNamespace(load=lambda weights: None, sample=hangs)
    worker.sample(work(0))
    assert "in hangs" in stacks.read_text() and "in sample" in stacks.read_text()
    assert "Thread MainThread" in worker.stacks()


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=40), st.integers(1, 7))
def test_every_prompt_is_dealt_once_and_all_workers_have_as_many(prompts, workers):
    dealt = shares(prompts, workers)
    assert sorted(number for numbers in dealt for number in numbers) == list(range(len(prompts)))
    assert len(dealt) == workers and max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_prompts_are_dealt_by_what_they_are_wherever_they_stand():
    prompts = [[row] * (1 + row % 5) for row in range(20)]
    there = [sorted(prompts[number] for number in numbers) for numbers in shares(prompts, 3)]
    back = prompts[::-1]
    assert [sorted(back[number] for number in numbers) for numbers in shares(back, 3)] == there


def test_a_worker_of_other_code_is_refused_and_one_of_other_kernels_told_apart():
    here = identity()
    assert refusal_of(here, here) is None and other_kernels(here, here) is None
    other = Identity("0.0.1", "abc", here.torch, "another", "node7", 1)
    assert "on node7 a rollout worker runs spoutnik 0.0.1 (abc), and this process" in refusal_of(other, here)
    assert "torch 1.0, and this process" in refusal_of(replace(here, torch="1.0"), here)
    assert "the kernels of the rollout worker on node7 are of another" in other_kernels(other, here)


def test_without_ray_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"scale.rollout_workers: .* Install it \(pip install 'spoutnik\[ray\]'\), or leave"):
        ray_module()


@pytest.mark.parametrize(["request_", "machines", "sentence"], [
    (Request(5, 2, 0), [(8, 0)], r"5 rollout workers with 2 cores each are asked for, and here has 8 cores, which is "
                                 r"room for 4. Give at most 4 rollout_workers, or a larger cluster"),
    (Request(2, 1, 1), [(8, 0), (8, 1)], r"1 core and 1 GPU each are asked for, and here has 16 cores and 1 GPU on 2 machines, "
                                         r"which is room for 1"),
    (Request(1, 16, 0), [(8, 0), (8, 0)], r"16 cores on 2 machines, which is room for 0. Give .* smaller ones"),
    (Request(1, 1, 0), [], "has no machine"),
])
def test_a_placement_that_can_never_be_met_is_refused_with_what_is_missing(request_, machines, sentence):
    with pytest.raises(UserError, match=sentence):
        refuse_impossible(request_, machines, "here")
    refuse_impossible(replace(request_, count=0), machines, "here")


def test_what_this_machine_can_never_hold_is_refused_before_ray_starts(monkeypatch):
    started = []
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **options: started.append(options))
    monkeypatch.setattr(ray_cluster, "ray_module", lambda: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match="1000 rollout workers"), ray_cluster.connected(Request(1000, 64, 0), 1):
        pass
    assert not started


def test_the_gpus_on_which_the_run_trains_are_hidden_from_a_ray_of_its_own(monkeypatch):
    seen = []
    ray = SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: None,
                          init=lambda **options: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    monkeypatch.setattr(ray_cluster, "ray_module", lambda: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(gpus, "gpu_of", lambda device: f"GPU-{device.index}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    with ray_cluster.connected(Request(2, 1, 1), 1, {"GPU-0", "GPU-of-another-machine"}):
        assert seen == ["5,6"] and os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with ray_cluster.connected(Request(2, 1, 1), 1, {"GPU-1"}):
        assert seen[1:] == ["0,2"] and "CUDA_VISIBLE_DEVICES" not in os.environ
    with pytest.raises(UserError, match="has 2 cores and 1 GPU beside 2 GPUs on which the run trains, which is room for 1"), \
            ray_cluster.connected(Request(2, 1, 1), 1, {"GPU-0", "GPU-2"}):
        pass


def test_gpus_on_which_the_run_will_train_are_not_counted_before_it_begins(monkeypatch):
    monkeypatch.setattr(ray_cluster, "ray_module", lambda: SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    refuse_unless_possible(Request(2, 1, 1), "cpu")
    refuse_unless_possible(Request(1, 1, 1), "auto")
    with pytest.raises(UserError, match="1 GPU beside 1 GPU on which the run trains"):
        refuse_unless_possible(Request(2, 1, 1), "auto")


def test_a_worker_on_the_gpu_of_the_training_is_refused():
    worker = replace(identity(), host="node7", gpus=("GPU-3",))
    assert shared_gpu(worker, {"GPU-2"}) is None
    assert "on node7 Ray gave a rollout worker the GPU on which this run trains" in shared_gpu(worker, {"GPU-3", "GPU-2"})


def busy_ray(failures: list[str]) -> SimpleNamespace:
    """A Ray whose starts fail so, one after another, and which counts how often it was ended."""
    def init(**options):
        if failures:
            raise Exception(failures.pop(0))

    def shutdown():
        ray.ended += 1

    ray = SimpleNamespace(init=init, is_initialized=lambda: False, shutdown=shutdown, ended=0)
    return ray


def test_a_start_for_which_a_busy_machine_had_no_time_is_tried_again():
    late = "The current node timed out during startup. This could happen because"
    ray = busy_ray([late, late])
    ray_cluster.start_here(ray, 1, 1)
    assert ray.ended == 2
    for failures in ([late] * 3, ["no port"]):
        with pytest.raises(Exception, match="timed out|no port"):
            ray_cluster.start_here(busy_ray(failures), 1, 1)
        assert not failures


def test_an_address_at_which_nothing_answers_as_ray_is_told_in_bounded_time(monkeypatch):
    """As where another program listens there: Ray asks it again and again."""
    never = threading.Event()
    silent = SimpleNamespace(is_initialized=lambda: False, init=lambda **_: never.wait(60), shutdown=lambda: None)
    monkeypatch.setattr(ray_cluster, "ray_module", lambda: silent)
    monkeypatch.setattr(ray_cluster, "_CONNECT_SECONDS", 0.1)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(RunError, match="nothing at RAY_ADDRESS = head:6379 answers as Ray's head within 0.1 s. Correct"), \
            ray_cluster.connected(Request(1, 1, 0), 1):
        pass
    never.set()


def test_why_ray_does_not_start_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr(ray_cluster, "ray_module", lambda: busy_ray(["no port is free.\nTraceback"]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RunError, match=r"^Ray does not start on this machine: no port is free\. Free memory, ports or"), \
            ray_cluster.connected(Request(1, 1, 0), 1):
        pass


@pytest.mark.parametrize(["values", "sentence"], [
    ({"rollout_cpus": 2}, "rollout_cpus is of rollout workers, and there are none"),
    ({"correction": "mask"}, "correction is of rollouts by older weights, and there are none"),
    ({"rollout_engine": "vllm"}, "samples in rollout workers, and there are none"),
    ({"rollout_engine": "vllm", "rollout_workers": 1}, "needs GPUs. Give rollout_gpus"),
])
def test_a_setting_that_would_be_ignored_is_refused(values, sentence):
    with pytest.raises(ValidationError, match=sentence):
        RolloutSettings(**values)
