"""Training that is divided among 2 and 4 processes of this machine against one process, and checkpoints that change hands."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from scale import sharded_work
from scale.sharded_work import CASES, FEW, LONG, STEPS, alone, fingerprint

from spoutnik.hardware import compute_dtype
from spoutnik.model.weights import load_model, load_tensors, save_model
from spoutnik.train.loop import Checkpoints, Cost


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What all processes left."""
    out = tmp_path_factory.mktemp("sharded")
    program = [sys.executable, "-W", "ignore", str(Path(sharded_work.__file__)), str(out)]
    done = subprocess.run(program, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return out


def result(out: Path, job: str, size: int) -> dict:
    return json.loads((out / f"{job}-{size}.json").read_text())


@pytest.fixture(scope="module")
def single():
    """The same on one process, case by case."""
    return {case: alone(case) for case in CASES}


@pytest.fixture(scope="module")
def saved(out):
    """The folder of checkpoints that two processes wrote, and how they went on."""
    return out / "saved", result(out, "save_in_the_middle", 2)


def agree(rows, expected, norm=1e-5):
    """Losses and gradient norms of all steps."""
    assert len(rows) in (FEW, STEPS)
    for (got_loss, got_norm), (want_loss, want_norm) in zip(rows, expected[:len(rows)], strict=True):
        rounding = torch.finfo(torch.float32).eps * 2 ** math.floor(math.log2(want_loss))  # two losses, each half a step off
        assert got_loss == pytest.approx(want_loss, rel=0, abs=1e-6 + rounding)
        assert got_norm == pytest.approx(want_norm, rel=norm)


@pytest.mark.parametrize("case", CASES)
def test_a_model_divided_among_two_learns_what_a_whole_one_learns(out, single, case):
    agree(result(out, "training_of_all_kinds", 2)[case], single[case][0])


@pytest.mark.parametrize("case", LONG)
def test_and_among_four(out, single, case):
    agree(result(out, "training_of_all_kinds", 4)[case], single[case][0])


@pytest.mark.parametrize("size, case, ranks", [(2, "v3", 2), (2, "v2 recomputed", 2), (2, "v3 lora", 2), (4, "v3", 4),
                                               (4, "v2 recomputed", 2)])
def test_experts_on_other_processes_learn_the_same(out, single, size, case, ranks):
    results = result(out, "training_of_all_kinds", size)
    agree(results[f"{case}, experts on {ranks}"], single[case][0])
    assert 1 <= results[f"{case}, load on {ranks}"] <= ranks


def test_bfloat16_weights_are_gathered_and_float32_ones_kept(out):
    results = result(out, "training_of_all_kinds", 2)
    assert results["types"] == ["torch.float32"]
    rows, _ = alone("v3", torch.bfloat16)  # whose linear maps round their weights at each use
    # Where bfloat16 is not in hardware, products of other shapes round otherwise: 0.008 at the fourth step, 0.023 at the fifth.
    steps = FEW if compute_dtype("auto") == torch.bfloat16 else 4
    found = [row[0] for row in results["v3 in bfloat16"]]
    assert len(found) == FEW and found[:steps] == pytest.approx([row[0] for row in rows[:steps]], abs=0.02)


def test_sums_in_a_fixed_order_are_the_same_bytes_on_any_number(out, single):
    one, two, four = (result(out, "ordered_sums", size) for size in (1, 2, 4))
    assert one == two == four
    for case, (_, rows) in one.items():
        agree(rows, single[case][0])


@pytest.mark.parametrize("case", ["v3", "llama", "llama lora"])
def test_a_checkpoint_of_two_goes_on_in_one_process(saved, single, case):
    folder, results = saved
    model = sharded_work.network(case)
    training = sharded_work.Training(case, model)
    step, _, _ = Checkpoints(folder / case).load(model, training.optimizer)
    agree([*single[case][0][:step], *training.run(step, FEW)], results[case])


def test_a_checkpoint_of_two_goes_on_in_four(out, saved):
    for case, rows in result(out, "go_on", 4).items():
        agree([*saved[1][case][:FEW // 2], *rows], saved[1][case])


def test_a_checkpoint_of_one_process_has_the_same_tensors(saved, tmp_path):
    folder, _ = saved
    training = sharded_work.Training("v3", sharded_work.network("v3"))
    training.run(0, FEW // 2)
    Checkpoints(tmp_path).save(FEW // 2, training.model, training.optimizer, [], Cost())
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
    assert fingerprint(read.state_dict()) == fingerprint(load_model(tmp_path).state_dict())


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
    assert json.loads((folder / "v3" / "checkpoint" / "state.json").read_text())["step"] == FEW // 2


def test_pytorchs_distributed_checkpoint_reads_it(saved):
    """DCP's reader of safetensors, into whatever a state dict holds."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    folder, _ = saved
    state = {name: torch.zeros_like(tensor) for name, tensor in tiny.model(tiny.LLAMA).state_dict().items()}
    load(state, storage_reader=HuggingFaceStorageReader(str(folder / "llama" / "checkpoint")), no_dist=True)
    written = load_tensors(folder / "llama" / "checkpoint" / "weights.safetensors")
    assert all(torch.equal(tensor, written[name]) for name, tensor in state.items())


def manifests(run: Path) -> dict[str, dict]:
    return {manifest["stage"]: manifest for file in run.glob("artifacts/*/manifest.json")
            for manifest in [json.loads(file.read_text())]}


def test_a_recipe_that_divides_its_models_ends_with_the_same_bytes_on_one_and_two(out):
    one, two = (manifests(out / f"ordered-{size}" / "run") for size in (1, 2))
    said = "".join((out / f"ordered-{size}-0.txt").read_text() for size in (1, 2))
    assert set(one) == set(two) == set(sharded_work.ACCEPTED), said
    for stage, manifest in one.items():
        assert (manifest["key"], manifest["content"]) == (two[stage]["key"], two[stage]["content"]), stage
        assert manifest["metrics"] == two[stage]["metrics"], stage


def test_experts_of_a_recipe_apart(out):
    run = out / "experts-2" / "run"
    assert set(manifests(run)) >= {"base", "mine", "adapted"}, (out / "experts-2-0.txt").read_text()
    base = next(run.glob("artifacts/base-*"))
    model = load_model(base)  # every later program reads it so
    assert model.config.n_routed_experts == 8 and (next(run.glob("artifacts/adapted-*")) / "adapter").exists()
    rows = [json.loads(line) for line in (base / "log.jsonl").read_text().splitlines()]
    assert all(1 <= row["max_rank_load"] <= 2 for row in rows)
