"""The step loop: a killed run ends like one that was not, and a diverging one stops before it spoils anything."""

import math
import random

import pytest
import tiny
import torch

from spoutnik.errors import RunError
from spoutnik.tasks import FAMILIES
from spoutnik.train import loop
from spoutnik.train.loop import Checkpoints, Cost, Gradient, accumulate, counted_once, headline, kept_for_all, train
from spoutnik.train.optimizer import Optimizer, Schedule
from spoutnik.train.pretrain import PretrainSettings, pretrain
from spoutnik.world import World


class Killed(BaseException):
    """What the loop must not catch."""


def killed_after(steps: int):
    def progress(done, total, tokens, note):
        if done > steps:
            raise Killed

    return progress


def same_run(first, second) -> None:
    """Weights, biases and log agree to the bit, but for the clock."""
    (model_a, log_a), (model_b, log_b) = first, second
    a, b = model_a.state_dict(), model_b.state_dict()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert [row | {"seconds": 0} for row in log_a] == [row | {"seconds": 0} for row in log_b]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_pretraining_killed_and_run_again_ends_with_the_same_bytes(optimizer, tokenizer, tmp_path):
    settings = PretrainSettings(steps=6, tokens_per_step=300, learning_rate=0.02, warmup=2, optimizer=optimizer)

    def run(folder, progress=tiny.silent):
        model = tiny.model(tiny.DEEPSEEK, vocab_size=300, num_hidden_layers=2)
        checkpoints = Checkpoints(tmp_path / folder, 0.0)
        log, cost = pretrain(model, tokenizer, list(FAMILIES.values()), settings, 0, "base", checkpoints, progress)
        return (model, log), cost

    straight, cost = run("straight")
    with pytest.raises(Killed):
        run("killed", killed_after(3))
    resumed, resumed_cost = run("killed")
    same_run(straight, resumed)
    assert resumed_cost.tokens_trained == cost.tokens_trained


# A stage that needs no data: the weights walk along fixed gradients.

def walk(folder, steps=8, progress=tiny.silent, loss_of=lambda step: 1.0, every_seconds=0.0, seed=0):
    model = tiny.model(tiny.QWEN, seed)
    optimizer = Optimizer(model, "adamw", 0.01, 0.1, 1.0)

    def step_gradient(step):
        g = torch.Generator().manual_seed(step)
        return (Gradient([torch.randn(p.shape, generator=g) for p in optimizer.parameters]), {"loss": loss_of(step)},
                Cost(tokens_trained=10))

    schedule = Schedule("constant", steps, 0)
    log, cost = train(model, optimizer, schedule, "walk", step_gradient, Checkpoints(folder, every_seconds), progress)
    return (model, log), cost


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_at_its_step_and_keeps_the_checkpoint(tmp_path, value):
    with pytest.raises(RunError) as error:
        walk(tmp_path, loss_of=lambda step: value if step == 5 else 1.0)
    assert str(error.value).startswith("walk: the loss is not a finite number at step 5")
    assert str(tmp_path / "checkpoint") in str(error.value) and "learning_rate" in str(error.value)
    model = tiny.model(tiny.QWEN, seed=9)
    step, log, _ = Checkpoints(tmp_path).load(model, Optimizer(model, "adamw", 0.01, 0.1, 1.0))
    (good, _), _ = walk(tmp_path / "other", steps=5)
    assert step == 5 and len(log) == 5
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), good.parameters(), strict=True))


def test_a_gradient_that_is_no_number_stops_too(tmp_path):
    with pytest.raises(RunError, match="not a finite number at step 3.*there was no checkpoint yet"):
        gradients = [torch.ones(3), torch.tensor([1.0, math.nan])]
        loop.refuse_divergence("walk", 3, 1.0, gradients, [], Checkpoints(tmp_path))


def test_a_loss_that_explodes_stops(tmp_path):
    with pytest.raises(RunError, match=r"the loss exploded at step 30 \(loss 100\)"):
        walk(tmp_path, steps=40, every_seconds=1e9, loss_of=lambda step: 100.0 if step == 30 else 2.0)


def test_a_loss_near_zero_may_change_its_sign_and_size(tmp_path):
    """As the loss of reinforcement learning does."""
    walk(tmp_path, steps=30, every_seconds=1e9, loss_of=lambda step: (-1) ** step * 10.0 ** -(step % 9))


def test_a_stage_that_died_between_two_renames_goes_on_from_the_older_checkpoint(tmp_path):
    with pytest.raises(Killed):
        walk(tmp_path, progress=killed_after(4))
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    resumed, _ = walk(tmp_path)
    straight, _ = walk(tmp_path / "straight")
    same_run(straight, resumed)


