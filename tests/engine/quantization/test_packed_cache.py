"""Packed weights on disk: whose they are, several that make them at once, killed ones, and disks that cannot be written."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import tiny
import torch
from packed_logits import logits_of

from spoutnik.engine.quantization import packed_cache
from spoutnik.engine.quantization.packed_cache import packed_entries, packed_name, remove_entries
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.errors import RunError
from spoutnik.files import replacing
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.weights import save_model
from spoutnik.native import library

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here: the plain twin is what runs")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(packed_cache, "cache_folder", lambda: folder)
    monkeypatch.setattr(packed_cache, "_reported", set())
    return folder


def saved(folder, seed: int = 0, base: dict = tiny.QWEN, mtime: int | None = 1):
    """A model whose files have the time that some packers of containers give to all."""
    save_model(folder, tiny.model(base, seed=seed), torch.float32)
    if mtime is not None:
        os.utime(folder / "model.safetensors", (mtime, mtime))
    return folder


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "model")


@pytest.fixture
def read_only(monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)


def packed(folder, quantize: str = "int8", **options) -> NativeRunner:
    return NativeRunner.of_folder(folder, torch.float32, quantize, **options)


def files(folder) -> list[str]:
    return sorted(path.name for path in (folder / "spoutnik-packed").iterdir())


def test_two_models_of_one_name_size_and_time_never_share(tmp_path, read_only):
    runners = [packed(saved(tmp_path / place / "model", seed)) for seed, place in enumerate("ab")]
    expected = [NativeRunner.of_model(tiny.model(tiny.QWEN, seed=seed), "int8") for seed in range(2)]
    assert all(torch.equal(logits_of(a), logits_of(b)) for a, b in zip(runners, expected))
    assert not torch.equal(*map(logits_of, runners)) and len(packed_entries()) == 2


def test_the_same_model_in_two_places_has_two_folders_in_the_cache(tmp_path, read_only, cache):
    for place in "ab":
        packed(saved(tmp_path / place / "model"))
    assert len([path for path in (cache / "packed").iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("sampled", [False, True])
def test_weights_replaced_with_equal_size_and_time_are_found(folder, sampled, monkeypatch):
    if sampled:  # as of a file of gigabytes
        monkeypatch.setattr(packed_cache, "BLOCKS", 4)
    first = packed(folder)
    size = (folder / "model.safetensors").stat().st_size
    saved(folder, seed=1)
    assert (folder / "model.safetensors").stat().st_size == size and (folder / "model.safetensors").stat().st_mtime == 1
    assert torch.equal(logits_of(packed(folder)), logits_of(NativeRunner.of_model(tiny.model(tiny.QWEN, seed=1), "int8")))
    assert not torch.equal(logits_of(packed(folder)), logits_of(first))
    assert [entry.state for entry in packed_entries(folder)].count("outdated") == 1


@pytest.mark.parametrize("place", [0.0, 0.3, 0.999])
def test_one_byte_of_a_small_model_makes_another_name(folder, place):
    before, path = packed_name(Checkpoint.open(folder), "int8"), folder / "model.safetensors"
    tensors = Checkpoint.open(folder).tensors.values()
    start, end = min(t.start for t in tensors), path.stat().st_size
    data = bytearray(path.read_bytes())
    data[start + int(place * (end - start))] ^= 1
    path.write_bytes(data)
    os.utime(path, (1, 1))
    assert packed_name(Checkpoint.open(folder), "int8") != before


def test_the_name_is_the_same_where_the_model_is_moved_or_copied(folder, tmp_path):
    before = packed_name(Checkpoint.open(folder), "int4")
    folder.rename(tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere" / "model.safetensors", (7, 7))
    assert packed_name(Checkpoint.open(tmp_path / "elsewhere"), "int4") == before


def test_another_packing_makes_another_name(folder, monkeypatch):
    checkpoint = Checkpoint.open(folder)
    names = [packed_name(checkpoint, kind) for kind in ("int8", "int4")]
    monkeypatch.setattr(packed_cache, "PACKING_VERSION", 99)
    names.append(packed_name(checkpoint, "int4"))
    original = packed_cache.pack

    def changed(weights, kind):
        result = original(weights, kind)
        result.data[0, 40] ^= 1
        return result

    monkeypatch.setattr(packed_cache, "pack", changed)
    packed_cache.packing_digest.cache_clear()
    names.append(packed_name(checkpoint, "int4"))
    packed_cache.packing_digest.cache_clear()
    assert len(set(names)) == 4


def test_the_packing_is_known_by_bytes_that_are_always_written():
    """Bytes that a format leaves as the memory was would make a new name in each process."""
    digests = set()
    for byte in range(20):
        junk = [torch.full((size,), byte, dtype=torch.uint8) for size in (5_000, 20_000, 40_000, 80_000) for _ in range(4)]
        del junk
        packed_cache.packing_digest.cache_clear()
        digests.add(packed_cache.packing_digest())
    assert len(digests) == 1


@pytest.mark.parametrize("locks", [True, False])
def test_threads_that_pack_one_folder_at_once_all_succeed(folder, locks, monkeypatch):
    if not locks:  # as on some network disks
        monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    barrier, results = threading.Barrier(4), []

    def work() -> None:
        barrier.wait()
        results.append(logits_of(packed(folder)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(results[0], other) for other in results)
    assert len(files(folder)) == 1


_PACK = """
import sys, time
from pathlib import Path
import torch
from spoutnik.engine.runners.native_runner import NativeRunner
def progress(done, total):
    if sys.argv[2] == "stay" and done:
        print("writing", flush=True)
        sys.stdin.read()
