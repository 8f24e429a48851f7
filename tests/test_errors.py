"""Sentences for others name no folder of this machine; memory that is used up is known by whatever says it."""

import re
from pathlib import Path

import pytest
import torch

from spoutnik.commands import main
from spoutnik.errors import hide_paths, is_out_of_memory


@pytest.mark.parametrize("message", [
    "see /v1/models and /v1/chat/completions", "http://127.0.0.1:8000/v1/models", "one and/or two, 3 / 4, a//b, </think>",
    "at /properties/a/items it cannot be promised", "model = 'org/name': there is none", "chat_template.jinja: is refused"])
def test_what_is_no_path_of_this_machine_stays(message):
    assert hide_paths(message) == message


def test_of_paths_only_the_name_is_left(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "config.json"
    assert hide_paths(f"{path}: is damaged. Delete {path.parent}.") == "config.json: is damaged. Delete sub."
    assert hide_paths(f"cannot read '{path}' (it)") == "cannot read 'config.json' (it)"
    assert hide_paths("~/models/nano: not found") == "nano: not found"
    monkeypatch.setattr(Path, "home", lambda: Path("/home/Jo Doe"))
    assert hide_paths("/home/Jo Doe/a model/config.json: is damaged") == "a model/config.json: is damaged"


def torchs_own() -> Exception:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    return error.value


@pytest.mark.parametrize("error, expected", [
    (torchs_own(), True), (torch.OutOfMemoryError("CUDA out of memory."), True), (MemoryError(), True),
    (RuntimeError("std::bad_alloc"), True), (OSError(12, "Cannot allocate memory"), True),
    (RuntimeError("can't start new thread"), True), (RuntimeError("shapes differ"), False),
    (ValueError("cannot allocate memory"), False)])
def test_memory_that_is_used_up_is_known(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("command, remedy", [
    ("run", r"or lower micro_batch_tokens .* in the recipe. What was finished is kept; run the same command again"),
    ("chat", r"or take a smaller model, a packed one \(--quantize int8\) or a shorter context.$")])
def test_a_command_without_memory_ends_with_a_sentence(monkeypatch, command, remedy):
    monkeypatch.setattr(main.sys, "argv", ["spoutnik", command])
    sentence, status = main._sentence(torchs_own())
    assert status == 1 and re.search(remedy, sentence)
