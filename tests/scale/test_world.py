"""Several processes: the same bytes on 1, 2, 3 and 4 of them; and what ends one ends all, in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from scale import worlds
from small_recipe import SMALL, TRACES

from spoutnik.commands.progress import SilentDisplay
from spoutnik.files import read_json, sha256_file
from spoutnik.model.weights import load_tensors
from spoutnik.recipe.run import run_recipe

SIZES = {2: list(worlds.METHODS), 3: [], 4: ["grpo", "samples", "billed"]}  # processes -> methods beside pretraining
# What happens to one of two processes, to be found out by the others.
ENDS = {
    "killed": {"happens": "killed"}, "bare-killed": {"happens": "killed", "bare": True},
    "leader-killed": {"happens": "killed", "rank": 0}, "error": {"happens": "error"},
    "leader-error": {"happens": "error", "rank": 0}, "memory": {"happens": "memory"}, "same-error": {"work": "same error"},
    "stuck": {"happens": "stuck", "timeout": 2.0}, "stopped": {"happens": "stopped", "timeout": 2.0},
    "leader-stopped": {"happens": "stopped", "rank": 0, "timeout": 1.0}, "other": {"other": 1},
    "absent": {"absent": 1, "environment": {"SPOUTNIK_JOIN_SECONDS": "2"}},
}


def small_grpo(folder: Path) -> Path:
    """A base, a fine-tuning and reinforcement learning whose rewards differ by form alone."""
    values = yaml.safe_load(SMALL.read_text())
    values |= {"scale": {"virtual_shards": 4}, "validation": {"problems": 3, "looks": 1}}
    values["stages"]["mine"]["settings"]["epochs"] = 12
    values["stages"]["rl"] = {"kind": "grpo", "from": "mine", "settings": {
        "steps": 3, "prompts_per_step": 5, "group_size": 4, "max_tokens": 16, "learning_rate": 1.0e-2}}
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TRACES))
    return folder / "recipe.yaml"


ACCEPT = ["base", "mine", "rl"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What all processes left: training by 2, 3 and 4, a recipe by 2, and two of which one has some accident."""
    out = tmp_path_factory.mktemp("worlds")
    recipe = small_grpo(out / "recipe")
    command = ["run", str(recipe), "--json", "--out", str(out / "run"), *(f"--accept={name}" for name in ACCEPT)]
    cases = [{"name": f"training-{size}", "size": size, "work": "training", "methods": methods}
             for size, methods in SIZES.items()]
    cases += [{"name": "command", "size": 2, "work": "command", "arguments": command}]
    cases += [{"name": name, "size": 2, "work": "exchange", **case} for name, case in ENDS.items()]
    (out / "plan.json").write_text(json.dumps(cases))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    program = [sys.executable, str(Path(worlds.__file__)), str(out), str(out / "plan.json")]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return out


def said(out: Path, name: str) -> dict[int, str]:
    return {rank: (out / f"{name}-{rank}.txt").read_text() for rank in range(4) if (out / f"{name}-{rank}.txt").exists()}


