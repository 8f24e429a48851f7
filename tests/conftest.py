"""Lets every test import `tiny`, keeps hypothesis repeatable, and makes the few shared parts once."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import tiny
from hypothesis import HealthCheck, settings

from spoutnik.engine import sampling
from spoutnik.engine.native_decoder import NativeDecoder

settings.register_profile("spoutnik", deadline=None, derandomize=True, max_examples=40, database=None,
                          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.load_profile("spoutnik")


@pytest.fixture(scope="session")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture
def plain_kernels(monkeypatch):
    """Decoding as on a machine without a compiler."""
    monkeypatch.setattr(sampling, "library", lambda: None)
    monkeypatch.setattr(NativeDecoder, "serves", staticmethod(lambda model: False))


@pytest.fixture(params=["native", "plain"])
def kernels(request):
    """Decoding by the native kernels, then by their plain twins."""
    if request.param == "plain":
        request.getfixturevalue("plain_kernels")
    elif sampling.library() is None:
        pytest.skip("no compiler here: the plain twin is what runs")
