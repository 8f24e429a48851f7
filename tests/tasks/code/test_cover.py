"""The covered mount namespace that is entered again and again, against the program that makes it anew each time."""

import os
import subprocess

import pytest

from spoutnik.tasks.code import Sandbox, bubblewrap, covered

LOOK = ("grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs)' /proc/self/status; ls -A /root; ls /proc/self/fd; cat /proc/1/environ; "
        "ls -A {home} 2>&1; umask")


@pytest.fixture(scope="module")
def ways():
    """The commands before bubblewrap's: (by entering, by covering anew)."""
    try:
        bwrap = bubblewrap.find()
    except bubblewrap.UserError as error:
        pytest.skip(str(error))
    entering, _ = bubblewrap.command_as_other_user(bwrap)
    if not entering or "nsenter" not in entering[0]:
        pytest.skip("Python is in no private folder of root's here, or there is no nsenter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(covered, "SYSTEM", "/nowhere")
        covering, _ = bubblewrap.command_as_other_user(bwrap)
    return entering, covering


def test_both_ways_are_as_safe(ways):
    """User, groups, rights, what is left of covered folders, open files, and no environment of parents."""
    home = os.path.expanduser("~")
    entering, covering = (subprocess.run([*way, "/bin/sh", "-c", LOOK.format(home=home)], env={}, stdin=subprocess.DEVNULL,
                                         capture_output=True, text=True, cwd="/") for way in ways)
    assert covering.stdout == entering.stdout and "cover.py" in " ".join(ways[1])
    assert f"Uid:\t{bubblewrap.SANDBOX_UID}" in entering.stdout and "CapEff:\t0000000000000000" in entering.stdout


def test_programs_run_the_same_without_nsenter(ways, monkeypatch):
    monkeypatch.setattr(covered, "SYSTEM", "/nowhere")
    program = "import os\nprint(os.getuid(), sorted(os.listdir('/proc/self/fd')), sorted(os.listdir('/')), os.getcwd())"
    without = Sandbox(warm=False).run(program)
    monkeypatch.undo()
    assert without.exit_code == 0 and Sandbox(warm=False).run(program) == without


def test_a_namespace_that_cannot_be_made_or_entered_is_not_used():
    assert covered.enter(("/bin/false",), 65533) is None
    assert not covered._starts(("/bin/false",))
