"""Training that is divided among 2 and 4 processes of this machine against one process, and checkpoints that change hands."""

import json

import pytest
import sharded_work
import tiny
import torch
from ranks import on_ranks
from sharded_work import CASES, alone, fingerprint

from spoutnik.model.lora import merged_copy
from spoutnik.model.weights import load_model, load_tensors, save_model
from spoutnik.train.loop import Checkpoints

EXPERTS = ("v3", "v2 recomputed", "v3 lora")


@pytest.fixture(scope="module", params=[2, 4])
def trained(request, tmp_path_factory):
    """What training on so many processes came to."""
    size = request.param
    return size, on_ranks("training_of_all_kinds", size, tmp_path_factory.mktemp(f"kinds-{size}"))


@pytest.fixture(scope="module")
def single():
    """The same on one process, case by case."""
    return {case: alone(case) for case in CASES}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of checkpoints that two processes wrote, and how they went on."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, on_ranks("save_in_the_middle", 2, folder)


def agree(rows, expected, loss=1e-6, norm=1e-5):
    """Losses and gradient norms of all steps."""
    assert len(rows) == len(expected) == sharded_work.STEPS
    for (got_loss, got_norm), (want_loss, want_norm) in zip(rows, expected):
        assert got_loss == pytest.approx(want_loss, abs=loss) and got_norm == pytest.approx(want_norm, rel=norm)


@pytest.mark.parametrize("case", CASES)
def test_a_divided_model_learns_what_a_whole_one_learns(trained, single, case):
    _, results = trained
    agree(results[case], single[case][0])


@pytest.mark.parametrize("case", EXPERTS)
def test_experts_on_other_processes_learn_the_same(trained, single, case):
    size, results = trained
    for ranks in {2, size}:
        agree(results[f"{case}, experts on {ranks}"], single[case][0])
        assert 1 <= results[f"{case}, load on {ranks}"] <= ranks


def test_bfloat16_weights_are_gathered_and_float32_ones_kept(trained):
    _, results = trained
    assert results["types"] == ["torch.float32"]
    rows, _ = alone("v3", torch.bfloat16)  # whose linear maps round their weights at each use
    assert [row[0] for row in results["v3 in bfloat16"]] == pytest.approx([row[0] for row in rows], abs=0.02)


def test_sums_in_a_fixed_order_are_the_same_bytes_on_any_number(tmp_path):
    one, two, four = (on_ranks("ordered_sums", size, tmp_path / str(size)) for size in (1, 2, 4))
    assert one == two == four
    for case, (_, rows) in one.items():
        agree(rows, alone(case)[0])


@pytest.mark.parametrize("case", ["v3", "llama", "llama lora"])
def test_a_checkpoint_of_two_goes_on_in_one_process(saved, case):
    folder, results = saved
    model = sharded_work.network(case)
    training = sharded_work.Training(case, model)
    step, _, _ = Checkpoints(folder / case).load(model, training.optimizer)
    agree([*alone(case)[0][:step], *training.run(step, sharded_work.STEPS)], results[case])


def test_a_checkpoint_of_two_goes_on_in_four(saved, tmp_path):
    folder, results = saved
    for name in ("v3", "llama", "llama lora"):
        (tmp_path / name).symlink_to(folder / name)
    for case, rows in on_ranks("go_on", 4, tmp_path).items():
        agree([*results[case][:sharded_work.STEPS // 2], *rows], results[case])


def test_a_checkpoint_of_one_process_has_the_same_tensors(saved, tmp_path):
    folder, _ = saved
    training = sharded_work.Training("v3", sharded_work.network("v3"))
    training.run(0, sharded_work.STEPS // 2)
    Checkpoints(tmp_path).save(sharded_work.STEPS // 2, training.model, training.optimizer, [], sharded_work.Cost())
    for name in ("weights.safetensors", "optimiser.safetensors"):
        ours, theirs = (load_tensors(path / "checkpoint" / name) for path in (folder / "v3", tmp_path))
        assert {key: (tensor.shape, tensor.dtype) for key, tensor in ours.items()} == {
            key: (tensor.shape, tensor.dtype) for key, tensor in theirs.items()}
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("case", ["v3", "llama"])
def test_what_all_write_together_is_byte_for_byte_the_usual_file(saved, tmp_path, case):
    folder, _ = saved
    model = sharded_work.network(case)
    model.load_state_dict(load_tensors(folder / case / "checkpoint" / "weights.safetensors"))
    save_model(tmp_path, model)
    assert (folder / case / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    (folder / case / "config.json").write_bytes((tmp_path / "config.json").read_bytes())
    read = load_model(folder / case)
    assert fingerprint(read.state_dict()) == fingerprint(merged_copy(load_model(tmp_path)).state_dict())


def test_transformers_reads_it(saved, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder, _ = saved
    model = sharded_work.network("llama")
    model.load_state_dict(load_tensors(folder / "llama" / "checkpoint" / "weights.safetensors"))
    save_model(tmp_path, model)
    (tmp_path / "model.safetensors").write_bytes((folder / "llama" / "model.safetensors").read_bytes())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(theirs.model.layers[1].mlp.down_proj.weight, model.layers[1].mlp.down_proj.weight.bfloat16())


def test_nothing_of_a_checkpoint_is_pickled(saved):
    folder, _ = saved
    files = sorted(path.name for path in (folder / "v3" / "checkpoint").iterdir())
    assert files == ["log.jsonl", "optimiser.safetensors", "state.json", "weights.safetensors"]
    assert json.loads((folder / "v3" / "checkpoint" / "state.json").read_text())["step"] == sharded_work.STEPS // 2


def test_pytorchs_distributed_checkpoint_reads_it(saved):
    """DCP's reader of safetensors, into whatever a state dict holds."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    folder, _ = saved
    state = {name: torch.zeros_like(tensor) for name, tensor in tiny.model(tiny.LLAMA).state_dict().items()}
    load(state, storage_reader=HuggingFaceStorageReader(str(folder / "llama" / "checkpoint")), no_dist=True)
    written = load_tensors(folder / "llama" / "checkpoint" / "weights.safetensors")
    assert all(torch.equal(tensor, written[name]) for name, tensor in state.items())
