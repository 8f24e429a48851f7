"""Lets every test import `tiny`, keeps hypothesis repeatable, and makes the few shared parts once."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import tiny
import torch
from hypothesis import HealthCheck, settings

from spoutnik import gguf_folder
from spoutnik.commands.progress import SilentDisplay
from spoutnik.engine import sampler
from spoutnik.engine.quantization import packed_cache
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.recipe.run import run_recipe
from spoutnik.tasks.audit import cache as audit_cache

# For every package that needs a model behind the API or a generation service, and for the page with and without a browser.
pytest_plugins = ["serving_fixtures", "page.conversation_fixtures", "page.browser_fixtures"]

settings.register_profile("spoutnik", deadline=None, derandomize=True, max_examples=40, database=None,
                          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.load_profile("spoutnik")


def pytest_addoption(parser):
    parser.addoption("--gpu-device", help="Where the tests marked cuda run; without it on the GPU, and not at all without one.")


@pytest.fixture
def gpu(request) -> torch.device:
    """For tests marked cuda."""
    device = request.config.getoption("--gpu-device") or "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device(device)


@pytest.fixture(scope="session")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The tiny recipe up to its cold start, to be read, not written to."""
    out = tmp_path_factory.mktemp("tiny") / "run"
    run_recipe(Path(__file__).parent / "recipe" / "tiny.yaml", out, SilentDisplay(), until="cold_start")
    return out


@pytest.fixture(scope="session", autouse=True)
def packed_weights_apart(tmp_path_factory):
    """Packed weights of tests neither lie in the user's cache nor in its list."""
    folder, original = tmp_path_factory.mktemp("cache"), packed_cache.cache_folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_cache, "cache_folder", lambda: original() if "XDG_CACHE_HOME" in os.environ else folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def gguf_folders_apart(tmp_path_factory):
    """What is made of the GGUF files of tests does not lie in the user's cache."""
    folder, original = tmp_path_factory.mktemp("gguf"), gguf_folder.cache_folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_folder, "cache_folder", lambda: original() if "XDG_CACHE_HOME" in os.environ else folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def audits_apart(tmp_path_factory):
    """Reports on verifiers are kept for the session, not in the user's cache."""
    folder, original = tmp_path_factory.mktemp("audits"), audit_cache.cache_folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_cache, "cache_folder", lambda: original() if "XDG_CACHE_HOME" in os.environ else folder)
        yield


@pytest.fixture
def plain_kernels(monkeypatch):
    """Decoding as on a machine without a compiler."""
    monkeypatch.setattr(sampler, "library", lambda: None)
    monkeypatch.setattr(NativeRunner, "supports", staticmethod(lambda config, device, dtype: False))


@pytest.fixture(params=["native", "plain"])
def kernels(request):
    """Decoding by the native kernels, then by their plain twins."""
    if request.param == "plain":
        request.getfixturevalue("plain_kernels")
    elif sampler.library() is None:
        pytest.skip("no compiler here: the plain twin is what runs")
