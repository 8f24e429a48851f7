"""What a program in the sandbox cannot do: each hole that a plain call of bubblewrap leaves open is closed, warm and cold."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from code_helpers import needs_bubblewrap

from spoutnik.tasks.code import Limits, Sandbox
from spoutnik.tasks.code.limits import process_tree

pytestmark = needs_bubblewrap


@pytest.fixture(params=["warm", "cold"])
def sandbox(request):
    return request.getfixturevalue(request.param)


def test_the_environment_of_the_parents_is_not_seen(sandbox, monkeypatch):
    monkeypatch.setenv("SPOUTNIK_TEST_KEY", "secret-value")
    fresh = Sandbox(warm=sandbox.warm)  # started with the key in the environment
    result = fresh.run("""
import os
print(dict(os.environ))
for process in os.listdir("/proc"):
    if process.isdigit():
        try:
            print(open(f"/proc/{process}/environ").read())
        except OSError as error:
            print(error)
""")
    fresh.close()
    assert result.exit_code == 0 and "PATH" in result.stdout
    assert "secret-value" not in result.stdout + result.stderr


def test_a_fork_bomb_ends_at_the_limit_of_processes(sandbox):
    result = sandbox.run("""
import os, time
forks = 0
try:
    while forks < 200:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        forks += 1
except OSError:
    pass
print(forks)
""", timeout=20)
    assert 1 <= int(result.stdout) < 64


def test_the_memory_of_all_processes_together_is_limited():
    small = Sandbox(limits=Limits(memory=150 << 20))
    program = """
import os, time
for _ in range({children}):
    if os.fork() == 0:
        data = bytearray(60 << 20)
        data[::4096] = b"x" * len(data[::4096])
        time.sleep(60)
        os._exit(0)
time.sleep({seconds})
"""
    result = small.run(program.format(children=6, seconds=60), timeout=20)
    assert (result.out_of_memory, result.timed_out, result.exit_code) == (True, False, -9)
    assert small.run(program.format(children=1, seconds=0.3), timeout=20).exit_code == 0
    small.close()


def test_a_single_large_request_of_memory_is_refused(sandbox):
    result = sandbox.run("bytearray(10 ** 11)")
    assert result.exit_code == 1 and "MemoryError" in result.stderr


def test_folders_in_memory_have_a_size(sandbox):
    result = sandbox.run("""
for folder in ("/tmp", "/dev/shm"):
    written = 0
    try:
        for number in range(30):
            with open(f"{folder}/{number}", "wb") as file:
                file.write(bytes(10 << 20))
            written += 10
    except OSError as error:
        print(written, error.errno)
""", timeout=20)
    assert result.stdout == "60 28\n60 28\n"  # ENOSPC


def test_memory_that_belongs_to_no_process_is_not_to_be_had(sandbox):
    result = sandbox.run("""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
try:
    os.memfd_create("x")
except OSError as error:
    print(error.errno)
for call in (lambda: libc.shmget(0, 1 << 20, 0o1600), lambda: libc.msgget(0, 0o1600)):
    print(call(), ctypes.get_errno())
""")
    if os.uname().machine in ("x86_64", "aarch64"):
        assert result.stdout == "1\n-1 1\n-1 1\n"  # EPERM


def test_there_are_no_user_namespaces_and_no_mounts_inside(sandbox):
    result = sandbox.run("""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000), libc.unshare(0x00020000), libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
status = open("/proc/self/status").read()
print([line.split()[1] for line in status.splitlines() if line.startswith(("CapPrm", "CapEff", "CapBnd", "NoNewPrivs"))])
""")
    assert result.stdout == "-1 -1 -1\n['0000000000000000', '0000000000000000', '0000000000000000', '1']\n"


def test_user_namespaces_are_closed_by_their_number_too(warm):
    """As on a processor for which there is no filter of system calls (cold, bubblewrap does the same)."""
    assert warm.run("print(open('/proc/sys/user/max_user_namespaces').read())").stdout.strip() == "0"


def test_there_is_no_network(sandbox):
    result = sandbox.run("""
import socket
print([name for _, name in socket.if_nameindex()])
for family, address in ((socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("2001:db8::1", 80))):
    try:
        socket.socket(family, socket.SOCK_STREAM).connect(address)
        print("open")
    except OSError as error:
        print("closed")
""")
    assert result.stdout == "['lo']\nclosed\nclosed\n"


def test_files_of_this_machine_are_not_read(sandbox, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret-value")
    paths = ["/etc/shadow", "/etc/passwd", "/home", "/work", "/var", "/sys", "/run", "/bin/sh", str(secret), str(tmp_path),
             os.path.expanduser("~/.ssh"), os.path.expanduser("~/.bashrc"), os.getcwd() + "/pyproject.toml"]
    result = sandbox.run(f"import os\nprint([path for path in {paths!r} if os.path.exists(path)])")
    assert result.stdout == "[]\n"


def test_nothing_can_be_written_but_scratch(sandbox):
    result = sandbox.run("""
import os, sys
for folder in ("/", "/dev", "/usr/lib", "/sandbox", "/sandbox/inside", "/etc", "/proc/sys/kernel", sys.base_prefix,
               os.path.dirname(os.__file__)):
    try:
        open(f"{folder}/x", "w")
        print("written", folder)
    except OSError:
        pass
open("/tmp/x", "w").write("x")
open("/dev/shm/x", "w").write("x")
""")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 0)


def test_other_processes_are_neither_seen_nor_signaled(sandbox):
    result = sandbox.run("""
import os, signal
print(sorted(map(int, filter(str.isdigit, os.listdir("/proc")))))
for process in (os.getppid(), 1):
    try:
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGKILL)
    except OSError:
        pass
print("alive")
""")
    assert result.stdout.startswith("[1, 2") and result.stdout.endswith("alive\n")


def test_nothing_outlives_its_program(warm):
    warm.run("1")
    before = len(process_tree(warm.warm_process))
    result = warm.run("""
import os, signal, time
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork():
            os._exit(0)
        time.sleep(600)
print("left")
""")
    assert (result.stdout, result.exit_code) == ("left\n", 0)
    assert len(process_tree(warm.warm_process)) == before


def test_nothing_is_left_for_the_next_program(warm):
    warm.run("""
import builtins, json, os, random, sys
open("/tmp/left", "w").write("x")
open("/dev/shm/left", "w").write("x")
os.environ["LEFT"] = "x"
sys.path.append("/left")
sys.setrecursionlimit(50)
json.dumps = builtins.sorted = None
random.seed(1)
""")
    result = warm.run("""
import builtins, json, os, sys
print(os.listdir("/tmp"), os.listdir("/dev/shm"), "LEFT" in os.environ, "/left" in sys.path, sys.getrecursionlimit() > 50)
print(json.dumps(sorted([2, 1])), sorted(os.listdir("/proc/self/fd"))[:3], len(os.listdir("/proc/self/fd")))
""")
    assert result.stdout == "[] [] False False True\n[1, 2] ['0', '1', '2'] 4\n"


def test_programs_at_the_same_time_do_not_meet(warm):
    """A name of the abstract kind, a port of the loopback and a file, taken by one program, are free in another."""
    program = """
import os, socket, time
os.mkdir("/tmp/taken")
socket.socket(socket.AF_UNIX).bind("\\0taken")
time.sleep(0.2)
print("free")
"""
    with ThreadPoolExecutor(3) as pool:
        assert [result.stdout for result in pool.map(lambda _: warm.run(program), range(3))] == ["free\n"] * 3