def ended(out: Path, name: str) -> dict[int, tuple[int, float]]:
    """Rank -> exit status, and seconds after which."""
    found = {rank: (out / f"{name}-{rank}.status").read_text().split() for rank in range(4)
             if (out / f"{name}-{rank}.status").exists()}
    return {rank: (int(status), float(seconds)) for rank, (status, seconds) in found.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes, on all cores of this machine."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, json.loads(json.dumps(worlds.training(folder)))


@pytest.mark.parametrize("size, method", [(size, method) for size, methods in SIZES.items()
                                          for method in ("fixed", *methods)])
def test_the_bytes_do_not_depend_on_the_number_of_processes(out, alone, size, method):
    for rank in range(size):
        result = out / f"training-{size}-{rank}.json"
        assert result.exists(), said(out, f"training-{size}")
        assert json.loads(result.read_text())[method] == alone[1][method]


@pytest.mark.parametrize("size", SIZES)
def test_without_virtual_shards_20_steps_differ_by_rounding_alone(out, alone, size):
    folder, expected = alone[0], alone[1]["plain"]
    result = json.loads((out / f"training-{size}-0.json").read_text())["plain"]
    assert len(result["losses"]) == worlds.STEPS
    assert result["losses"] == pytest.approx(expected["losses"], rel=1e-6)
    assert result["loads"] == pytest.approx(expected["loads"])  # a token on the edge of two experts may change sides
    weights, others = (load_tensors(each / "plain" / "weights.safetensors") for each in (out / f"training-{size}", folder))
    assert all(torch.allclose(weights[name], others[name], atol=1e-3) for name in others)


def results(run: Path) -> dict[str, object]:
    """Everything but times."""
    manifests = {file.parent.name: read_json(file) for file in run.glob("artifacts/*/manifest.json")}
    found = {name: (manifest["content"], manifest["key"]) for name, manifest in manifests.items()}
    found |= {file.relative_to(run).as_posix(): sha256_file(file) for file in run.glob("evaluations/*/*.jsonl")}
    return found | {file.parent.name + " log": worlds.rows([json.loads(line) for line in file.read_text().splitlines()])
                    for file in run.glob("artifacts/*/log.jsonl")}


def test_a_recipe_by_two_processes_is_the_recipe_by_one(out, tmp_path):
    assert ended(out, "command") == {0: (0, pytest.approx(0, abs=250)), 1: (0, pytest.approx(0, abs=250))}, said(out, "command")
    run_recipe(out / "recipe" / "recipe.yaml", tmp_path / "run", SilentDisplay(), accept=ACCEPT)
    alone = results(tmp_path / "run")
    assert results(out / "run") == alone and len(alone) > 8
    log = next(rows for name, rows in alone.items() if name.startswith("rl-") and name.endswith("log"))
    assert any(row["zero_variance"] < 1 for row in log)  # something was learned from rewards
    assert not list((out / "run" / "working").iterdir())
    told = said(out, "command")
    assert told[1] == "" and json.loads(told[0].splitlines()[-1])["out"] == str(out / "run")


@pytest.mark.parametrize("name", sorted(ENDS))
def test_what_ends_one_ends_all_in_bounded_time(out, name):
    statuses = ended(out, name)
    assert all(status != 0 and seconds < 60 for status, seconds in statuses.values())
    assert len(statuses) == (1 if name == "absent" else 2)
    assert "Traceback" not in "".join(said(out, name).values())


@pytest.mark.parametrize("name, rank, sentence", [
    ("killed", 0, "rank 0 of 2 on {host}: rank 1 ended without a word: killed, out of memory, or its machine went down."),
    ("bare-killed", 0, "rank 0 of 2 on {host}: rank 1 ended without a word: killed, out of memory, or its machine went down."),
    ("leader-killed", 1, "rank 1 of 2 on {host}: rank 0 ended without a word"),
    ("error", 1, "rank 1 of 2 on {host}: /full/disk: the disk is full while saving. Free some space."),
    ("leader-error", 0, "rank 0 of 2 on {host}: /full/disk: the disk is full while saving. Free some space."),
    ("memory", 1, "rank 1 of 2 on {host}: the memory of this machine is used up. Start fewer processes on it"),
    ("stuck", 0, "the run hangs: nothing was finished for 2 s, and rank 1 is at one piece of work that does not end."),
    ("stopped", 0, "the run hangs: nothing was finished for 2 s, and rank 1 gives no sign of life."),
    ("leader-stopped", 1, "rank 1 of 2 on {host}: the run hangs: what rank 0 serves has not answered for 1 s."),
    ("absent", 0, "rank 0 of 2 on {host}: rank 1 did not come within 2 s."),
])
def test_one_process_says_what_happened(out, name, rank, sentence):
    told = said(out, name)
    assert sentence.format(host=os.uname().nodename) in told[rank]
    assert all(text == "" for other, text in told.items() if other != rank)


def test_an_error_that_all_meet_is_told_once(out):
    told = "".join(said(out, "same-error").values())
    assert told.count("the loss exploded at step 3") == 1
    told = "".join(said(out, "other").values())
    assert told.count("the recipe's text of rank 1") == 1 and "(other) differs from that of rank 0" in told


def test_the_stacks_of_a_hang_say_where_each_process_is(out):
    stacks = {file.name: file.read_text() for file in (out / "stuck-stacks").iterdir()}
    assert "stuck_for_ever" in stacks["rank-1.txt"] and "gather" in stacks["rank-0.txt"]
    assert str(out / "stuck-stacks") in said(out, "stuck")[0]
