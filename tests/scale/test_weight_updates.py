"""Weights to samplers: what changed and no more, to the bit, and nothing that is wrong goes unnoticed."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from spoutnik.model.lora import LoraConfig, add_lora
from spoutnik.scale import weight_updates as module
from spoutnik.scale.policy import Policy, build_policy, policy_tensors, refresh_policy
from spoutnik.scale.weight_updates import ReceivedWeights, Snapshot, digest


def tensors(**changes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {"matrix": torch.randn(30, 20, generator=generator).bfloat16(), "norm": torch.randn(30, generator=generator),
            "scalar": torch.tensor(2.5)}
    return made | changes


def received(snapshot: Snapshot) -> ReceivedWeights:
    weights = ReceivedWeights()
    assert weights.apply(snapshot.whole()) is None
    return weights


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and digest(left[name]) == digest(right[name]) for name in left)


def test_a_whole_update_is_a_copy_to_the_bit():
    snapshot = Snapshot.of(3, tensors(odd=torch.tensor([float("nan"), -0.0, float("inf")])))
    weights = received(snapshot)
    assert weights.version == 3 and same(weights.tensors, snapshot.tensors)
    weights.tensors["matrix"][0, 0] = 7
    assert snapshot.tensors["matrix"][0, 0] != 7


def test_of_a_tensor_with_few_changes_only_these_are_sent():
    before = Snapshot.of(0, tensors())
    matrix = before.tensors["matrix"].clone()
    matrix[3, 4] += 1
    matrix[29, 19] = -0.0
    after, update = before.next(tensors(matrix=matrix))
    assert set(update.parts) == {"matrix"} and update.parts["matrix"].places.tolist() == [64, 599]
    assert update.nbytes == 2 * (4 + 2) and (update.base, update.version) == (0, 1)
    weights = received(before)
    assert weights.apply(update) is None and same(weights.tensors, after.tensors)


def test_a_tensor_that_changed_all_over_is_sent_whole():
    before = Snapshot.of(0, tensors())
    after, update = before.next(tensors(norm=torch.zeros(30)))
    assert update.parts["norm"].places is None and update.nbytes == 120
    weights = received(before)
    assert weights.apply(update) is None and same(weights.tensors, after.tensors)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.02])
def test_what_a_sample_finds_changed_is_not_compared_and_the_same_is_sent(monkeypatch, share):
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(300, 70, generator=generator)
    new = torch.where(torch.rand(old.shape, generator=generator) < share, old + 1, old)
    compared = []
    count = np.count_nonzero
    monkeypatch.setattr(np, "count_nonzero", lambda bits: compared.append(bits.size) or count(bits))
    before = Snapshot.of(0, {"matrix": old})
    _, update = before.next({"matrix": new})
    assert sum(compared) == (1000 if share == 0.9 else 1000 + old.numel())
    monkeypatch.setattr(module, "_MOST", 1.0)  # all numbers are compared, whatever the sample says
    _, plain = before.next({"matrix": new})
    assert [(part.bits.tolist(), part.places is None, part.digest) for part in update.parts.values()] == [
        (part.bits.tolist(), part.places is None, part.digest) for part in plain.parts.values()]
    assert (update.parts["matrix"].places is None) == (share > 0.4)
    weights = received(before)
    assert weights.apply(update) is None and same(weights.tensors, {"matrix": new})


def test_what_is_handed_over_is_not_copied_into_a_message_first():
    update = Snapshot.of(0, tensors(matrix=torch.zeros(500, 500))).whole()
    beside: list[pickle.PickleBuffer] = []
    message = pickle.dumps(update, protocol=5, buffer_callback=beside.append)
    assert len(message) < 5_000 and sum(len(buffer.raw()) for buffer in beside) == update.nbytes > 1_000_000


def test_weights_that_stay_make_an_empty_update_and_minus_zero_is_another_number():
    before = Snapshot.of(0, tensors(norm=torch.zeros(30)))
    assert before.next(tensors(norm=torch.zeros(30)))[1].parts == {}
    assert before.next(tensors(norm=-torch.zeros(30)))[1].parts.keys() == {"norm"}


@pytest.mark.parametrize("few", [True, False])
def test_a_bit_that_flips_on_the_way_is_refused_and_the_whole_weights_mend_it(few):
    before = Snapshot.of(0, tensors())
    matrix = before.tensors["matrix"] + (torch.arange(600).view(30, 20) < (5 if few else 600)).bfloat16()
    after, update = before.next(tensors(matrix=matrix))
    part = update.parts["matrix"]
    bits = part.bits.copy()
    bits[0] ^= 1
    weights = received(before)
    refusal = weights.apply(replace(update, parts={"matrix": replace(part, bits=bits)}))
    assert refusal == "the checksum of matrix in version 1 of the weights is wrong"
    assert weights.version is None
    assert "found none" in weights.apply(update)  # which would not know what it changes
    assert weights.apply(after.whole()) is None and same(weights.tensors, after.tensors)


def test_an_update_of_another_version_is_refused():
    first = Snapshot.of(0, tensors())
    second, _ = first.next(tensors(norm=torch.ones(30)))
    third, update = second.next(tensors(norm=torch.zeros(30)))
    weights = received(first)
    assert weights.apply(update) == "an update from version 1 of the weights to 2 found version 0"
    assert weights.version == 0 and same(weights.tensors, first.tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["deepseek_v3", "qwen2", "qwen3"])
def test_a_policy_arrives_in_the_types_in_which_an_engine_reads_it(kind, dtype):
    model = tiny.model(tiny.ALL[kind])
    model.compute_dtype = dtype
    sent = policy_tensors(model)
    built = build_policy(Policy.of(model, [1], "v"), received(Snapshot.of(0, sent)).tensors)
    for name, tensor in model.state_dict().items():
        arrived = built.state_dict()[name]
        exact = tensor.dim() == 1 or name.endswith(".gate.weight")
        assert arrived.dtype == (tensor.dtype if exact else dtype)
        assert torch.equal(arrived, tensor.to(arrived.dtype))


def test_what_is_sent_is_a_copy_that_training_does_not_change():
    model = tiny.model(tiny.QWEN)
    sent = policy_tensors(model)
    with torch.no_grad():
        model.norm.weight.zero_()
    assert sent["norm.weight"].abs().sum() > 0


@pytest.mark.parametrize("experts", [False, True])
def test_of_a_model_with_adapters_the_base_is_sent_once_and_then_the_adapters(experts):
    model = add_lora(tiny.model(tiny.DEEPSEEK), LoraConfig(2, 4.0, experts=experts), torch.Generator().manual_seed(0))
    policy, first = Policy.of(model, [1], "v"), Snapshot.of(0, policy_tensors(model))
    weights = received(first)
    built = build_policy(policy, weights.tensors)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.25
    _, update = first.next(policy_tensors(model, all_of_it=False))
    assert update.nbytes <= sum(parameter.nbytes for parameter in trained)
    assert weights.apply(update) is None
    refresh_policy(built, policy, weights.tensors)
    assert same({k: v for k, v in built.state_dict().items()}, {k: v.detach() for k, v in model.state_dict().items()})