torch.set_num_threads(1)
print("ready", flush=True)
sys.stdin.readline()
runner = NativeRunner.of_folder(Path(sys.argv[1]), torch.float32, "int8", progress=progress)
print("packed", flush=True)
"""


def start(folder, how: str = "go") -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", _PACK, str(folder), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_processes_that_pack_one_folder_at_once_all_succeed(folder):
    processes = [start(folder) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [output for output, _ in outputs] == ["packed\n"] * 3, outputs
    assert len(files(folder)) == 1


def test_what_a_killed_process_leaves_is_gone_after_the_next_use(folder):
    process = start(folder, "stay")
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "writing\n"
    temporary, = files(folder)
    assert ".writing-" in temporary and not packed_entries(folder)  # it is alive
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close(), process.stdout.close(), process.stderr.close()
    assert [entry.state for entry in packed_entries(folder)] == ["left over"]
    packed(folder)
    assert files(folder) == [packed_name(Checkpoint.open(folder), "int8")]


def test_what_a_living_one_writes_is_left_alone(folder):
    with replacing(folder / "spoutnik-packed" / "int8-other.safetensors") as temporary:
        temporary.write_text("half")
        packed(folder)
        assert temporary.read_text() == "half" and not [e for e in packed_entries(folder) if e.state == "left over"]
    assert (folder / "spoutnik-packed" / "int8-other.safetensors").read_text() == "half"


def block(path):
    """Nothing can be written below it, by root neither."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def test_where_nothing_can_be_written_it_is_said_once_and_kept_in_memory(folder, cache, capsys):
    expected = logits_of(NativeRunner.of_model(tiny.model(tiny.QWEN), "int8"))
    block(folder / "spoutnik-packed"), block(cache / "packed")
    for _ in range(2):
        assert torch.equal(logits_of(packed(folder)), expected)
    printed = capsys.readouterr().err
    assert printed.count("kept in memory for this run alone") == 1 and "XDG_CACHE_HOME" in printed and "--" not in printed


@pytest.mark.parametrize("full", ["known before", "in the middle"])
def test_a_full_disk_is_no_obstacle_either(folder, full, monkeypatch, capsys):
    if full == "known before":
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    else:
        monkeypatch.setattr(packed_cache, "write_packed", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert torch.isfinite(logits_of(packed(folder))).all()
    assert "kept in memory" in capsys.readouterr().err
    assert not [name for name in files(folder)]


def test_experts_that_do_not_fit_need_a_disk(tmp_path, cache):
    folder = saved(tmp_path / "model", base=tiny.DEEPSEEK)
    block(folder / "spoutnik-packed"), block(cache / "packed")
    with pytest.raises(RunError, match=r"the weights take .* Set XDG_CACHE_HOME to a folder"):
        packed(folder, memory=1000)


def test_a_checkpoint_that_changes_while_it_is_packed_leaves_no_file(folder):
    def progress(done: int, total: int) -> None:
        os.utime(folder / "model.safetensors", (2, 2))

    with pytest.raises(RunError, match=r"model\.safetensors: was changed while it was in use"):
        packed(folder, progress=progress)
    assert not files(folder)


@pytest.mark.parametrize("harm", [lambda data: data[:-7], lambda data: data[:-7] + b"another", lambda data: b"",
                                  lambda data: b"x" * len(data)],
                         ids=["cut off", "rewritten", "empty", "something else"])
def test_a_packed_file_that_was_damaged_is_named(folder, harm):
    packed(folder)
    path, = (folder / "spoutnik-packed").iterdir()
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(RunError, match=rf"{path}: is damaged"):
        packed(folder)
    assert [entry.state for entry in packed_entries(folder)] == ["damaged"]


def test_the_list_says_what_is_of_use(tmp_path):
    kept, gone, changed = (saved(tmp_path / name) for name in ("kept", "gone", "changed"))
    for folder in (kept, gone, changed):
        packed(folder)
    (gone / "config.json").unlink()
    saved(changed, seed=1)
    states = {entry.model.name: entry.state for entry in packed_entries()}
    assert states == {"kept": "current", "gone": "no model", "changed": "outdated"}
    assert [entry.kind for entry in packed_entries(kept)] == ["int8"]
    removed = remove_entries(entry for entry in packed_entries() if entry.state != "current")
    assert {entry.model.name for entry in removed} == {"gone", "changed"}
    assert [entry.model.name for entry in packed_entries()] == ["kept"] and not (gone / "spoutnik-packed").exists()
    remove_entries(packed_entries())
    assert packed_entries() == [] and not (kept / "spoutnik-packed").exists()
