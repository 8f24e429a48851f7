"""Running programs: what comes back, warm and cold alike, and that a warm process that dies is replaced."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from code_helpers import needs_bubblewrap

from spoutnik.errors import UserError
from spoutnik.tasks.code import Limits, RunResult, Sandbox, as_tests, bubblewrap, run
from spoutnik.tasks.code.limits import LIMITED_UID, is_overdue, process_tree
from spoutnik.tasks.code.verdict import judge

PROGRAMS = {
    "output": ("print(input()[::-1])", "héé\n", RunResult("ééh\n", "", 0, False)),
    "stderr": ("import sys; sys.stderr.write('e')", "", RunResult("", "e", 0, False)),
    "status": ("import sys; sys.exit(7)", "", RunResult("", "", 7, False)),
    "status text": ("import sys; sys.exit('bad')", "", RunResult("", "bad\n", 1, False)),
    "status large": ("import sys; sys.exit(256 + 3)", "", RunResult("", "", 3, False)),
    "os._exit": ("import os; print(1, flush=True); os._exit(4)", "", RunResult("1\n", "", 4, False)),
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "", RunResult("", "", -11, False)),
    "not UTF-8": ("import sys; sys.stdout.buffer.write(b'a\\xff\\0b')", "", RunResult("a\ufffd\0b", "", 0, False)),
    "NUL": ("print(1)\0", "", RunResult("", "SyntaxError: source code string cannot contain null bytes\n", 1, False)),
    "much": ("print('x' * 3_000_000)", "", RunResult("x" * (1 << 20), "", 0, False, truncated=True)),
    "atexit": ("import atexit; atexit.register(print, 'end')", "", RunResult("end\n", "", 0, False)),
    "threads": ("import threading, time\ndef late():\n    time.sleep(0.1)\n    print('late')\n"
                "threading.Thread(target=late).start()", "", RunResult("late\n", "", 0, False)),
    "main": ("if __name__ == '__main__':\n    import __main__\n    x = 5\n    print(__main__.x)", "",
             RunResult("5\n", "", 0, False)),
    "pools": ("import multiprocessing\ndef f(x): return x + 1\nif __name__ == '__main__':\n"
              "    with multiprocessing.Pool(2) as pool: print(pool.map(f, [1, 2]))", "", RunResult("[2, 3]\n", "", 0, False)),
    "stdin of its own": ("print(len(open(0).read()))", "x" * 300_000, RunResult("300000\n", "", 0, False)),
    "error": ("def f():\n    1 / 0\nf()", "", RunResult("", 'Traceback (most recent call last):\n  File "<program>", line 3, '
              'in <module>\n  File "<program>", line 2, in f\nZeroDivisionError: division by zero\n', 1, False)),
}


@needs_bubblewrap
@pytest.mark.parametrize("kind", ["warm", "cold"])
@pytest.mark.parametrize("program, stdin, expected", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_what_a_program_does_comes_back(request, kind, program, stdin, expected):
    assert request.getfixturevalue(kind).run(program, stdin, timeout=20) == expected


@needs_bubblewrap
def test_a_program_of_a_megabyte_and_one_that_is_nested_too_deeply(warm):
    assert warm.run("x = '" + "x" * 1_000_000 + "'\nprint(len(x))", timeout=20).stdout == "1000000\n"
    assert warm.run("(" * 100_000, timeout=20).exit_code == 1
    assert warm.run("print('\ud800')").exit_code == 1  # half a surrogate pair, as a model's output may hold


@needs_bubblewrap
@pytest.mark.parametrize("kind", ["warm", "cold"])
@pytest.mark.parametrize("program", ["import time\nprint(1, flush=True)\ntime.sleep(60)",
                                     "import os, time\nprint(1, flush=True)\nos.fork()\nos.close(1)\ntime.sleep(60)",
                                     "import signal\nfor n in (2, 14, 15): signal.signal(n, signal.SIG_IGN)\n"
                                     "print(1, flush=True)\nwhile True: pass"])
def test_a_program_that_does_not_end_is_killed_with_all_its_processes(request, kind, program):
    assert request.getfixturevalue(kind).run(program, timeout=0.4) == RunResult("1\n", "", -9, True)


def test_waiting_for_a_processor_does_not_count_as_time():
    assert not is_overdue(elapsed=1.0, used=0.5, waited=0.0, timeout=2.0)
    assert is_overdue(elapsed=2.0, used=0.1, waited=0.0, timeout=2.0)  # it sleeps
    assert not is_overdue(elapsed=3.0, used=1.0, waited=1.9, timeout=2.0)
    assert is_overdue(elapsed=3.0, used=2.0, waited=50.0, timeout=2.0)  # many processes that wait for each other
    assert is_overdue(elapsed=9.0, used=1.0, waited=7.9, timeout=2.0)  # patience has an end


@needs_bubblewrap
def test_programs_of_several_threads_get_their_own_results(warm):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: warm.run("print(int(input()) ** 2)", f"{number}\n", 20).stdout, range(40)))
    assert results == [f"{number ** 2}\n" for number in range(40)]


@needs_bubblewrap
def test_a_warm_process_that_dies_is_replaced():
    sandbox = Sandbox()
    assert sandbox.run("print(1)").stdout == "1\n"
    first = sandbox.warm_process
    os.kill(first, signal.SIGKILL)
    assert sandbox.run("print(2)", timeout=20).stdout == "2\n"
    assert sandbox.warm_process not in (None, first)
    sandbox.close()
    assert sandbox.warm_process is None
    assert sandbox.run("print(3)", timeout=20).stdout == "3\n"  # closed is not the end of it
    sandbox.close()


@needs_bubblewrap
def test_a_program_whose_warm_process_dies_is_run_again():
    sandbox = Sandbox()
    sandbox.run("1")
    idle = len(process_tree(sandbox.warm_process))
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(sandbox.run, "import time\ntime.sleep(0.5)\nprint(1)", timeout=20)
        while len(process_tree(sandbox.warm_process)) < idle + 2:
            assert not result.done()
        os.kill(sandbox.warm_process, signal.SIGKILL)
        assert result.result() == RunResult("1\n", "", 0, False)
    sandbox.close()


@needs_bubblewrap
def test_the_package_runs_programs_by_itself():
    assert run("print(input())", "hello") == RunResult("hello\n", "", 0, False)


def test_a_sandbox_of_another_kind_is_refused():
    with pytest.raises(UserError, match="--sandbox takes bubblewrap or rlimit"):
        Sandbox("docker")


def test_without_bubblewrap_code_is_refused_with_the_remedy(monkeypatch):
    bubblewrap.find.cache_clear()
    monkeypatch.setattr(bubblewrap, "candidates", lambda: ["/bin/false"])
    try:
        with pytest.raises(UserError, match="does not start here .*--sandbox rlimit"):
            Sandbox()
        bubblewrap.find.cache_clear()
        monkeypatch.setattr(bubblewrap, "candidates", lambda: [])
        with pytest.raises(UserError, match="is not installed.*apt-get install bubblewrap"):
            Sandbox()
    finally:
        bubblewrap.find.cache_clear()


@pytest.fixture(scope="module")
def limited():
    return Sandbox("rlimit", limits=Limits(memory=300 << 20))


@pytest.mark.parametrize("name", ["output", "status text", "error", "killed", "much", "pools"])
def test_under_resource_limits_alone_programs_run_too(limited, name):
    program, stdin, expected = PROGRAMS[name]
    assert limited.run(program, stdin, timeout=20) == expected


def test_under_resource_limits_alone_time_memory_and_user_are_limited(limited):
    assert limited.run("import time\nwhile True: time.sleep(1)", timeout=0.4) == RunResult("", "", -9, True)
    result = limited.run("data = bytearray(900 << 20)\ndata[::4096] = b'x' * len(data[::4096])\nimport time; time.sleep(60)",
                         timeout=30)
    assert result.out_of_memory
    if os.geteuid() == 0:
        assert limited.run("import os\nprint(os.getuid() != 0, os.access('/etc/shadow', os.R_OK))").stdout == "True False\n"


def test_under_resource_limits_alone_nothing_is_left_behind(limited):
    folder = limited.run("import os\nopen('left', 'w').write('x')\nprint(os.getcwd())").stdout.strip()
    assert folder and not os.path.exists(folder)


def test_under_resource_limits_alone_verdicts_are_made_outside_too(limited):
    tests = as_tests(["assert f(2) == 4"])
    assert judge(limited, "def f(x): return 2 * x", tests, 20).passed
    spoil = """
import os
def f(x):
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{process}").st_uid != os.getuid():
                open(f"/proc/{process}/mem", "r+b")
                os.environ["OPEN"] = process
        except OSError:
            pass
    return 4 if "OPEN" in os.environ else 3
"""
    assert not judge(limited, spoil, tests, 20).passed  # it returns 4 where it can open the memory of tests or of this process
    if os.geteuid() == 0:
        assert limited.run("import os\nprint(os.getuid())").stdout == f"{LIMITED_UID}\n"
    for fake in ("import os\ndef f(x): os._exit(0)", "def f(x): raise SystemExit", "def f(x): return None"):
        assert not judge(limited, fake, tests, 20).passed
