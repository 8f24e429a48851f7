"""`spoutnik.load`, and where a name leads: folder, run, hub."""

import json
import os
import shutil
import subprocess
import sys

import huggingface_hub.constants
import pytest
import tiny
import torch

import spoutnik
from spoutnik.errors import RunError, UserError
from spoutnik.generation.catalog import default_model, ships_with_package
from spoutnik.locate import SHIPPED_RUN, locate
from spoutnik.model.weights import load_model, save_model


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "model", tiny.model(tiny.DEEPSEEK, vocab_size=300))
    tiny.tokenizer().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache that holds org/model, with nobody to ask."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    entry = cache / "models--org--model"
    snapshot = entry / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("0" * 40)
    return snapshot


def test_a_folder_becomes_a_module_with_its_configuration_and_tokenizer(folder):
    model = spoutnik.load(folder)
    ids = torch.tensor([model.tokenizer.encode("12 + 30 is 42")])
    assert model(ids).shape == (*ids.shape, 300) and model.config.model_type == "deepseek_v3"
    assert model.lm_head.weight.dtype == model.compute_dtype == torch.bfloat16  # as the file holds it
    assert torch.equal(spoutnik.load(str(folder), "float32")(ids), load_model(folder)(ids))


def test_a_folder_without_tokenizer_loads_without_one(tmp_path):
    save_model(tmp_path, tiny.model(tiny.LLAMA))
    assert spoutnik.load(tmp_path).tokenizer is None


def test_a_tokenizer_of_another_model_is_refused(folder):
    save_model(folder, tiny.model(tiny.DEEPSEEK))
    with pytest.raises(RunError, match=r"tokenizer\.json.*vocab_size = 64"):
        spoutnik.load(folder)


@pytest.mark.parametrize("dtype", ["bf16", "int64", "nn"])
def test_a_type_that_is_none_is_refused(folder, dtype):
    with pytest.raises(UserError, match=f"dtype = '{dtype}'"):
        spoutnik.load(folder, dtype)


def test_a_hub_name_is_read_from_the_local_cache(folder, hub):
    shutil.copytree(folder, hub, dirs_exist_ok=True)
    assert locate("org/model") == hub
    assert spoutnik.load("org/model").config.vocab_size == 300


def test_a_model_that_is_not_in_the_cache_is_a_sentence(hub):
    with pytest.raises(RunError, match=r"org/other: is not \(wholly\) in the local cache and the hub cannot be reached"):
        locate("org/other")


def test_half_a_model_in_the_cache_is_not_taken_for_a_whole_one(folder, hub):
    shutil.copy(folder / "config.json", hub)
    (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(RunError, match="not .wholly. in the local cache"):
        locate("org/model")
    assert locate("org/model", weights=False) == hub


@pytest.mark.parametrize("name", [
    "no/such/folder", "nosuch", "./org/model", "../org/model", "~/model", "~nobody-of-this-name/m", "org/mo del", "nope/",
    "./nope", "/nope/model", "runs/nope", "exports/nope", "here/nope", "org\\model", "", ".", "org/model/"])
def test_a_name_that_can_only_be_a_folder_is_refused_without_asking_anybody(name, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr("spoutnik.hub.fetch", lambda *arguments: pytest.fail("the hub was asked"))
    with pytest.raises(UserError, match="there is no folder|there is no such user|is neither a run"):
        locate(name)


def test_a_missing_folder_is_told_with_the_nearest_and_the_way_to_the_hub(tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "nano").mkdir(parents=True)
    (tmp_path / "org").mkdir()
    with pytest.raises(UserError, match=r"Did you mean 'runs/nano'\? Correct the path.$"):
        locate("runs/nanoo")
    with pytest.raises(UserError, match="spoutnik pull org/other"):
        locate("org/other")
    with pytest.raises(UserError, match=r"Did you mean 'qwen3-1.7b'\?"):
        locate("qwen3-17b")


def test_a_model_of_the_cache_is_found_beside_a_folder_of_its_owner_s_name(folder, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir(exist_ok=True)
    shutil.copytree(folder, hub, dirs_exist_ok=True)
    assert locate("org/model") == hub


def test_the_home_folder_is_found_without_a_shell(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert locate(f"~/{folder.name}") == folder


def test_a_file_is_not_a_model(folder):
    with pytest.raises(UserError, match="is a file"):
        locate(folder / "config.json")


_MEMORY = """
import re, sys
from spoutnik.model.weights import load_model
import torch
def peak(): return 1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
torch.ones(10) @ torch.ones(10)
before = peak()
model = load_model(sys.argv[1], getattr(torch, sys.argv[2]))
print(peak() - before, sum(int(p.detach().view(-1)[::512].isnan().sum()) for p in model.parameters()), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("base", [tiny.DEEPSEEK, tiny.QWEN], ids=["stacked experts", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reading_needs_the_model_and_1_2_of_its_largest_tensor(base, dtype, tmp_path):
    """A file in bfloat16 of many tensors, none of them large."""
    experts = {"moe_intermediate_size": 1024} if base is tiny.DEEPSEEK else {}
    model = tiny.model(base, hidden_size=512, intermediate_size=2048, num_hidden_layers=8, num_nextn_predict_layers=0,
                       vocab_size=8192, **experts)
    save_model(tmp_path, model)
    command = [sys.executable, "-c", _MEMORY, str(tmp_path), dtype]
    # The least of some: now and then a process is counted 20 MiB more, whatever it does.
    results = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(4)]
    expected = sum(t.numel() for t in model.state_dict().values()) * (4 if dtype == "float32" else 2)
    largest = 8192 * 512 * 4
    slack = 8 * 2**20  # Python's own
    loaded, _, read = min([int(number) for number in result.stdout.split()] for result in results)
    assert loaded <= expected + 1.2 * largest + slack and expected < read <= expected + 1.2 * largest + slack


def test_where_no_model_is_named_broken_runs_are_passed_over_by_name(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert ships_with_package(default_model())
    for age, (name, index) in enumerate([("whole", {"order": ["base"], "stages": {"base": "model"}}), ("damaged", "{"),
                                         ("empty", {"order": [], "stages": {}}),
                                         ("gone", {"order": ["base"], "stages": {"base": "nowhere"}})]):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "run.json").write_text(index if isinstance(index, str) else json.dumps(index))
        os.utime(run / "run.json", (1000 + age, 1000 + age))  # the broken ones are younger
    shutil.copytree(folder, tmp_path / "runs" / "whole" / "model")
    (tmp_path / "runs" / "whole" / "model" / "generation_config.json").write_text("{}")
    (tmp_path / "runs" / "whole" / "model" / "manifest.json").write_text('{"kind": "sft"}')
    assert default_model().resolve() == (tmp_path / "runs" / "whole" / "model").resolve()
    said = capsys.readouterr().err
    assert all(name in said for name in ("damaged", "empty", "gone")) and "whole" not in said


def test_the_shipped_model_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("nano") == locate(SHIPPED_RUN) and locate("nano", "distilled") == locate(SHIPPED_RUN, "distilled")
    (tmp_path / "nano").mkdir()  # a folder of that name is meant where there is one
    with pytest.raises(UserError, match="neither a run"):
        locate("nano")
