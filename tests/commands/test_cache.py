"""`spoutnik cache`: what is kept, and getting rid of it."""

import json
import os

import pytest
import tiny
import torch

from spoutnik.commands.main import app
from spoutnik.engine.quantization import packed_cache
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.errors import UserError
from spoutnik.model.weights import save_model
from spoutnik.native import library

pytestmark = pytest.mark.skipif(library() is None, reason="nothing is packed without a compiler")


@pytest.fixture
def cache(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(packed_cache, "cache_folder", lambda: tmp_path / "cache")

    def run(*arguments: str) -> str:
        capsys.readouterr()
        app(["cache", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def models(cache, tmp_path):
    """One packed in two precisions, one in one."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(folders):
        save_model(folder, tiny.model(tiny.QWEN, seed=seed), torch.float32)
        for quantize in ("int8", "int4")[seed:]:
            NativeRunner.of_folder(folder, torch.float32, quantize)
    return folders


def kept(cache) -> list[tuple[str, str]]:
    return sorted((os.path.basename(file["model"]), file["precision"]) for file in json.loads(cache("--json"))["files"])


def test_the_list_has_size_precision_age_state_and_model(cache, models):
    listed = json.loads(cache("--json"))
    assert listed["bytes"] == sum(file["bytes"] for file in listed["files"]) > 0
    assert all(file["state"] == "current" and 0 <= file["age_seconds"] < 3600 for file in listed["files"])
    lines = cache().splitlines()
    assert sum("current" in line and " MB " in line for line in lines) == 3 and sum("int4" in line for line in lines) == 2
    assert sum(str(models[0]) in line for line in lines) == 2 and lines[-1].endswith("in all")


def test_what_is_unused_is_deleted_and_the_rest_is_kept(cache, models):
    save_model(models[0], tiny.model(tiny.QWEN, seed=7), torch.float32)
    assert "spoutnik cache clean --unused" in cache()
    assert cache("clean", "--unused").startswith("Deleted 2 files, ") and kept(cache) == [("second", "int4")]
    assert cache("clean", "--unused") == "There was nothing to delete.\n"


def test_one_model_s_are_deleted_though_it_is_gone(cache, models):
    assert len(json.loads(cache("clean", str(models[0]), "--json"))["removed"]) == 2
    assert kept(cache) == [("second", "int4")]
    models[1].joinpath("config.json").unlink()
    models[1].rename(models[1].with_name("away"))
    cache("clean", str(models[1]))
    assert kept(cache) == []


def test_a_model_that_is_gone_from_the_home_folder(cache, models, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    models[1].rename(models[1].with_name("away"))
    cache("clean", "~/second")
    assert {name for name, _ in kept(cache)} == {"first"}


def test_everything_is_deleted(cache, models):
    cache("clean", "--all")
    assert cache() == "Nothing is kept.\n" and not (models[0] / "spoutnik-packed").exists()


@pytest.mark.parametrize("arguments", [["clean"], ["clean", "--all", "--unused"], ["clean", "model", "--all"]])
def test_what_to_delete_must_be_said(cache, arguments):
    with pytest.raises(UserError, match="a model, --unused or --all, one of them"):
        cache(*arguments)


def test_an_option_that_would_be_ignored_is_refused(cache):
    with pytest.raises(UserError, match="--json: write it behind clean"):
        cache("--json", "clean", "--all")
