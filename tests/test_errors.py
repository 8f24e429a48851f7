"""Sentences for others name no folder of this machine."""

from pathlib import Path

import pytest

from spoutnik.errors import hide_paths


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
