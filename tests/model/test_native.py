"""The compiled library: where it lives, and what it must leave alone."""

import os
import subprocess
import sys

import pytest

from spoutnik.native import library

DENORMALS = """
import torch
from spoutnik.native import library
tiny = torch.tensor([1e-40])
before = float(tiny * 1)
library()
print(before == float(tiny * 1))
"""


def python(script: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env=os.environ | environment)
    return done.stdout.strip()


@pytest.mark.skipif(library() is None, reason="no compiler here")
def test_loading_the_library_does_not_change_the_processor_s_arithmetic():
    assert python(DENORMALS) == "True"


def test_the_library_is_refused_by_its_variable_and_absent_without_a_compiler(tmp_path):
    script = "from spoutnik.native import library; print(library())"
    assert python(script, SPOUTNIK_NATIVE="0") == "None"
    assert python(script, CXX="/bin/false", XDG_CACHE_HOME=str(tmp_path)) == "None"
    assert python(script, CXX=str(tmp_path / "nowhere"), XDG_CACHE_HOME=str(tmp_path)) == "None"