def test_a_second_death_while_saving_leaves_the_only_checkpoint_whole(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        walk(tmp_path, progress=killed_after(4))
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")  # died between the two renames

    def die(*_):
        raise Killed

    monkeypatch.setattr(loop, "save_tensors", die)
    with pytest.raises(Killed):
        walk(tmp_path)
    model = tiny.model(tiny.QWEN)
    assert Checkpoints(tmp_path).load(model, Optimizer(model, "adamw", 0.01, 0.1, 1.0)) is not None


def test_a_death_while_saving_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    saves, real = [], loop.save_tensors

    def die_in_the_sixth(*arguments):
        saves.append(1)
        if len(saves) == 6:  # the optimizer's state of the third checkpoint
            raise Killed
        real(*arguments)

    monkeypatch.setattr(loop, "save_tensors", die_in_the_sixth)
    with pytest.raises(Killed):
        walk(tmp_path)
    monkeypatch.undo()
    goes_on_with_the_same_bytes(tmp_path)


def goes_on_with_the_same_bytes(folder):
    """A run that died while saving has a whole checkpoint, and ends as if it had not died."""
    assert (folder / "checkpoint").exists()
    resumed, _ = walk(folder)
    straight, _ = walk(folder / "straight")
    same_run(straight, resumed)


def test_a_full_disk_while_saving_is_a_sentence_and_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    from spoutnik import files

    saves, real = [], files.os.fsync

    def full(descriptor):
        saves.append(1)
        if len(saves) > 20:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match="the disk is full while saving"):
        walk(tmp_path)
    monkeypatch.undo()
    goes_on_with_the_same_bytes(tmp_path)


@pytest.mark.parametrize("file", ["log.jsonl", "state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path, file):
    with pytest.raises(Killed):
        walk(tmp_path, progress=killed_after(4))
    (tmp_path / "checkpoint" / file).write_text("{")
    with pytest.raises(RunError, match=file):
        walk(tmp_path)


def test_a_damaged_checkpoint_s_weights_are_named(tmp_path):
    with pytest.raises(Killed):
        walk(tmp_path, progress=killed_after(4))
    (tmp_path / "checkpoint" / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(RunError, match=r"weights\.safetensors: is damaged"):
        walk(tmp_path)


# Accumulation

def test_gradients_add_up_in_the_order_of_the_batches_whatever_the_threads():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    unused = torch.zeros(3, requires_grad=True)
    values = [random.Random(0).random() * 10 ** (i % 7) for i in range(20)]
    total = accumulate([w, unused], values, lambda value, trace: ((w * value).sum(), {"loss": value}))
    expected = torch.zeros(2)
    for value in values:
        expected += value
    assert torch.equal(total.gradients[0], expected) and torch.equal(total.gradients[1], torch.zeros(3))
    assert total.metrics["loss"] == sum(values)


def test_bills_add_up_but_memory_is_a_peak():
    total = Cost(1.0, 2.0, 3, 4, 5, 6) + Cost(1.0, 1.0, 1, 1, 1, 2)
    assert total == Cost(2.0, 3.0, 4, 5, 6, 6)


def test_a_checkpoint_keeps_the_time_of_all_ranks_by_that_of_one_and_its_reader_counts_it_once(monkeypatch):
    """Time on rollout workers, which rank 0 alone knows of, is not multiplied."""
    used, own = Cost(seconds=9, core_seconds=100, gpu_seconds=10), Cost(core_seconds=20, gpu_seconds=2)
    monkeypatch.setattr(loop, "world", lambda: World(rank=0, size=4))
    kept = kept_for_all(used, own)
    assert kept == counted_once(kept) == Cost(seconds=9, core_seconds=160, gpu_seconds=16)
    monkeypatch.setattr(loop, "world", lambda: World(rank=1, size=4))
    assert counted_once(kept) == Cost(seconds=9)


def test_the_bar_shows_the_reward_where_there_is_one():
    assert headline({"loss": 0.0, "reward": 0.5, "accuracy": 0.4}) == "reward 0.500"
    assert headline({"loss": 2.0}) == "loss 2.000" and headline({}) == ""


def test_a_process_counts_the_time_of_the_one_gpu_that_it_computes_on(monkeypatch):
    """Of eight processes on a machine of eight each counted all, and their sum was eight times the bill."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    cost = loop.Stopwatch().lap()
    assert cost.gpu_seconds == cost.seconds > 0
