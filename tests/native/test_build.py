"""Building the kernels: every reason why there are none is a sentence, said once."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spoutnik.native import build, describe, library, structs

SUCCEEDS = 'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo > "$2"; shift; done'  # leaves empty files where it should compile
FAILS = "echo 'starting' >&2; echo 'kernel.cpp:1: fatal error: no such header' >&2; exit 1"


@pytest.fixture()
def script(tmp_path):
    def write(name: str, body: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)
    return write


def reason(*args, **kwargs) -> str:
    with pytest.raises(build.Unavailable) as caught:
        build.load(*args, **kwargs)
    return str(caught.value)


def test_a_compiler_that_fails_is_quoted(script, tmp_path):
    assert reason(script("cc", FAILS), tmp_path / "cache").endswith("cc failed: kernel.cpp:1: fatal error: no such header")
    assert "failed: exit code 3" in reason(script("silent", "exit 3"), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_no_compiler_or_one_that_is_not_there(tmp_path):
    assert "Install g++" in reason(None, tmp_path)
    absent = reason(str(tmp_path / "nowhere"), tmp_path)
    assert "No such file" in absent and "CXX" in absent
    assert "is no command" in reason("g++ 'open", tmp_path)


def test_cxx_may_have_arguments_and_a_library_is_built_once(script, tmp_path, capsys):
    log = tmp_path / "log"
    compiler = script("cc", SUCCEEDS)
    command = script("ccache", f'echo $# >> {log}; exec "$@"') + " " + compiler
    for _ in range(2):
        _, path = build.load(command, tmp_path / "cache", "-DEXTRA", dlopen=Path)
        assert path.parent == tmp_path / "cache" and path.exists()
    assert capsys.readouterr().err.count("Compiling the native kernels") == 1
    assert len(log.read_text().splitlines()) == len(list(build._FOLDER.glob("*.cpp"))) + 1
    assert build.load(command, tmp_path / "cache", "-DOTHER", dlopen=Path)[1] != path


def test_a_folder_that_cannot_be_written_or_executed_from(script, tmp_path):
    (tmp_path / "file").touch()
    compiler = script("cc", SUCCEEDS)
    assert "cannot be written (Not a directory). Set XDG_CACHE_HOME" in reason(compiler, tmp_path / "file" / "cache")

    def noexec(path: str) -> ctypes.CDLL:
        raise OSError(f"{path}: failed to map segment from shared object")

    said = reason(compiler, tmp_path / "cache", dlopen=noexec)
    assert "noexec" in said and "XDG_CACHE_HOME" in said
    assert "Delete it" in reason(compiler, tmp_path / "cache")  # the file is empty: no library at all


def python(script: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env=os.environ | environment)


def test_the_reason_is_said_once_on_stderr_and_not_where_the_plain_twins_were_chosen(script, tmp_path):
    ask = "from spoutnik.native import describe, library; print(library(), library(), describe())"
    done = python(ask, CXX=script("cc", FAILS), XDG_CACHE_HOME=str(tmp_path / "cache"), SPOUTNIK_NATIVE="")
    assert done.stderr.count("fatal error: no such header") == 1 and done.stderr.count("not used") == 1
    assert done.stdout.startswith("None None plain PyTorch: ") and "no such header" in done.stdout
    done = python(ask, SPOUTNIK_NATIVE="0")
    assert done.stderr == "" and done.stdout == "None None plain PyTorch: chosen by SPOUTNIK_NATIVE=0\n"


@pytest.mark.skipif(library() is None, reason="no compiler here")
def test_a_structure_that_does_not_mirror_the_library_s_is_refused():
    structs.check(library())
    longer = type("Matrix", (ctypes.Structure,), {"_fields_": [*structs.Matrix._fields_, ("more", ctypes.c_int64)]})
    with pytest.raises(RuntimeError, match="struct Matrix"):
        structs.check(library(), (longer,))


@pytest.mark.skipif(library() is None, reason="no compiler here")
def test_what_runs_is_told():
    kernels = describe()
    assert kernels.reason is None and kernels.path.exists() and kernels.instructions
    assert str(kernels).startswith(f"native, {kernels.instructions}, compiled by {kernels.compiler}")
