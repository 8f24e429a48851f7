"""Standard streams that are pipes, full, closed or of another encoding; Ctrl-C."""

import json
import os
import signal
import subprocess
import sys

import pytest

from spoutnik.commands.main import how_to_go_on

PROGRAM = [sys.executable, "-m", "spoutnik"]


def start(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen([*PROGRAM, *arguments], **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options)


@pytest.fixture
def keys(tmp_path):
    """Options of a data folder that has keys."""
    for name in ("laptop", "café"):
        subprocess.run([*PROGRAM, "keys", "add", name, "--data", str(tmp_path)], check=True, capture_output=True)
    return ["--data", str(tmp_path)]


def test_a_pipe_gets_the_answer_alone_and_json_has_the_thought_too():
    asked = ("chat", "--prompt", "What is 12 + 30?", "--no-history")
    answers, told = start(*asked).communicate(timeout=120)
    assert b"42" in answers and b"think" not in answers and answers.endswith(b"\n")
    assert told.startswith(b"<think>\n") and b"</think>" in told
    whole = json.loads(start(*asked, "--json").communicate(timeout=120)[0])
    assert whole["answer"].encode() == answers.removesuffix(b"\n") and whole["thought"].encode() in told


def test_a_reader_that_has_gone_ends_it_without_a_word(keys):
    for arguments in (["keys", "list", *keys], ["keys", "list", "--json", *keys], ["inspect", "deepseek-r1"]):
        read, write = os.pipe()
        os.close(read)
        process = start(*arguments, stdout=write)
        os.close(write)
        assert process.communicate(timeout=120)[1] == b"" and process.returncode == 128 + signal.SIGPIPE, arguments


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_sentence(keys):
    with open("/dev/full", "wb") as full:
        process = start("keys", "list", *keys, stdout=full)
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and told.count(b"\n") == 1 and b"No space left on device. Free some space" in told


def test_closed_streams_and_other_encodings(keys):
    closed = subprocess.run(["sh", "-c", f"{' '.join(PROGRAM)} keys list --data {keys[1]} <&- >&- 2>&-"], timeout=120)
    assert closed.returncode == 0
    plain = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    shown = start("keys", "list", *keys, env=plain).communicate(timeout=120)
    assert b"caf?" in shown[0] and shown[1] == b""
    listed = start("keys", "list", "--json", *keys, env=plain).communicate(timeout=120)[0]
    assert [key["name"] for key in json.loads(listed)] == ["laptop", "café"]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    process = start("keys", "add", "laptop", "--data", str(tmp_path / "file"))
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and b"Traceback" not in told and str(tmp_path / "file").encode() in told


def test_ctrl_c_while_it_waits_for_a_line_from_a_pipe(tmp_path):
    process = start("chat", "--no-history", stdin=subprocess.PIPE, preexec_fn=lambda: signal.signal(
        signal.SIGINT, signal.default_int_handler))
    assert b"/help for commands" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130 and told.strip() == b"Interrupted." and out == b""


@pytest.mark.parametrize("arguments, told", [
    (["run", "nano"], "again to go on."), (["pull", "qwen3-0.6b"], "again to go on."), (["chat"], ""),
    (["eval", "nano"], "again to go on."), (["run", "nano", "--from", "base"], "again (without --from, which"),
    (["run", "nano", "--from=base"], "(without --from")])
def test_only_commands_that_keep_their_work_say_how_it_goes_on(arguments, told):
    assert told in how_to_go_on(arguments) and bool(told) == bool(how_to_go_on(arguments))
