"""Files survive: the old one or the new one, never half of one, and a sentence for whatever the disk refuses."""

import errno
import os
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik import files
from spoutnik.errors import RunError, UserError
from spoutnik.files import (
    install_folder,
    leftovers,
    read_json,
    read_jsonl,
    replacing,
    sha256_file,
    sha256_json,
    write_json,
    write_jsonl,
    write_text,
)
from spoutnik.model.weights import load_tensors, save_tensors


def only(path):
    """The file and nothing else in its folder: no temporary is left behind."""
    assert os.listdir(path.parent) == [path.name]
    return path.read_text()


def test_the_new_file_takes_the_old_one_s_place(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new é")
    assert only(path) == "new é"


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()])
def test_the_old_file_stays_when_the_block_raises(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise error
    assert only(path) == "old"


def test_a_private_file_is_private_from_its_first_moment(tmp_path):
    with replacing(tmp_path / "a.txt", mode=0o600) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_text("secret")
    assert only(tmp_path / "a.txt") == "secret" and (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o600


def test_several_threads_write_one_file_at_once(tmp_path):
    barrier, failed = threading.Barrier(6), []

    def write(text: str) -> None:
        try:
            for _ in range(5):
                with replacing(tmp_path / "a.txt") as temporary:
                    barrier.wait()  # all are inside
                    temporary.write_text(text * 1000)
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(set(only(tmp_path / "a.txt"))) == 1 and len(only(tmp_path / "a.txt")) == 1000


_WRITER = """
import sys
import threading
from pathlib import Path
from spoutnik.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_writer_leaves_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "a [1].txt"
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                text=True) for _ in range(2)]
    killed, living = (writer.stdout.readline().strip() for writer in writers)
    writers[0].kill()
    writers[0].wait()
    assert [left.name for left in leftovers(tmp_path)] == [killed]
    write_text(path, "new")
    assert sorted(os.listdir(tmp_path)) == sorted([living, path.name])
    writers[1].communicate("", timeout=60)
    assert writers[1].returncode == 0 and only(path) == "half" and not writers[0].communicate()[0]


def test_where_files_cannot_be_locked_nothing_is_taken_for_left_over(tmp_path, monkeypatch):
    (tmp_path / ".a.txt.writing-1-2").write_text("perhaps somebody's")
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    write_text(tmp_path / "a.txt", "new")
    assert sorted(os.listdir(tmp_path)) == [".a.txt.writing-1-2", "a.txt"]


@pytest.mark.parametrize("option", [None, "--data"])
def test_an_option_is_named_only_where_the_command_has_it(tmp_path, option):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as refused, replacing(tmp_path / "file" / "a.txt", option=option):
        pytest.fail("it cannot be written")
    assert ("--" in str(refused.value)) == (option is not None) and str(option or "another folder") in str(refused.value)


def test_folders_are_made_on_the_way(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    happened = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        happened.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def replace(source, target):
        happened.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    write_text(tmp_path / "a.txt", "x")
    assert happened[0].startswith(".a.txt") and happened[1:] == ["rename", tmp_path.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number, words", [(28, "the disk is full while saving; nothing already made was touched"),
                                           (13, "cannot be written")])
def test_a_disk_that_refuses_is_a_sentence_and_the_old_file_stays(tmp_path, monkeypatch, call, number, words):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, call, refuse)
    with pytest.raises(RunError) as error:
        write_text(path, "new")
    assert str(path) in str(error.value) and words in str(error.value)
    assert only(path) == "old"


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "a").write_text("a file, not a folder")
    with pytest.raises(RunError, match="b.txt: cannot be written"):
        write_text(tmp_path / "a" / "b.txt", "x")


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from spoutnik.errors import RunError
from spoutnik.model.weights import save_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    save_tensors(Path(sys.argv[1]), {"a": torch.ones(100000)})
except RunError as error:
    print(error)
"""


def test_weights_that_the_system_refuses_to_write_leave_the_old_ones(tmp_path):
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.zeros(3)})
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout and "cannot be written" in done.stdout
    assert os.listdir(tmp_path) == [path.name] and torch.equal(load_tensors(path)["a"], torch.zeros(3))


@pytest.mark.parametrize("refusal", ["I/O error: No space left on device (os error 28)"])
def test_a_full_disk_reported_by_safetensors_is_the_same_sentence(tmp_path, monkeypatch, refusal):
    from safetensors import SafetensorError

    from spoutnik.model import weights

    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.zeros(3)})

    def refuse(*_, **__):
        raise SafetensorError(refusal)

    monkeypatch.setattr(weights, "save_file", refuse)
    with pytest.raises(RunError, match="the disk is full while saving"):
        save_tensors(path, {"a": torch.ones(3)})
    assert torch.equal(load_tensors(path)["a"], torch.zeros(3))


def test_a_finished_folder_appears_whole(tmp_path):
    fresh = tmp_path / "fresh"
    (fresh / "inside").mkdir(parents=True)
    (fresh / "inside" / "a").write_text("x")
    install_folder(fresh, tmp_path / "final")
    assert (tmp_path / "final" / "inside" / "a").read_text() == "x" and not fresh.exists()


# JSON

json_values = st.recursive(st.none() | st.booleans() | st.integers(-2 ** 60, 2 ** 60) | st.text(
    st.characters(exclude_categories=("Cs",)), max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=4), inner, max_size=3), max_leaves=6)


@given(value=st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), json_values, max_size=4))
def test_json_comes_back(value, tmp_path):
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    write_jsonl(tmp_path / "a.jsonl", [value, value])
    assert read_jsonl(tmp_path / "a.jsonl") == [value, value]


@pytest.mark.parametrize("content, words", [(None, "not found"), (b"{", "is not valid JSON"), (b"\xff\xfe", "valid")])
def test_json_that_cannot_be_read_is_named(tmp_path, content, words):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)


@pytest.mark.parametrize("line, words", [("{broken", "not valid JSON"), ('{"b": 1}', "the key 'a' is missing"),
                                         ("3", "the key 'a' is missing")])
def test_a_broken_row_is_named_by_its_line_blank_ones_counted(tmp_path, line, words):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n\n{line}\n')
    with pytest.raises(UserError) as error:
        read_jsonl(path, ("a",))
    assert str(error.value).startswith(f"{path}, line 3: ") and words in str(error.value)


@pytest.mark.parametrize("make, words", [(lambda p: None, "no such file"), (lambda p: p.mkdir(), "is not a text file"),
                                         (lambda p: p.write_bytes(b"\xff\n"), "is not a text file")])
def test_a_file_of_rows_that_cannot_be_read_is_named(tmp_path, make, words):
    path = tmp_path / "rows.jsonl"
    make(path)
    with pytest.raises(UserError, match=words):
        read_jsonl(path)


def test_hashes_see_the_content_and_not_the_order_of_keys(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1}) != sha256_json({"a": 1, "b": 3})


def test_a_folder_takes_the_place_of_another_or_leaves_it_there(tmp_path, monkeypatch):
    final, aside = tmp_path / "final", tmp_path / "aside"

    def fresh(text):
        folder = tmp_path / "fresh"
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text(text)
        return folder

    install_folder(fresh("first"), final, aside)
    install_folder(fresh("second"), final, aside)
    assert (final / "file").read_text() == "second" and not aside.exists()

    def refuse(source, target):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(RunError, match="cannot be written"):
        install_folder(fresh("third"), final, aside)
    assert (final / "file").read_text() == "second" and not aside.exists()
