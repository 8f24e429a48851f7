"""Lets every test import `tiny`, keeps hypothesis repeatable, and makes the few shared parts once."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import tiny
from hypothesis import HealthCheck, settings

settings.register_profile("spoutnik", deadline=None, derandomize=True, max_examples=40, database=None,
                          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.load_profile("spoutnik")


@pytest.fixture(scope="session")
def tokenizer():
    return tiny.tokenizer()
