"""Lets the tests of this folder import their shared helpers; one warm sandbox for all of them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from spoutnik.tasks.code import Sandbox  # noqa: E402


@pytest.fixture(scope="session")
def warm():
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="session")
def cold():
    return Sandbox(warm=False)
