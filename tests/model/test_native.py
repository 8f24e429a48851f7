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


def test_processes_that_start_at_once_compile_once(tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\nfor last; do :; done\necho "$last" >> {tmp_path}/log\n: > "$last"\n')  # empty results
    compiler.chmod(0o755)
    script = "from spoutnik.native import build; from pathlib import Path; import sys\n" \
             "build.load(sys.argv[1], Path(sys.argv[2]), dlopen=lambda path: None)"
    running = [subprocess.Popen([sys.executable, "-c", script, str(compiler), str(tmp_path / "cache")]) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    compiled = (tmp_path / "log").read_text().split()
    assert len(compiled) == len({name.rsplit("/", 1)[1] for name in compiled}) > 1  # each source once, and the library
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".so"]
