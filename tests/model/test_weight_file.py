"""Files of weights that change while they are read or mapped."""

import os

import pytest
import tiny
import torch

from spoutnik.errors import RunError
from spoutnik.model.checkpoint import Checkpoint
from spoutnik.model.weight_file import BLOCK, WeightFile, sample_spans, states
from spoutnik.model.weights import Reader, load_model, save_model


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)) * 256)
    return path


def rewrite(path, position: int, data: bytes, keep_time: bool = False) -> None:
    """In place, as a program does that opens the file for writing."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns if keep_time else before.st_mtime_ns + 10**9))


def read(file: WeightFile, count: int = 4) -> bytes:
    target = bytearray(count)
    file.read_into(0, memoryview(target))
    return bytes(target)


@pytest.mark.parametrize("replace", [
    lambda path, other: os.replace(other, path),
    lambda path, other: path.unlink(),
    lambda path, other: os.link(path, path.with_name("another name")),
    lambda path, other: path.chmod(0o400),
], ids=["replaced by a new file", "deleted", "linked", "made read-only"])
def test_what_becomes_of_the_name_does_no_harm(path, replace, tmp_path):
    file = WeightFile(path)
    mapping = file.map()
    (tmp_path / "new").write_bytes(b"new")
    replace(path, tmp_path / "new")
    file.check()
    assert read(file) == mapping[:4] == bytes(range(4))


@pytest.mark.parametrize("change", [
    lambda path: path.write_bytes(b""),
    lambda path: os.truncate(path, 65_000),
    lambda path: path.write_bytes(path.read_bytes() + b"more"),
    lambda path: rewrite(path, 30_000, b"x"),
    lambda path: rewrite(path, 30_000, b"x", keep_time=True),
], ids=["emptied", "cut off", "longer", "another byte", "another byte, time set back"])
def test_what_is_written_into_a_mapped_file_is_found(path, change):
    file = WeightFile(path)
    mapping = file.map()
    file.check()
    change(path)
    with pytest.raises(RunError, match=rf"{path}: was changed while it was in use"):
        file.check()
    del mapping


def test_a_file_cut_off_while_it_is_read_is_a_sentence(path):
    file = WeightFile(path)
    os.truncate(path, 2)
    with pytest.raises(RunError, match=rf"{path}: became shorter while it was read"):
        read(file)


def test_a_file_that_is_not_the_one_whose_header_was_read_is_refused(path, tmp_path):
    before = states([path, tmp_path / "missing"])
    WeightFile(path, before[path])
    (tmp_path / "new").write_bytes(path.read_bytes())
    os.replace(tmp_path / "new", path)
    with pytest.raises(RunError, match="was changed"):
        WeightFile(path, before[path])


@pytest.mark.parametrize("mapped", [False, True])
def test_a_checkpoint_replaced_between_header_and_weights_is_refused(tmp_path, mapped):
    save_model(tmp_path, tiny.model(tiny.QWEN), torch.float32)
    checkpoint = Checkpoint.open(tmp_path)
    save_model(tmp_path, tiny.model(tiny.QWEN, seed=1), torch.float32)
    with pytest.raises(RunError, match=r"model\.safetensors: was changed"):
        Reader(checkpoint, mapped).stored("model.norm.weight")


def test_a_model_read_into_memory_does_not_change_with_its_file(tmp_path):
    save_model(tmp_path, tiny.model(tiny.QWEN), torch.float32)
    model, ids = load_model(tmp_path), tiny.tokens(1, 20)
    before = model(ids)
    os.truncate(tmp_path / "model.safetensors", 0)  # mapped, it would end the process
    assert torch.equal(model(ids), before)


def test_mapped_tensors_lie_in_their_file(tmp_path):
    save_model(tmp_path, tiny.model(tiny.QWEN), torch.float32)
    mapped, in_memory = load_model(tmp_path, mapped=True), load_model(tmp_path)
    storages = {parameter.untyped_storage().data_ptr() for parameter in mapped.parameters()}
    assert len(storages) == 1 and all(torch.equal(a, b) for a, b in zip(mapped.parameters(), in_memory.parameters()))


@pytest.mark.parametrize("size", [0, 1, 16 * BLOCK, 16 * BLOCK + 1, 10**12])
def test_samples_are_all_of_a_small_file_and_blocks_all_over_a_large_one(size):
    spans = sample_spans(size, 16)
    assert spans[0][0] == 0 and sum(spans[-1]) == size
    assert len(spans) == (1 if size <= 16 * BLOCK else 16)
