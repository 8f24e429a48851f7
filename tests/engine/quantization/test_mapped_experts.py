"""Experts that stay in their file, and what happens to it meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from packed_logits import logits_of

from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.errors import RunError
from spoutnik.model.weights import save_model
from spoutnik.native import library

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here: the plain twin is what runs")


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path, tiny.model(tiny.DEEPSEEK), torch.float32)
    return tmp_path


def with_experts_on_disk(folder: Path) -> tuple[NativeRunner, Path]:
    whole = NativeRunner.of_folder(folder, torch.float32, "int8")
    experts = sum(packed.nbytes for key, packed in whole.packed.items() if ".experts_" in key)
    runner = NativeRunner.of_folder(folder, torch.float32, "int8", memory=int((whole.weights_nbytes - experts) / 0.9) + 8)
    assert runner.offload is not None and runner.offload.slots == 0
    path, = (folder / "spoutnik-packed").iterdir()
    return runner, path


@pytest.mark.parametrize("harm", ["replaced", "deleted"])
def test_a_packed_file_that_loses_its_name_goes_on_being_read(folder, harm):
    runner, path = with_experts_on_disk(folder)
    before = logits_of(runner)
    if harm == "replaced":
        path.with_name("new").write_bytes(b"another")
        os.replace(path.with_name("new"), path)
    else:
        path.unlink()
    assert torch.equal(logits_of(runner), before)


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_packed_file_that_is_rewritten_in_place_ends_the_step_that_read_it(folder, keep_time):
    runner, path = with_experts_on_disk(folder)
    logits_of(runner)
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(before.st_size // 2)
        file.write(bytes(1000))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if keep_time else 10**9)))
    with pytest.raises(RunError, match=rf"{path}: was changed while it was in use"):
        logits_of(runner)
    with pytest.raises(RunError, match="was changed"):
        runner.check_files()


_CUT_OFF = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[3]]
import faulthandler
faulthandler.enable()
from packed_logits import logits_of
from test_mapped_experts import with_experts_on_disk
runner, path = with_experts_on_disk(Path(sys.argv[1]))
logits_of(runner)
os.truncate(path, int(sys.argv[4]))
try:
    logits_of(runner)
except ValueError as error:
    print(error)
if sys.argv[5] == "unguarded":
    import mmap
    with open(sys.argv[1] + "/model.safetensors", "rb") as file:
        other = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(sys.argv[1] + "/model.safetensors", 0)
    print(other[0])
"""


def cut_off(folder: Path, size: int, how: str = "") -> subprocess.CompletedProcess:
    here = Path(__file__).parent
    return subprocess.run([sys.executable, "-c", _CUT_OFF, str(folder), str(here), str(here.parents[1]), str(size), how],
                          capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("size", [0, 4096, (2 << 20) + 8192], ids=["emptied", "to a page", "in the middle of the weights"])
def test_a_packed_file_that_is_cut_off_does_not_end_the_process(folder, size):
    done = cut_off(folder, size)
    assert done.returncode == 0 and "was changed while it was in use" in done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="of the signals that Linux sends")
def test_faults_of_others_are_left_to_who_handled_them_before(folder):
    done = cut_off(folder, 0, "unguarded")
    assert done.returncode < 0 and "was changed" in done.stdout and "Fatal Python error: Bus error" in done.stderr
