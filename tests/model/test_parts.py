"""Files that several processes write: those of one are byte for byte the library's."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch

from spoutnik.errors import RunError
from spoutnik.model import parts
from spoutnik.model.parts import Entry, Part, published_entries, published_pieces, read_rows, save_parts, save_pieces, shapes_in
from spoutnik.model.weights import load_tensors, save_model, save_tensors
from spoutnik.world import World

TENSORS = {"b.weight": torch.randn(5, 3), "a.weight": torch.randn(2, 3, 4).bfloat16(), "step": torch.tensor(7.0),
           "ids": torch.arange(4), "empty": torch.zeros(0, 3), "bias": torch.randn(9)}


def test_one_process_writes_the_librarys_bytes(tmp_path):
    save_tensors(tmp_path / "library.safetensors", TENSORS)
    save_parts(tmp_path / "ours.safetensors", {name: Part.whole(tensor) for name, tensor in TENSORS.items()})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "library.safetensors").read_bytes()
    assert shapes_in(tmp_path / "ours.safetensors") == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", sorted(tiny.ALL))
def test_a_model_in_its_published_layout(kind, tmp_path):
    model = tiny.model(tiny.ALL[kind])
    save_model(tmp_path, model)
    held = {name: Part.whole(tensor) for name, tensor in model.state_dict().items()}
    entries, pieces = published_entries(held, model.config, torch.bfloat16), published_pieces(held, model.config)
    save_pieces(tmp_path / "ours.safetensors", entries, pieces, {"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_rows_of_two_processes_meet_in_one_file(tmp_path):
    whole = torch.randn(7, 4)
    pieces = [("w", 4, whole[4:]), ("w", 0, whole[:4])]  # in whichever order
    save_pieces(tmp_path / "file.safetensors", {"w": Entry(torch.float32, (7, 4))}, pieces)
    assert torch.equal(load_tensors(tmp_path / "file.safetensors")["w"], whole)
    part = Part(torch.zeros(3, 4), 2, (7, 4))
    read_rows(tmp_path / "file.safetensors", {"w": part, "not there": part})
    assert torch.equal(part.rows, whole[2:5])


def test_no_two_files_on_the_way_have_one_name(tmp_path, monkeypatch):
    """A machine that sees a folder as it was must not find there what it is to write to now."""
    opened, open_file = [], parts.os.open
    monkeypatch.setattr(parts.os, "open", lambda path, *flags: opened.append(path) or open_file(path, *flags))
    for _ in range(2):
        save_parts(tmp_path / "file.safetensors", {"w": Part.whole(torch.zeros(7, 4))})
    names = [path.name for path in opened if path.name.endswith(".parts")]
    assert len(names) == len(set(names)) == 2


def test_a_file_that_another_machine_has_made_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "world", lambda: World(1, 2))
    with ThreadPoolExecutor(1) as pool:
        descriptor = pool.submit(parts._opened, tmp_path / "file")
        time.sleep(0.3)
        (tmp_path / "file").write_bytes(b"")
        os.close(descriptor.result())
    monkeypatch.setattr(parts, "_PATIENCE", 0.0)
    with pytest.raises(FileNotFoundError):
        parts._opened(tmp_path / "none")


def test_a_file_of_another_model_is_refused(tmp_path):
    save_parts(tmp_path / "file.safetensors", {"w": Part.whole(torch.zeros(7, 4))})
    with pytest.raises(RunError, match=r"w has the shape \(7, 4\), and the model's is \(8, 4\)"):
        read_rows(tmp_path / "file.safetensors", {"w": Part(torch.zeros(4, 4), 0, (8, 4))})
    (tmp_path / "file.safetensors").write_bytes(b"12345")
    with pytest.raises(RunError, match="is damaged"):
        read_rows(tmp_path / "file.safetensors", {"w": Part(torch.zeros(4, 4), 0, (8, 4))})
    with pytest.raises(RunError, match="not found"):
        read_rows(tmp_path / "none.safetensors", {"w": Part(torch.zeros(4, 4), 0, (8, 4))})
