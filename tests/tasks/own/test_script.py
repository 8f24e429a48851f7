"""A user's Python file: its contract, its mistakes, verifiers that hang, and what its process sees of ours."""

import json
import signal
import subprocess
import sys
from importlib.resources import files

import pytest

from spoutnik.errors import RunError, UserError
from spoutnik.tasks.own import ScriptTask, read_task
from spoutnik.tasks.own.script import Script

POSES = '''
def problems():
    for number in range(30):
        yield {"prompt": f"Double {number}", "answer": 2 * number, "split": "train" if number else "held_out"}
'''
GOOD = '''
import helper

def verify(prompt, answer, gold):
    print("noise on the standard output")
    return helper.same(answer, gold)
''' + POSES


@pytest.fixture
def write(tmp_path):
    (tmp_path / "helper.py").write_text("def same(a, b):\n    return a.strip() == b\n")

    def write_file(source: str):
        path = tmp_path / "mine.py"
        path.write_text(source)
        return path

    return write_file


def ending_in(body: str) -> str:
    return f"def verify(prompt, answer, gold):\n    {body}\n{POSES}"


def test_a_file_that_poses_and_grades(write):
    task = read_task(write(GOOD))
    (problem,) = task.problems("held_out")
    assert isinstance(task, ScriptTask) and (problem.prompt, problem.answer, problem.family) == ("Double 0", "0", "mine.py")
    assert task.verify(problem, " 0 ") == 1.0 and task.verify(problem, "1") == 0.0 and len(task.problems("train")) == 29


def test_rows_beside_the_file(write, tmp_path):
    path = write("def verify(prompt, answer, gold):\n    return 0.5 if answer == gold else 0\n")
    with pytest.raises(UserError, match=r"has no function problems\(\), and no file of rows beside it \(mine.jsonl\)"):
        read_task(path)
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "p", "answer": "a", "split": "train"}) + "\n")
    task = read_task(path)
    (problem,) = task.problems("train")
    assert task.verify(problem, "a") == 0.5 and task.verify(problem, "b") == 0.0
    before = task.content
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "p", "answer": "b", "split": "train"}) + "\n")
    assert read_task(path).content != before
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "p", "answer": "a", "verifier": "exact"}) + "\n")
    with pytest.raises(UserError, match="mine.jsonl, line 1: unknown key 'verifier'"):
        read_task(path)


@pytest.mark.parametrize("value, grade", [("True", 1.0), ("False", 0.0), ("0.25", 0.25), ("1", 1.0)])
def test_grades(write, value, grade):
    task = read_task(write(ending_in(f"return {value}")))
    assert task.verify(task.problems("train")[0], "x") == grade


@pytest.mark.parametrize("body, sentence", [
    ("return 'yes'", "gives 'yes'. A grade is a bool or a number from 0 to 1"), ("return None", "gives None."),
    ("return [1]", "gives [1]."),
    ("return float('nan')", "gives nan."), ("return 2", "gives 2."), ("return -0.1", "gives -0.1."),
    ("return answer[7]",
     "line 2: verify(), asked about the prompt 'Double 1' and the answer 'x', raises IndexError: string index"),
    ("raise SystemExit(0)", "raises SystemExit"), ("import os; os._exit(0)", "ends its own process"),
    ("return 10 ** 400", "gives 1000")])
def test_mistakes_of_verify_are_told(write, body, sentence):
    task = read_task(write(ending_in(body)))
    with pytest.raises(RunError) as error:
        task.verify(task.problems("train")[0], "x")
    assert sentence in str(error.value) and str(error.value).startswith(str(task.path))


def test_a_file_goes_on_after_a_mistake(write):
    task = read_task(write(ending_in("import os; return os._exit(0) if answer == 'end' else int(answer)")))
    problem = task.problems("train")[0]
    for answer in ("x", "end"):
        with pytest.raises(RunError):
            task.verify(problem, answer)
    assert task.verify(problem, "1") == 1.0


@pytest.mark.parametrize("source, sentence", [
    ("def verify(prompt, answer, gold)\n    pass", "line 1: cannot be loaded, SyntaxError"),
    ("x = 1", "has no function verify(prompt, answer, gold)"),
    ("verify = 3", "has no function verify"), ("def verify(answer): pass", "verify must take three arguments"),
    ("import no_such_module", "line 1: cannot be loaded, ModuleNotFoundError"),
    ("raise SystemExit", "cannot be loaded, SystemExit"),
    ("def verify(a, b, c): pass\ndef problems(): return 1 / 0", "line 2: problems() raises ZeroDivisionError"),
    ("def verify(a, b, c): pass\ndef problems(): return []", "problems() gives none."),
    ("def verify(a, b, c): pass\ndef problems(): return [{'prompt': 'a'}, {'promt': 'b'}]",
     "problem 2 of problems(): unknown key 'promt'"),
    ("def verify(a, b, c): pass\ndef problems(): return [object()]", "problems() raises TypeError")])
def test_files_that_are_wrong(write, source, sentence):
    path = write(source)
    with pytest.raises(UserError) as error:
        read_task(path)
    assert sentence in str(error.value) and str(error.value).startswith(str(path))


def test_a_verifier_that_hangs_is_ended_and_counted(write, capfd):
    path = write(ending_in("\n    while answer == 'hang': pass\n    return True"))
    script = Script(path, seconds=0.2)
    assert script.verify("p", "hang", "g") == 0.0 and script.timeouts == 1
    assert script.verify("p", "x", "g") == 1.0
    assert script.verify("p", "hang", "g") == 0.0 and script.verify("p", "hang", "g") == 0.0
    assert capfd.readouterr().err.count("takes more than 0.2 s; it was ended, and the grade is 0") == 1
    with pytest.raises(RunError, match="takes more than 0.2 s, as 2 times before"):
        script.verify("p", "hang", "g")
    script.close()


def test_the_file_sees_no_keys_and_cannot_read_our_input(write, monkeypatch):
    monkeypatch.setenv("SPOUTNIK_JUDGE_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    task = read_task(write(ending_in("import os, sys; return 'secret' not in str(os.environ) and sys.stdin.read() == ''")))
    assert task.verify(task.problems("train")[0], "x") == 1.0


def test_any_text_reaches_verify_as_it_is(write):
    task = read_task(write(ending_in("return answer == gold or len(answer) == 1_000_000")))
    problem = task.problems("train")[0]
    assert task.verify(problem, "a" * 1_000_000) == 1.0
    for answer in ("\x00", "\ud83d", "\u202e", "\n", '"'):
        assert task.script.verify("p", answer, answer) == 1.0


def test_closing_ends_the_process_and_a_call_starts_another(write):
    task = read_task(write(GOOD))
    task.script.close()
    assert task.verify(task.problems("held_out")[0], "0") == 1.0
    task.script.close()
    task.script.close()


def test_a_process_that_nobody_waits_for_ends_by_itself_while_the_file_is_loaded(write):
    path = write("import time\ntime.sleep(60)\n")
    worker = subprocess.Popen([sys.executable, "-P", str(files("spoutnik.tasks.own") / "worker.py"), path, "-4"])
    try:
        assert worker.wait(timeout=20) == -signal.SIGALRM
    finally:
        worker.kill()
